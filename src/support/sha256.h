// SHA-256 (FIPS 180-4) of bytes that come piece by piece.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "support/bytes.h"

namespace bulkhead {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256& update(ByteSpan bytes);
  // Of all that was put in, as 64 hexadecimal digits. Nothing may follow.
  [[nodiscard]] std::string finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace bulkhead
