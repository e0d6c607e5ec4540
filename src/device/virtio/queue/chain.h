// One buffer that a driver made available: the device-readable pieces, then the device-writable ones, resolved to host
// bytes of guest RAM. The pieces were copied out of the descriptors once and checked; what lies in them is the driver's
// still and may change at any time, so control structures are copied out of a chain before they are looked at.
#pragma once

#include <cstdint>
#include <vector>

#include "memory/guest_memory.h"
#include "support/bytes.h"

namespace bulkhead::device::virtio {

struct Segment {
  GuestAddress address;
  MutableByteSpan bytes;
};

class Chain {
 public:
  // Pieces of one chain, direct or indirect; a driver that sends more has lost its way.
  static constexpr size_t kMaximumSegments = 1024;

  // Sums of the pieces; each fits 32 bits, as the used ring's length does.
  [[nodiscard]] uint32_t readable_size() const { return readable_size_; }
  [[nodiscard]] uint32_t writable_size() const { return writable_size_; }

  // Copies out of the readable part from offset on; false when it ends before.
  [[nodiscard]] bool read(uint32_t offset, MutableByteSpan out) const;
  // Copies into the writable part and marks the pages; false when it ends before.
  [[nodiscard]] bool write(uint32_t offset, ByteSpan in) const;

  // Host bytes of a part for bulk data; the range lies within it. After writing: mark_written().
  [[nodiscard]] std::vector<MutableByteSpan> readable_bytes(uint32_t offset, uint32_t size) const;
  [[nodiscard]] std::vector<MutableByteSpan> writable_bytes(uint32_t offset, uint32_t size) const;
  void mark_written(uint32_t offset, uint32_t size) const;

 private:
  friend class ChainBuilder;
  friend class SplitQueue;
  friend class PackedQueue;

  memory::GuestMemory* memory_ = nullptr;
  std::vector<Segment> segments_;
  size_t readable_count_ = 0;
  uint32_t readable_size_ = 0;
  uint32_t writable_size_ = 0;
  // How the queue knows it: the descriptor or buffer id, and how many slots of a packed ring it takes.
  uint16_t id_ = 0;
  uint16_t slot_count_ = 1;
};

enum class Direction : uint8_t { kReadable, kWritable };

// Puts a chain together from descriptors that a guest wrote, refusing what the specification forbids.
class ChainBuilder {
 public:
  ChainBuilder(memory::GuestMemory& memory, Chain& chain);
  // False when the range is not RAM, readable follows writable, or there are too many pieces or bytes.
  [[nodiscard]] bool add(uint64_t address, uint32_t length, Direction direction);

 private:
  memory::GuestMemory& memory_;
  Chain& chain_;
  size_t descriptor_count_ = 0;
};

}  // namespace bulkhead::device::virtio
