// Finds the accesses of a block that reach memory at fixed distances from each other (fields of a structure, words of a
// stack frame), so that one look at the whole span they cover can stand for all. Pure: looks at instructions alone.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "engine/interpreter/block.h"

namespace bulkhead::engine::jit {

class AccessGroups {
 public:
  static constexpr size_t kGroups = 16;
  // Bytes that a group may cover: few enough that it seldom crosses a page.
  static constexpr int64_t kSpan = 128;
  // No displacement beyond it is of a group, or native at all: with the way from one access of a group to another it,
  // and what is opposite to it, still are displacements of 32 bits.
  static constexpr int64_t kMaximumDisplacement = INT32_MAX - kSpan;
  [[nodiscard]] static constexpr bool is_near(int64_t displacement) {
    return displacement >= -kMaximumDisplacement && displacement <= kMaximumDisplacement;
  }

  AccessGroups() = default;
  // Of at most BlockCache::kMaximumOps. excluded: bit n set, the n-th instruction belongs to no group.
  AccessGroups(std::span<const Op> ops, uint64_t excluded);

  // The span of an instruction's access and those behind it that share its group.
  struct Span {
    uint8_t group;
    int32_t begin;  // from the instruction's own address
    uint32_t size;  // bytes
    bool writes;    // any of them
  };
  [[nodiscard]] bool has_group(size_t op) const { return members_[op].group != kNone; }
  [[nodiscard]] uint8_t group(size_t op) const { return members_[op].group; }
  // Of the access from what its group has in common.
  [[nodiscard]] int64_t offset(size_t op) const { return members_[op].offset; }
  // Nothing: no access behind this one shares its group.
  [[nodiscard]] std::optional<Span> span(size_t op) const;

 private:
  static constexpr uint8_t kNone = 0xFF;
  struct Member {
    int64_t offset = 0;
    uint8_t group = kNone;
    uint8_t size = 0;
    bool writes = false;
  };
  std::array<Member, BlockCache::kMaximumOps> members_{};
  size_t op_count_ = 0;
};

}  // namespace bulkhead::engine::jit
