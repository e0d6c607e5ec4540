// One count within a refcount block: 1 to 64 bits wide, big-endian, the first one in a byte's lowest bits.
#pragma once

#include <vector>

#include "support/bytes.h"

namespace bulkhead::block::qcow2 {

inline uint64_t get_count(ByteSpan block, uint64_t index, uint32_t order) {
  if (order < 3) {
    const uint32_t bits = 1u << order;
    return block[index * bits / 8] >> (index * bits % 8) & ((1u << bits) - 1);
  }
  uint64_t count = 0;
  const size_t size = size_t{1} << (order - 3);
  for (size_t i = 0; i < size; ++i) count = count << 8 | block[index * size + i];
  return count;
}

inline void set_count(MutableByteSpan block, uint64_t index, uint32_t order, uint64_t count) {
  if (order < 3) {
    const uint32_t bits = 1u << order, shift = static_cast<uint32_t>(index * bits % 8);
    uint8_t& byte = block[index * bits / 8];
    byte = static_cast<uint8_t>((byte & ~(((1u << bits) - 1) << shift)) | count << shift);
    return;
  }
  const size_t size = size_t{1} << (order - 3);
  for (size_t i = size; i-- > 0; count >>= 8) block[index * size + i] = static_cast<uint8_t>(count);
}

}  // namespace bulkhead::block::qcow2
