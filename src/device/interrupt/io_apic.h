// The I/O APIC: 24 inputs, each with a redirection entry that says which message it sends. Behaves as version 0x20,
// with the EOI register (Intel 82093AA data sheet; ICH9 data sheet 13.5). Inputs are logical levels, so the polarity
// bit only reads back. It knows no local APIC: messages go to a sink, which may be the host kernel's.
#pragma once

#include <array>
#include <cstdint>

#include "device/device.h"
#include "device/interrupt/apic_bus.h"
#include "device/interrupt/apic_message.h"
#include "device/wires.h"
#include "support/os/mutex.h"

namespace bulkhead::device::interrupt {

class IoApic final : public Device, public Mmio, public IrqLine::Receiver, public EndOfInterruptReceiver {
 public:
  static constexpr uint32_t kInputCount = 24;
  static constexpr uint64_t kDefaultBase = 0xFEC00000;
  static constexpr uint64_t kRegionSize = 0x1000;

  // Told, without a lock held, when what an input sends may have changed: a sink that must know in advance which
  // vectors are level-triggered (the host kernel's APICs) mirrors the table.
  class RouteListener {
   public:
    virtual ~RouteListener() = default;
    virtual void route_changed(uint32_t input) = 0;
  };
  struct Route {
    InterruptMessage message;
    bool masked = true;
  };

  // id: as the ACPI MADT names it, 0 to 15.
  IoApic(MessageSink& sink, uint8_t id);
  // At set-up.
  void set_route_listener(RouteListener* listener) { route_listener_ = listener; }
  [[nodiscard]] Route route(uint32_t input) const;

  [[nodiscard]] std::string_view name() const override { return "io-apic"; }
  void reset() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

  void read_mmio(uint64_t offset, MutableByteSpan out) override;
  void write_mmio(uint64_t offset, ByteSpan in) override;
  void set_irq(uint32_t input, bool asserted) override;
  void end_of_interrupt(uint8_t vector) override;

 private:
  // At most one message an input: what to send once the lock is free.
  struct Outbox {
    std::array<InterruptMessage, kInputCount> messages;
    uint32_t count = 0;
  };

  [[nodiscard]] uint32_t read_register(uint8_t index) const REQUIRES(mutex_);
  // True when an entry was written.
  bool write_register(uint8_t index, uint32_t value, Outbox& outbox) REQUIRES(mutex_);
  void write_entry(uint32_t input, uint64_t value, Outbox& outbox) REQUIRES(mutex_);
  void send_level(uint32_t input, Outbox& outbox) REQUIRES(mutex_);
  void complete(uint8_t vector, Outbox& outbox) REQUIRES(mutex_);
  void post(const Outbox& outbox);
  void announce_all_routes();

  MessageSink& sink_;
  const uint8_t reset_id_;
  RouteListener* route_listener_ = nullptr;

  mutable Mutex mutex_;
  uint8_t select_ GUARDED_BY(mutex_) = 0;
  uint8_t id_ GUARDED_BY(mutex_);
  std::array<uint64_t, kInputCount> entries_ GUARDED_BY(mutex_);
  uint32_t asserted_ GUARDED_BY(mutex_) = 0;  // one bit an input
};

}  // namespace bulkhead::device::interrupt
