#include "engine/interpreter/block_index.h"

namespace bulkhead::engine {

void BlockIndex::allocate(size_t capacity) {
  storage_ = std::make_unique<Entry[]>(capacity + kOverhang);
  entries_ = storage_.get();
  mask_ = capacity - 1;
  used_ = 0;
  size_ = 0;
}

void BlockIndex::clear() {
  allocate(kFirstCapacity);
}

void BlockIndex::place(BlockKey key, Block* block) {
  const size_t last = mask_ + kOverhang;
  Entry* room = nullptr;
  for (size_t slot = slot_of(key); slot < last; ++slot) {
    Entry& entry = storage_[slot];
    if (entry.key == key) {
      entry.block = block;
      return;
    }
    if (room == nullptr && entry.key >= kRemoved) room = &entry;
    if (entry.key == kEmpty) break;
  }
  if (room == nullptr) return;
  if (room->key == kEmpty) ++used_;
  *room = {.key = key, .block = block};
  ++size_;
}

void BlockIndex::insert(BlockKey key, Block* block) {
  if (used_ * 2 > mask_) {
    const std::unique_ptr<Entry[]> old = std::move(storage_);
    const size_t count = mask_ + 1 + kOverhang;
    // With many removed, the same size may do.
    allocate(size_ * 4 > mask_ ? 2 * (mask_ + 1) : mask_ + 1);
    for (size_t i = 0; i < count; ++i) {
      if (old[i].key < kRemoved) place(old[i].key, old[i].block);
    }
  }
  place(key, block);
}

void BlockIndex::remove(BlockKey key) {
  for (Entry* entry = &storage_[slot_of(key)]; entry->key != kEmpty; ++entry) {
    if (entry->key != key) continue;
    *entry = {.key = kRemoved, .block = nullptr};
    --size_;
    return;
  }
}

}  // namespace bulkhead::engine
