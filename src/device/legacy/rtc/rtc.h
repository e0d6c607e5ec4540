// The real-time clock and its 128 bytes of CMOS memory (Motorola MC146818A data sheet; century in byte 0x32 as the FADT
// says). Time is the Clock's wall time plus what the guest has set; interrupts are computed when looked at, and the
// host's timer runs only while one is enabled and has not come yet.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "device/byte_ports.h"
#include "device/device.h"
#include "device/legacy/rtc/rtc_calendar.h"
#include "device/level_output.h"
#include "device/wires.h"
#include "support/os/mutex.h"
#include "support/time/clock.h"

namespace bulkhead::device::legacy {

class Rtc final : public Device, public BytePorts, public IrqLine::Receiver {
 public:
  static constexpr uint16_t kPort = 0x70, kRangeSize = 2;
  static constexpr size_t kMemorySize = 128;
  static constexpr uint8_t kCenturyIndex = 0x32;

  Rtc(Clock& clock, IrqLine irq);

  [[nodiscard]] std::string_view name() const override { return "rtc"; }
  // The reset line: interrupts off. Memory and time are on the battery.
  void reset() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

  // What firmware would have left in the memory (sizes, equipment); index is 0x0E to 0x7F without the century.
  void set_memory(uint8_t index, uint8_t value);

  // Input 0, from the HPET: while asserted (legacy replacement), the interrupt output is cut off.
  void set_irq(uint32_t input, bool asserted) override;

 private:
  // A value of the clock registers, or 0xC0 and above in an alarm: any.
  struct Alarm {
    std::optional<uint32_t> hour, minute, second;
    bool possible = true;
    [[nodiscard]] std::optional<int64_t> next_after(int64_t second) const;
  };

  [[nodiscard]] uint8_t read_byte(uint16_t offset) override;
  void write_byte(uint16_t offset, uint8_t value) override;
  [[nodiscard]] uint8_t read_memory(uint8_t index) REQUIRES(mutex_);
  void write_memory(uint8_t index, uint8_t value) REQUIRES(mutex_);

  // The guest's time: seconds since 1970, and the nanoseconds into the second.
  [[nodiscard]] int64_t second_now() const REQUIRES(mutex_);
  [[nodiscard]] uint64_t nanosecond_now() const REQUIRES(mutex_);
  void set_time(int64_t second, uint64_t nanosecond) REQUIRES(mutex_);
  [[nodiscard]] bool is_stopped() const REQUIRES(mutex_);
  [[nodiscard]] bool is_divider_reset() const REQUIRES(mutex_);
  // Between the clock registers' encoding (binary or decimal, 12 or 24 hours) and numbers.
  [[nodiscard]] uint8_t encode(uint32_t value) const REQUIRES(mutex_);
  [[nodiscard]] uint32_t decode(uint8_t value) const REQUIRES(mutex_);
  [[nodiscard]] uint8_t encode_hour(uint32_t hour) const REQUIRES(mutex_);
  [[nodiscard]] uint32_t decode_hour(uint8_t value) const REQUIRES(mutex_);
  void show_time(int64_t second) REQUIRES(mutex_);
  [[nodiscard]] int64_t shown_time() const REQUIRES(mutex_);
  [[nodiscard]] Alarm alarm() const REQUIRES(mutex_);

  [[nodiscard]] std::optional<unsigned> period_shift() const REQUIRES(mutex_);
  // Periods since power-on at the present rate.
  [[nodiscard]] uint64_t period_count() const REQUIRES(mutex_);
  // Sets the flags of what has happened since the last look.
  void collect() REQUIRES(mutex_);
  // True when the interrupt output changed.
  [[nodiscard]] bool update() REQUIRES(mutex_);
  void schedule() REQUIRES(mutex_);
  void on_timer();

  Clock& clock_;
  mutable Mutex mutex_;
  uint8_t index_ GUARDED_BY(mutex_) = 0;
  // Clock registers hold what they last showed; they are brought up to date when read while the clock runs.
  std::array<uint8_t, kMemorySize> memory_ GUARDED_BY(mutex_){};
  // Guest time = (wall_ns + phase_ns_) / 10^9 + offset_s_.
  int64_t offset_s_ GUARDED_BY(mutex_) = 0;
  uint64_t phase_ns_ GUARDED_BY(mutex_) = 0;
  int64_t seen_second_ GUARDED_BY(mutex_) = 0;   // up to which updates and alarms are in register C
  uint64_t seen_period_ GUARDED_BY(mutex_) = 0;  // up to which periods are
  bool cut_off_ GUARDED_BY(mutex_) = false;
  LevelOutput irq_;
  std::unique_ptr<Timer> timer_;
};

}  // namespace bulkhead::device::legacy
