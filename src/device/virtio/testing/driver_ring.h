// The driver's side of a virtqueue, split or packed, playing the guest in tests: it writes rings into guest memory as
// the specification asks of a driver, and lets a test break them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "device/virtio/queue/queue.h"

namespace bulkhead::device::virtio {

struct DriverBuffer {
  uint64_t address = 0;
  uint32_t length = 0;
  bool writable = false;
};

struct DriverUsed {
  uint16_t id = 0;
  uint32_t length = 0;
};

class DriverRing {
 public:
  // Lays the ring out at base; indirect tables follow it. config.size and the flags are given, the addresses are filled
  // in.
  static std::unique_ptr<DriverRing> create(memory::GuestMemory& memory, GuestAddress base, QueueConfig config);
  virtual ~DriverRing() = default;

  [[nodiscard]] const QueueConfig& config() const { return config_; }
  // Bytes from base on that ring and tables take.
  [[nodiscard]] uint64_t footprint() const { return kTables + uint64_t{config_.size} * kTableSize; }

  // Makes a chain available and returns its id; with indirect as one descriptor that points to a table. There is room.
  virtual uint16_t add(std::span<const DriverBuffer> buffers, bool indirect = false) = 0;
  virtual std::optional<DriverUsed> take_used() = 0;
  [[nodiscard]] virtual size_t free_slots() const = 0;
  // Whether the device asked to be notified of what was added since this was last asked.
  [[nodiscard]] virtual bool take_notification() = 0;
  // Asks for an interrupt with the next used chain, or for none.
  virtual void set_interrupts(bool wanted) = 0;

 protected:
  static constexpr size_t kTableEntries = 64;
  static constexpr size_t kTableSize = kTableEntries * 16;
  static constexpr uint64_t kTables = 0x10000;

  DriverRing(memory::GuestMemory& memory, GuestAddress base, const QueueConfig& config)
      : memory_(memory), base_(base), config_(config) {}
  [[nodiscard]] GuestAddress table(uint16_t index) const { return base_ + kTables + kTableSize * uint64_t{index}; }
  template <typename T>
  void put(GuestAddress address, const T& object) {
    (void)memory_.write_object(address, object);
  }
  template <typename T>
  [[nodiscard]] T get(GuestAddress address) const {
    return memory_.read_object<T>(address).value_or(T{});
  }

  memory::GuestMemory& memory_;
  const GuestAddress base_;
  QueueConfig config_;
};

}  // namespace bulkhead::device::virtio
