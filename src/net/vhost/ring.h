// Split virtqueues (VIRTIO 1.2, 2.7) in memory that another process shares: the device's side, for whoever serves a
// card, and the driver's side, for a card's own process. The other side is hostile: each field is read once, checked
// and then used, and every walk has an end.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "net/frame/offload.h"
#include "support/bytes.h"

namespace bulkhead::net::vhost {

struct Descriptor {
  uint64_t address;
  uint32_t size;
  uint16_t flags;
  uint16_t next;
};
inline constexpr uint16_t kDescriptorNext = 1, kDescriptorWrite = 2, kDescriptorIndirect = 4;
inline constexpr uint16_t kNoInterrupt = 1, kNoNotify = 1;
inline constexpr uint16_t kMaximumRingSize = 1024;
// In front of each frame (VIRTIO 1.2, 5.1.6).
inline constexpr size_t kNetHeaderSize = frame::kVirtioHeaderSize;

// Bytes of the three parts of a ring.
[[nodiscard]] constexpr size_t descriptors_size(size_t count) {
  return 16 * count;
}
[[nodiscard]] constexpr size_t available_size(size_t count) {
  return 6 + 2 * count;
}
[[nodiscard]] constexpr size_t used_size(size_t count) {
  return 6 + 8 * count;
}

// Where the three parts stand in this process. All of them lie in mapped memory as a whole.
struct RingMemory {
  uint8_t* descriptors = nullptr;
  uint8_t* available = nullptr;
  uint8_t* used = nullptr;
  uint16_t size = 0;  // a power of two
};

// Memory of the other side by its own addresses.
class AddressSpace {
 public:
  virtual ~AddressSpace() = default;
  // The bytes at a guest address; empty when not all of them are there.
  [[nodiscard]] virtual MutableByteSpan at(uint64_t guest_address, uint64_t size) const = 0;
};

class DeviceRing {
 public:
  enum class Popped : uint8_t { kEmpty, kChain, kBroken };

  DeviceRing(const RingMemory& memory, uint16_t base) : memory_(memory), seen_(base), done_(base) {}

  // Takes the next chain's head and buffers; they are read or written afterwards, and nothing else is looked up again.
  Popped pop(const AddressSpace& space);
  // Of the chain popped last: bytes that the driver gave, into out; those it may not hold are left out.
  size_t read(MutableByteSpan out) const;
  [[nodiscard]] size_t readable_size() const { return readable_; }
  [[nodiscard]] size_t writable_size() const { return writable_; }
  // In order, a part each.
  void write(size_t offset, ByteSpan bytes) const;
  // Gives the chain popped last back.
  void push(uint32_t written);
  // As if it had not been popped.
  void unpop() { --seen_; }

  [[nodiscard]] bool wants_interrupt() const;
  // The driver should say when there is more, or need not. After the former, look once more.
  void set_notifications(bool wanted);
  [[nodiscard]] uint16_t base() const { return seen_; }

 private:
  struct Part {
    MutableByteSpan bytes;
    bool writable;
  };
  static constexpr size_t kMaximumParts = 64;

  RingMemory memory_;
  uint16_t seen_;  // of available
  uint16_t done_;  // of used
  uint16_t head_ = 0;
  std::vector<Part> parts_;
  size_t readable_ = 0;
  size_t writable_ = 0;
};

// Rings whose n-th descriptor has the n-th buffer for ever.
class DriverRing {
 public:
  // memory is zero. Addresses of buffers are those that the device is told.
  DriverRing(const RingMemory& memory, uint64_t first_buffer, uint32_t buffer_size, bool device_writes);

  // Gives a buffer to the device: its index and how much of it counts.
  void add(uint16_t buffer, uint32_t size);
  struct Used {
    enum class Kind : uint8_t { kNone, kBuffer, kBroken } kind = Kind::kNone;
    uint16_t buffer = 0;
    uint32_t written = 0;
  };
  [[nodiscard]] Used take();
  [[nodiscard]] bool has_used() const;
  [[nodiscard]] bool wants_notify() const;
  void set_interrupts(bool wanted);

 private:
  RingMemory memory_;
  uint32_t buffer_size_;
  uint16_t given_ = 0;  // of available
  uint16_t seen_ = 0;   // of used
  std::vector<bool> with_device_;
};

}  // namespace bulkhead::net::vhost
