// CRC-32C (Castagnoli), which guards the structures of a VHDX file.
#pragma once

#include <array>

#include "support/bytes.h"

namespace bulkhead::block {

namespace crc32c_detail {
consteval std::array<uint32_t, 256> table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82F63B78u : 0);
    table[i] = value;
  }
  return table;
}
inline constexpr std::array<uint32_t, 256> kTable = table();
}  // namespace crc32c_detail

// state: what an earlier call gave for the bytes in front of these.
[[nodiscard]] inline uint32_t crc32c(ByteSpan bytes, uint32_t state = 0) {
  uint32_t value = ~state;
  for (const uint8_t byte : bytes) value = (value >> 8) ^ crc32c_detail::kTable[(value ^ byte) & 0xFF];
  return ~value;
}

// Of bytes that hold their own sum, as if that were zero.
[[nodiscard]] inline uint32_t crc32c_without(ByteSpan bytes, size_t own) {
  constexpr std::array<uint8_t, 4> kZero{};
  return crc32c(bytes.subspan(own + 4), crc32c(kZero, crc32c(bytes.first(own))));
}

}  // namespace bulkhead::block
