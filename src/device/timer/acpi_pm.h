// The ACPI fixed hardware (ACPI 6.4, 4.8): power management event and control blocks, the PM timer, one block of
// general purpose events, the power button. Always in ACPI mode: the FADT names no SMI command port.
#pragma once

#include <cstdint>
#include <memory>

#include "device/device.h"
#include "device/level_output.h"
#include "device/wires.h"
#include "support/os/mutex.h"
#include "support/time/clock.h"

namespace bulkhead::device::timer {

class AcpiPm final : public Device, public PortIo {
 public:
  static constexpr uint64_t kFrequencyHz = 3'579'545;
  // Where the board puts the range, and the blocks in it: what the FADT says.
  static constexpr uint16_t kDefaultPort = 0x600, kRangeSize = 0x40;
  static constexpr uint16_t kEventOffset = 0x00, kEventSize = 4;
  static constexpr uint16_t kControlOffset = 0x04, kControlSize = 2;
  static constexpr uint16_t kTimerOffset = 0x08, kTimerSize = 4;
  static constexpr uint16_t kGeneralEventOffset = 0x20, kGeneralEventSize = 4;
  // SLP_TYP values of the DSDT's \_S5 and \_S0.
  static constexpr uint8_t kSleepTypeOff = 5, kSleepTypeOn = 0;

  // TMR_VAL_EXT in the FADT's flags.
  enum class TimerWidth : uint8_t { k24Bits, k32Bits };

  AcpiPm(Clock& clock, IrqLine sci, PowerControl& power, TimerWidth width = TimerWidth::k32Bits);

  [[nodiscard]] std::string_view name() const override { return "acpi-pm"; }
  void reset() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;
  uint32_t read_port(uint16_t offset, unsigned size) override;
  void write_port(uint16_t offset, unsigned size, uint32_t value) override;

  // From any thread.
  void press_power_button();
  // event: 0 to 15, bit of GPE0.
  void raise_general_event(unsigned event);

 private:
  struct Registers {
    uint16_t status = 0, enable = 0, control = 0;
    uint16_t general_status = 0, general_enable = 0;
    // Changes of the timer's highest bit that TMR_STS has taken account of.
    uint64_t half_turns_seen = 0;
  };
  struct Action {
    bool sci_changed = false;
    bool power_off = false;
  };

  [[nodiscard]] uint64_t ticks() const {
    return Clock::scale(clock_.now_ns(), kFrequencyHz, Clock::kNanosecondsPerSecond);
  }
  [[nodiscard]] uint64_t half_turns() const { return ticks() >> (width_bits_ - 1); }
  [[nodiscard]] uint8_t read_byte(uint16_t offset) const REQUIRES(mutex_);
  void write_byte(uint16_t offset, uint8_t value, Action& action) REQUIRES(mutex_);
  void note_half_turns() REQUIRES(mutex_);
  void update(Action& action) REQUIRES(mutex_);
  void schedule() REQUIRES(mutex_);
  void perform(const Action& action);
  void on_timer();

  Clock& clock_;
  PowerControl& power_;
  const unsigned width_bits_;
  mutable Mutex mutex_;
  Registers registers_ GUARDED_BY(mutex_);
  LevelOutput sci_;
  std::unique_ptr<Timer> timer_;
};

}  // namespace bulkhead::device::timer
