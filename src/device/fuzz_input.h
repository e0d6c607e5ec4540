// What a fuzz target feeds its device from. For fuzz targets only.
#pragma once

#include <cstdint>

#include "support/bytes.h"

namespace bulkhead::device {

class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : bytes_(data, size) {}
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  // The next bytes as a little-endian number, of which there may be fewer than asked for, or none.
  uint64_t take(size_t size) {
    const size_t count = size < bytes_.size() ? size : bytes_.size();
    const uint64_t value = load_little(bytes_.first(count));
    bytes_ = bytes_.subspan(count);
    return value;
  }

 private:
  ByteSpan bytes_;
};

}  // namespace bulkhead::device
