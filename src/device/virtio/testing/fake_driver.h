// A driver of a virtio PCI device as a test plays it: finds the capabilities, negotiates, sets queues up and catches
// the interrupts. It reaches the device only as a guest would: configuration space, BAR and guest memory.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "device/virtio/manual_worker.h"
#include "device/virtio/testing/driver_ring.h"
#include "device/virtio/transport/pci_transport.h"

namespace bulkhead::device::virtio {

class RecordingSink final : public MessageSink {
 public:
  void send_message(const InterruptMessage& message) override {
    const LockGuard lock(mutex_);
    messages_.push_back(message);
    arrived_.notify_all();
  }
  // How many messages with this data have come.
  [[nodiscard]] size_t count(uint32_t data) const {
    const LockGuard lock(mutex_);
    return count_locked(data);
  }
  void wait_for(uint32_t data, size_t times) {
    mutex_.lock();
    while (count_locked(data) < times) arrived_.wait(mutex_);
    mutex_.unlock();
  }

 private:
  [[nodiscard]] size_t count_locked(uint32_t data) const REQUIRES(mutex_) {
    return static_cast<size_t>(std::ranges::count(messages_, data, &InterruptMessage::data));
  }
  mutable Mutex mutex_;
  ConditionVariable arrived_;
  std::vector<InterruptMessage> messages_ GUARDED_BY(mutex_);
};

class RecordingLine final : public IrqLine::Receiver {
 public:
  void set_irq(uint32_t, bool asserted) override { level = asserted; }
  bool level = false;
};

class FakeDriver {
 public:
  // Queue i interrupts with message data kQueueData + i, the configuration with kConfigData.
  static constexpr uint32_t kQueueData = 0x40;
  static constexpr uint32_t kConfigData = 0x30;
  static constexpr uint64_t kRings = 0x10'0000;
  static constexpr uint64_t kRingStride = 0x10'0000;

  FakeDriver(PciTransport& device, memory::GuestMemory& memory) : device_(device), memory_(memory) {
    device.attach(nullptr, IrqLine(line, 0));
    write_config(spec::pci::kCommand, 2, spec::pci::kCommandMemory | spec::pci::kCommandBusMaster);
  }

  // ---- Registers ----
  [[nodiscard]] uint64_t read(uint64_t offset, unsigned size) {
    uint64_t value = 0;
    device_.read_mmio(offset, as_mutable_bytes(value).first(size));
    return value;
  }
  void write(uint64_t offset, unsigned size, uint64_t value) {
    device_.write_mmio(offset, as_bytes(value).first(size));
  }
  [[nodiscard]] uint32_t read_config(uint16_t offset, unsigned size) {
    uint32_t value = 0;
    device_.read_config(offset, as_mutable_bytes(value).first(size));
    return value;
  }
  void write_config(uint16_t offset, unsigned size, uint32_t value) {
    device_.write_config(offset, as_bytes(value).first(size));
  }
  [[nodiscard]] uint8_t status() { return static_cast<uint8_t>(read(0x14, 1)); }
  void set_status(uint8_t value) { write(0x14, 1, value); }
  [[nodiscard]] uint64_t offered() {
    write(0x00, 4, 0);
    const uint64_t low = read(0x04, 4);
    write(0x00, 4, 1);
    return low | read(0x04, 4) << 32;
  }

  // ---- Set-up ----
  // Acknowledges, agrees on features, says FEATURES_OK. True when the device kept it.
  bool negotiate(uint64_t features) {
    set_status(spec::virtio::kStatusAcknowledge);
    set_status(spec::virtio::kStatusAcknowledge | spec::virtio::kStatusDriver);
    write(0x08, 4, 0);
    write(0x0C, 4, features & UINT32_MAX);
    write(0x08, 4, 1);
    write(0x0C, 4, features >> 32);
    features_ = features;
    set_status(status() | spec::virtio::kStatusFeaturesOk);
    return (status() & spec::virtio::kStatusFeaturesOk) != 0;
  }
  void enable_msix() {
    const unsigned count = device_.msix_vector_count();
    for (unsigned i = 0; i < count; ++i) {
      const uint64_t entry = PciTransport::kTableOffset + 16 * i;
      write(entry, 8, 0xFEE0'0000);
      write(entry + 8, 4, i == 0 ? kConfigData : kQueueData + i - 1);
      write(entry + 12, 4, 0);
    }
    write(0x10, 2, 0);
    uint32_t capability = read_config(spec::pci::kCapabilityPointer, 1);
    while (read_config(static_cast<uint16_t>(capability), 1) != spec::pci::kCapabilityMsix) {
      capability = read_config(static_cast<uint16_t>(capability + 1), 1);
    }
    write_config(static_cast<uint16_t>(capability + spec::pci::kMsixControl), 2, spec::pci::kMsixEnable);
  }
  DriverRing& set_up_queue(uint16_t index, uint16_t size) {
    QueueConfig config{.size = size};
    config.packed = (features_ & spec::virtio::kFeatureRingPacked) != 0;
    config.indirect = (features_ & spec::virtio::kFeatureIndirect) != 0;
    config.event_index = (features_ & spec::virtio::kFeatureEventIndex) != 0;
    if (rings_.size() <= index) rings_.resize(index + 1u);
    rings_[index] = DriverRing::create(memory_, {kRings + kRingStride * index}, config);
    const QueueConfig& placed = rings_[index]->config();
    write(0x16, 2, index);
    write(0x18, 2, size);
    write(0x1A, 2, index + 1u);
    write(0x20, 8, placed.descriptors.value);
    write(0x28, 8, placed.driver.value);
    write(0x30, 8, placed.device.value);
    write(0x1C, 2, 1);
    return *rings_[index];
  }
  void go() { set_status(status() | spec::virtio::kStatusDriverOk); }
  void kick(unsigned index) { write(PciTransport::kNotifyOffset + PciTransport::kNotifyStride * index, 2, index); }
  [[nodiscard]] DriverRing& ring(unsigned index) { return *rings_[index]; }
  // Takes over the rings of a driver whose memory and device state were carried over.
  void adopt(FakeDriver& other) {
    features_ = other.features_;
    rings_ = std::move(other.rings_);
  }

  // ---- Memory ----
  void put(uint64_t address, ByteSpan bytes) { (void)memory_.write({address}, bytes); }
  [[nodiscard]] std::vector<uint8_t> get(uint64_t address, size_t size) const {
    std::vector<uint8_t> bytes(size);
    (void)memory_.read({address}, bytes);
    return bytes;
  }

  RecordingLine line;

 private:
  PciTransport& device_;
  memory::GuestMemory& memory_;
  uint64_t features_ = 0;
  std::vector<std::unique_ptr<DriverRing>> rings_;
};

// What of a virtio device on PCI a test varies.
struct RingKind {
  bool packed;
  bool indirect;
  bool event_index;
  [[nodiscard]] uint64_t features() const {
    return spec::virtio::kFeatureVersion1 | (packed ? spec::virtio::kFeatureRingPacked : 0) |
           (indirect ? spec::virtio::kFeatureIndirect : 0) | (event_index ? spec::virtio::kFeatureEventIndex : 0);
  }
};
inline constexpr RingKind kRingKinds[] = {
    {false, false, false}, {false, true, false}, {false, false, true}, {false, true, true},
    {true, false, false},  {true, true, false},  {true, false, true},  {true, true, true},
};

}  // namespace bulkhead::device::virtio
