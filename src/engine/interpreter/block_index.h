// How blocks are found: a hash table by what physical bytes they were made from and for which mode, and a memory of the
// physical pages that linear pages of code lead to. Translated code looks into both by itself (jit::Jit), so their
// layout is part of their interface.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "memory/guest_address.h"

namespace bulkhead::engine {

struct Block;

// A physical address (of up to 48 bits) and the mode, of 16 bits. A page's key is that of its first byte.
using BlockKey = uint64_t;
[[nodiscard]] constexpr BlockKey block_key(uint64_t physical, uint32_t mode) {
  return physical << 16 | mode;
}
[[nodiscard]] constexpr uint64_t physical_of(BlockKey key) {
  return key >> 16;
}

// Open addressing: a key stands at its slot or behind it, before the next empty one. The last slot is always empty, so
// that a search never wraps. A key that finds no room before the end is not kept, and its block is made again: a guest
// that aims at that harms itself.
class BlockIndex {
 public:
  struct Entry {
    BlockKey key = kEmpty;
    Block* block = nullptr;
  };
  static constexpr BlockKey kEmpty = ~0ull, kRemoved = ~0ull - 1;  // no physical address has these
  static constexpr uint64_t kMultiplier = 0x9E37'79B9'7F4A'7C15;
  static constexpr uint8_t kHashShift = 36;

  BlockIndex() { clear(); }

  void clear();
  // In place of the one that had the key.
  void insert(BlockKey key, Block* block);
  void remove(BlockKey key);
  [[nodiscard]] Block* find(BlockKey key) const {
    for (const Entry* entry = &entries_[slot_of(key)]; entry->key != kEmpty; ++entry) {
      if (entry->key == key) return entry->block;
    }
    return nullptr;
  }
  [[nodiscard]] size_t size() const { return size_; }

  // For translated code: the first entry, and the greatest number that a hash may give.
  [[nodiscard]] const Entry* const& entries() const { return entries_; }
  [[nodiscard]] const uint64_t& mask() const { return mask_; }

 private:
  static constexpr size_t kFirstCapacity = 1 << 10;
  static constexpr size_t kOverhang = 64;  // slots behind the last that a hash may give

  [[nodiscard]] size_t slot_of(BlockKey key) const { return key * kMultiplier >> kHashShift & mask_; }
  void allocate(size_t capacity);
  void place(BlockKey key, Block* block);
  void grow();

  std::unique_ptr<Entry[]> storage_;
  const Entry* entries_ = nullptr;
  uint64_t mask_ = 0;
  size_t used_ = 0;  // with those removed
  size_t size_ = 0;
};

// Of a linear page, the key of the physical page that its code comes from: true while run_context stays.
struct CodePage {
  uint64_t linear = 0;
  uint64_t run_context = 0;  // 0 is never in use
  BlockKey key = 0;
  uint64_t padding = 0;
};

class CodePages {
 public:
  static constexpr size_t kEntries = 1 << 11;

  void remember(uint64_t linear, uint64_t run_context, BlockKey key) {
    const uint64_t page = linear & ~(kPageSize - 1);
    pages_[slot_of(page)] = {.linear = page, .run_context = run_context, .key = key};
  }
  // The key of the code at the linear address, or 0 when its page is not known.
  [[nodiscard]] BlockKey find(uint64_t linear, uint64_t run_context) const {
    const CodePage& page = pages_[slot_of(linear)];
    if (page.linear != (linear & ~(kPageSize - 1)) || page.run_context != run_context) return 0;
    return page.key + ((linear & (kPageSize - 1)) << 16);
  }
  [[nodiscard]] const CodePage* data() const { return pages_.data(); }

 private:
  static size_t slot_of(uint64_t linear) { return (linear >> kPageShift) & (kEntries - 1); }
  std::array<CodePage, kEntries> pages_{};
};

}  // namespace bulkhead::engine
