#include "engine/interpreter/decoded_ring.h"

#include <algorithm>
#include <new>

#include "engine/interpreter/block.h"
#include "support/check.h"

namespace bulkhead::engine {

DecodedRing::DecodedRing(size_t capacity_bytes)
    : capacity_(capacity_bytes), memory_(std::make_unique_for_overwrite<uint8_t[]>(capacity_bytes)) {}

void DecodedRing::clear() {
  next_ = 0;
  oldest_ = 0;
  old_end_ = 0;
}

void DecodedRing::evict_oldest() {
  const auto* record = reinterpret_cast<const Record*>(memory_.get() + oldest_);
  record->owner->ops = nullptr;
  oldest_ += record->size;
}

void DecodedRing::add(Block& owner, std::span<const Op> ops, std::span<const decoder::Instruction> instructions) {
  static_assert(sizeof(Record) % alignof(Op) == 0 && sizeof(Op) % alignof(decoder::Instruction) == 0 &&
                sizeof(decoder::Instruction) % alignof(Record) == 0);
  const size_t size = sizeof(Record) + ops.size_bytes() + instructions.size_bytes();
  CHECK(size <= capacity_ && owner.ops == nullptr, "decoded instructions that do not fit");
  if (size > capacity_ - next_) {
    while (oldest_ < old_end_) evict_oldest();
    old_end_ = next_;
    oldest_ = 0;
    next_ = 0;
  }
  while (oldest_ < old_end_ && oldest_ < next_ + size) evict_oldest();

  uint8_t* place = memory_.get() + next_;
  new (place) Record{.owner = &owner, .size = size};
  auto* kept = reinterpret_cast<Op*>(place + sizeof(Record));
  auto* kept_instructions = reinterpret_cast<decoder::Instruction*>(kept + ops.size());
  std::ranges::uninitialized_copy(ops, std::span(kept, ops.size()));
  std::ranges::uninitialized_copy(instructions, std::span(kept_instructions, instructions.size()));
  for (size_t i = 0; i < ops.size(); ++i) kept[i].instruction = &kept_instructions[i];
  owner.ops = kept;
  next_ += size;
}

}  // namespace bulkhead::engine
