// Little-endian loads and stores on byte spans, and arithmetic that reports overflow instead of wrapping.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>

namespace bulkhead {

static_assert(std::endian::native == std::endian::little, "Bulkhead runs on x86-64 hosts");

using ByteSpan = std::span<const uint8_t>;
using MutableByteSpan = std::span<uint8_t>;

template <typename T>
  requires std::is_trivially_copyable_v<T>
[[nodiscard]] T load(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename T>
  requires std::is_trivially_copyable_v<T>
void store(void* to, const T& value) {
  std::memcpy(to, &value, sizeof value);
}

template <typename T>
  requires std::is_trivially_copyable_v<T>
[[nodiscard]] ByteSpan as_bytes(const T& object) {
  return {reinterpret_cast<const uint8_t*>(&object), sizeof object};
}

template <typename T>
  requires std::is_trivially_copyable_v<T>
[[nodiscard]] MutableByteSpan as_mutable_bytes(T& object) {
  return {reinterpret_cast<uint8_t*>(&object), sizeof object};
}

[[nodiscard]] constexpr std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

[[nodiscard]] constexpr std::optional<uint64_t> checked_multiply(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// True when [offset, offset + size) lies inside [0, limit), computed without wrapping.
[[nodiscard]] constexpr bool range_fits(uint64_t offset, uint64_t size, uint64_t limit) {
  return offset <= limit && size <= limit - offset;
}

// alignment is a power of two.
[[nodiscard]] constexpr uint64_t align_down(uint64_t value, uint64_t alignment) {
  return value & ~(alignment - 1);
}
[[nodiscard]] constexpr uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

// A little-endian value of 1 to 8 bytes, as device registers are read and written.
[[nodiscard]] inline uint64_t load_little(ByteSpan bytes) {
  uint64_t value = 0;
  std::memcpy(&value, bytes.data(), bytes.size() < 8 ? bytes.size() : 8);
  return value;
}
inline void store_little(MutableByteSpan bytes, uint64_t value) {
  std::memset(bytes.data(), 0, bytes.size());
  std::memcpy(bytes.data(), &value, bytes.size() < 8 ? bytes.size() : 8);
}

}  // namespace bulkhead
