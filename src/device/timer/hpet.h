// The HPET (IA-PC HPET specification 1.0a): a 100 MHz counter of 64 bits and three comparators, each one-shot or
// periodic, of 32 or 64 bits, edge or level. Legacy replacement takes IRQ 0 and IRQ 8 from the PIT and the RTC. No FSB
// delivery.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "device/device.h"
#include "device/level_output.h"
#include "device/wires.h"
#include "support/os/mutex.h"
#include "support/time/clock.h"

namespace bulkhead::device::timer {

class Hpet final : public Device, public Mmio {
 public:
  static constexpr uint64_t kDefaultBase = 0xFED00000;
  static constexpr uint64_t kRegionSize = 0x400;
  static constexpr uint64_t kTickNs = 10;
  static constexpr uint32_t kComparatorCount = 3;
  // The I/O APIC inputs that a comparator can be routed to.
  static constexpr uint32_t kFirstRoute = 20, kRouteCount = 4;
  // For the ACPI HPET table.
  static constexpr uint32_t kEventTimerBlockId = 0x8086A201;

  struct Wires {
    IrqLine irq0, irq8;                       // comparators 0 and 1 in legacy replacement
    std::array<IrqLine, kRouteCount> routes;  // I/O APIC inputs 20 to 23
    IrqLine cut_off_pit, cut_off_rtc;         // asserted while legacy replacement is on
  };

  Hpet(Clock& clock, const Wires& wires);

  [[nodiscard]] std::string_view name() const override { return "hpet"; }
  void reset() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;
  void read_mmio(uint64_t offset, MutableByteSpan out) override;
  void write_mmio(uint64_t offset, ByteSpan in) override;

 private:
  // irq0, irq8, routes.
  static constexpr uint32_t kOutputCount = 2 + kRouteCount;
  static constexpr uint32_t kNoOutput = kOutputCount;
  static constexpr uint64_t kNever = UINT64_MAX;

  struct Comparator {
    uint64_t configuration = 0;  // the writable bits
    uint64_t value = UINT64_MAX;
    uint64_t period = 0;
    uint64_t due_ns = kNever;
  };
  struct Registers {
    uint64_t configuration = 0;
    uint64_t status = 0;
    uint64_t counter = 0;  // while halted; else its value at started_ns
    uint64_t started_ns = 0;
    std::array<Comparator, kComparatorCount> comparators;
  };
  // What to do once the lock is free: one bit an output.
  struct Action {
    uint32_t pulse = 0;
    bool settle = false;
  };

  [[nodiscard]] bool is_enabled() const REQUIRES(mutex_);
  [[nodiscard]] bool is_legacy() const REQUIRES(mutex_);
  [[nodiscard]] uint64_t counter(uint64_t now_ns) const REQUIRES(mutex_);
  [[nodiscard]] uint32_t output_of(uint32_t index) const REQUIRES(mutex_);
  [[nodiscard]] uint64_t read_register(uint64_t offset, uint64_t now_ns) const REQUIRES(mutex_);
  void write_register(uint64_t offset, uint64_t value, uint64_t now_ns) REQUIRES(mutex_);
  void write_configuration(uint64_t value, uint64_t now_ns) REQUIRES(mutex_);
  void write_comparator(Comparator& comparator, uint64_t value) REQUIRES(mutex_);
  // When the counter meets the comparator next, after having met it at now if just_met.
  void schedule(uint32_t index, uint64_t now_ns, bool just_met) REQUIRES(mutex_);
  void arm(uint32_t index) REQUIRES(mutex_);
  // What silent comparators have met since the last look.
  void catch_up(uint64_t now_ns) REQUIRES(mutex_);
  void advance_periodic(Comparator& comparator, uint64_t now_ns) REQUIRES(mutex_);
  void update_levels(Action& action) REQUIRES(mutex_);
  void perform(const Action& action);
  void on_timer(uint32_t index);

  Clock& clock_;
  const std::array<IrqLine, kOutputCount> outputs_;
  mutable Mutex mutex_;
  Registers registers_ GUARDED_BY(mutex_);
  std::array<LevelOutput, kOutputCount> levels_;
  LevelOutput cut_off_pit_, cut_off_rtc_;
  std::array<std::unique_ptr<Timer>, kComparatorCount> timers_;
};

}  // namespace bulkhead::device::timer
