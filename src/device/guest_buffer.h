// The pieces of guest RAM that one command of a storage controller moves data from or to. Pieces are RAM by type, never
// another device's registers (DEVICE_SAFETY rule 10); they are looked up once, when the command is taken.
#pragma once

#include <cstdint>
#include <vector>

#include "memory/guest_memory.h"
#include "support/bytes.h"

namespace bulkhead::device {

class GuestBuffer {
 public:
  // Below what one preadv of the host takes.
  static constexpr size_t kMaximumPieces = 1000;

  explicit GuestBuffer(memory::GuestMemory& memory) : memory_(&memory) {}

  // False, and nothing appended, when a byte is not RAM or there are too many pieces. Neighbours become one piece.
  [[nodiscard]] bool append(GuestAddress address, uint64_t size);
  void clear();

  [[nodiscard]] uint64_t size() const { return size_; }
  // The host's bytes of [offset, offset + size), which lies within the buffer.
  [[nodiscard]] std::vector<MutableByteSpan> bytes(uint64_t offset, uint64_t size) const;
  // After the host has written to the first bytes.
  void mark_written(uint64_t size) const;

  // Copies as much as there is room for and returns how much that was.
  uint64_t read(uint64_t offset, MutableByteSpan out) const;
  uint64_t write(uint64_t offset, ByteSpan in) const;

 private:
  struct Piece {
    GuestAddress address;
    uint64_t size;
  };
  // Calls visit(address, size, offset from the first) for the pieces of a range, as far as the buffer goes.
  template <typename Visit>
  uint64_t for_each(uint64_t offset, uint64_t size, Visit&& visit) const;

  memory::GuestMemory* memory_;
  std::vector<Piece> pieces_;
  uint64_t size_ = 0;
};

}  // namespace bulkhead::device
