// A driver of the card as a test plays it: registers, rings in guest memory, frames in and out. It reaches the card
// only as a guest would: configuration space, BAR and guest memory.
#pragma once

#include <memory>
#include <vector>

#include "device/e1000/card.h"
#include "device/virtio/manual_worker.h"
#include "device/virtio/testing/fake_port.h"
#include "spec/pci.h"
#include "support/time/fake_clock.h"

namespace bulkhead::device::e1000 {

inline constexpr net::frame::MacAddress kCardMac{{2, 0, 0, 0x12, 0x34, 0x56}}, kOtherMac{{2, 0, 0, 0, 0, 9}};

struct E1000Pin final : IrqLine::Receiver {
  void set_irq(uint32_t /*input*/, bool asserted) override { up = asserted; }
  [[nodiscard]] IrqLine line() { return {*this, 0}; }
  [[nodiscard]] bool level() const { return up; }
  bool up = false;
};

struct E1000Messages final : MessageSink {
  void send_message(const InterruptMessage& message) override { sent.push_back(message.data); }
  std::vector<uint32_t> sent;
};

struct E1000Machine {
  // Rings of 8 descriptors, and a buffer for each.
  static constexpr uint32_t kRingSize = 8;
  static constexpr uint64_t kTransmitRing = 0x10'0000, kReceiveRing = 0x11'0000, kSent = 0x20'0000,
                            kReceived = 0x40'0000, kStride = 0x2'0000;

  explicit E1000Machine(uint16_t mtu = 1500, CardModel model = CardModel::k82540em) {
    auto made = std::make_unique<virtio::ManualWorker>();
    worker = made.get();
    card = Card::create({.model = model, .name = "e1000-0", .mac = kCardMac, .mtu = mtu}, port, *memory, clock,
                        messages, std::move(made))
               .value();
    card->attach(nullptr, irq.line());
  }

  // ---- Registers ----
  [[nodiscard]] uint32_t read(uint64_t offset) {
    uint32_t value = 0;
    card->read_mmio(offset, as_mutable_bytes(value));
    return value;
  }
  void write(uint64_t offset, uint32_t value) { card->write_mmio(offset, as_bytes(value)); }
  void write_config(uint16_t offset, unsigned size, uint32_t value) {
    card->write_config(offset, as_bytes(value).first(size));
  }
  void write_phy(unsigned number, uint16_t value) {
    write(spec::e1000::kMdiControl, value | number << 16 | 1u << 21 | 1u << 26);
  }
  [[nodiscard]] uint16_t read_phy(unsigned number) {
    write(spec::e1000::kMdiControl, number << 16 | 1u << 21 | 2u << 26);
    return static_cast<uint16_t>(read(spec::e1000::kMdiControl));
  }

  // ---- Rings ----
  void bring_up(uint32_t receive_control = spec::e1000::kReceiveBroadcast) {
    using namespace spec::e1000;
    write_config(spec::pci::kCommand, 2, spec::pci::kCommandMemory | spec::pci::kCommandBusMaster);
    write(kTransmitBaseLow, kTransmitRing);
    write(kTransmitLength, kRingSize * 16);
    write(kTransmitControl, kTransmitEnable);
    write(kReceiveBaseLow, kReceiveRing);
    write(kReceiveLength, kRingSize * 16);
    write(kReceiveControl, receive_control | kReceiveEnable);
    write(kInterruptMaskSet, kCauses);
    transmit_tail = receive_tail = 0;
    worker->run();
  }
  // Puts descriptors on the ring; the tail is for kick().
  void add(const spec::e1000::TransmitDescriptor& descriptor) {
    (void)memory->write_object({kTransmitRing + 16 * transmit_tail}, descriptor);
    transmit_tail = (transmit_tail + 1) % kRingSize;
  }
  void kick() {
    write(spec::e1000::kTransmitTail, transmit_tail);
    worker->run();
  }
  // A piece of a frame at a place of its own.
  void add_data(ByteSpan bytes, uint8_t command, uint8_t options = 0, uint16_t special = 0) {
    const uint64_t at = kSent + transmit_tail * kStride;
    (void)memory->write({at}, bytes);
    const bool extended = (command & spec::e1000::kTransmitExtended) != 0;
    add({.address = at,
         .command = static_cast<uint32_t>(bytes.size()) | (extended ? 1u << 20 : 0) | uint32_t{command} << 24,
         .status = uint32_t{options} << 8 | uint32_t{special} << 16});
  }
  void add_context(uint8_t ip_start, uint8_t transport_start, uint8_t transport_field, uint8_t command,
                   uint16_t segment_size = 0, uint8_t header_size = 0) {
    using namespace spec::e1000;
    add({.address = ip_start | (ip_start + 10ull) << 8 | (transport_start - 1ull) << 16 |
                    uint64_t{transport_start} << 32 | uint64_t{transport_field} << 40,
         .command = uint32_t{static_cast<uint8_t>(command | kTransmitExtended | kTransmitReport)} << 24,
         .status = uint32_t{header_size} << 8 | uint32_t{segment_size} << 16});
  }
  [[nodiscard]] uint8_t transmit_status(uint32_t index) const {
    return static_cast<uint8_t>(
        memory->read_object<spec::e1000::TransmitDescriptor>({kTransmitRing + 16 * index})->status);
  }
  void offer(uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
      const spec::e1000::ReceiveDescriptor descriptor{.address = kReceived + receive_tail * kStride};
      (void)memory->write_object({kReceiveRing + 16 * receive_tail}, descriptor);
      receive_tail = (receive_tail + 1) % kRingSize;
    }
    write(spec::e1000::kReceiveTail, receive_tail);
    worker->run();
  }
  void arrive(const std::vector<uint8_t>& frame, const net::frame::Offload& offload = {}) {
    port.waiting_offload = offload;
    port.waiting.push_back(frame);
    port.listener();
    worker->run();
  }
  [[nodiscard]] spec::e1000::ReceiveDescriptor received(uint32_t index) const {
    return *memory->read_object<spec::e1000::ReceiveDescriptor>({kReceiveRing + 16 * index});
  }
  [[nodiscard]] std::vector<uint8_t> received_bytes(uint32_t index, size_t size) const {
    std::vector<uint8_t> bytes(size);
    (void)memory->read({kReceived + index * kStride}, bytes);
    return bytes;
  }

  std::unique_ptr<memory::GuestMemory> memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  FakeClock clock;
  virtio::FakePort port;
  E1000Pin irq;
  E1000Messages messages;
  virtio::ManualWorker* worker = nullptr;
  std::unique_ptr<Card> card;
  uint32_t transmit_tail = 0, receive_tail = 0;
};

}  // namespace bulkhead::device::e1000
