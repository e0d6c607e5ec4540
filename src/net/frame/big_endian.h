// Network byte order: loads and stores of two and four bytes at any alignment.
#pragma once

#include <bit>
#include <cstdint>

#include "support/bytes.h"

namespace bulkhead::net::frame {

// The bytes are there: callers have checked.
[[nodiscard]] inline uint16_t load_big16(const uint8_t* from) {
  return __builtin_bswap16(load<uint16_t>(from));
}
[[nodiscard]] inline uint32_t load_big32(const uint8_t* from) {
  return __builtin_bswap32(load<uint32_t>(from));
}
inline void store_big16(uint8_t* to, uint16_t value) {
  store(to, __builtin_bswap16(value));
}
inline void store_big32(uint8_t* to, uint32_t value) {
  store(to, __builtin_bswap32(value));
}

}  // namespace bulkhead::net::frame
