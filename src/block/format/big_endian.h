// Big-endian loads and stores, the byte order of everything in a QCOW2 or VHD file.
#pragma once

#include "support/bytes.h"

namespace bulkhead::block {

inline uint32_t load32(const uint8_t* from) {
  return __builtin_bswap32(load<uint32_t>(from));
}
inline uint64_t load64(const uint8_t* from) {
  return __builtin_bswap64(load<uint64_t>(from));
}
inline void store32(uint8_t* to, uint32_t value) {
  store(to, __builtin_bswap32(value));
}
inline void store64(uint8_t* to, uint64_t value) {
  store(to, __builtin_bswap64(value));
}

}  // namespace bulkhead::block
