// The secret of encrypted images in tests: one object, so that every image's key is derived once.
#pragma once

#include "block/format/image.h"

namespace bulkhead::block::testing {

inline std::shared_ptr<DiskKey> test_key() {
  static const auto key = std::make_shared<DiskKey>(Secret(as_bytes(uint32_t{0x74736574})));
  return key;
}

// With the secret; it opens no other files.
inline ImageOpener test_opener() {
  ImageOpener opener("/nonexistent");
  opener.use_key({.key = test_key()});
  return opener;
}

}  // namespace bulkhead::block::testing
