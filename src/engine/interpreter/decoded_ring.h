// The decoded instructions of blocks. They can be made again from a block's bytes at any time, so they stand in a ring
// of memory where new ones overwrite the oldest: a block whose turn has come is left without.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "engine/interpreter/op.h"

namespace bulkhead::engine {

struct Block;

class DecodedRing {
 public:
  // Costs nothing until it is used. Holds at least one block of the greatest size.
  explicit DecodedRing(size_t capacity_bytes);

  // Copies both and sets owner.ops, until others need the room. The owner has none before.
  void add(Block& owner, std::span<const Op> ops, std::span<const decoder::Instruction> instructions);
  // The owners are gone.
  void clear();

 private:
  struct Record {
    Block* owner;
    size_t size;
  };
  void evict_oldest();

  size_t capacity_;
  std::unique_ptr<uint8_t[]> memory_;
  // [0, next_) is of this round, [oldest_, old_end_) of the one before.
  size_t next_ = 0, oldest_ = 0, old_end_ = 0;
};

}  // namespace bulkhead::engine
