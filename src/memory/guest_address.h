// A guest-physical address, distinct from every other integer.
#pragma once

#include <compare>
#include <cstdint>

namespace bulkhead {

struct GuestAddress {
  uint64_t value = 0;

  friend constexpr auto operator<=>(GuestAddress, GuestAddress) = default;
  friend constexpr GuestAddress operator+(GuestAddress a, uint64_t offset) { return {a.value + offset}; }
};

inline constexpr uint64_t kPageSize = 4096;
inline constexpr unsigned kPageShift = 12;

}  // namespace bulkhead
