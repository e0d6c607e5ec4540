// Time comes in through this door. One Clock belongs to one machine: its TSC, APIC timers, PIT, HPET, RTC and PM timer
// are all functions of it, so they never disagree, and a clock driven by an instruction count makes a run repeatable.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace bulkhead {

// One-shot. The callback runs with no lock of the clock held, on a thread of the clock's choosing, possibly once more
// after disarm() has returned: take your own lock and look again. Destruction waits for a callback under way (unless
// it is called from that callback). arm() and disarm() never run the callback themselves, so they may be called with
// the lock held that the callback takes; destruction may not.
class Timer {
 public:
  virtual ~Timer() = default;
  // deadline_ns in the terms of Clock::now_ns(); one in the past fires as soon as possible. Replaces an earlier
  // deadline.
  virtual void arm(uint64_t deadline_ns) = 0;
  virtual void disarm() = 0;
};

class Clock {
 public:
  static constexpr uint64_t kNanosecondsPerSecond = 1'000'000'000;

  virtual ~Clock() = default;
  // Nanoseconds of the machine's life: 0 at power-on, monotonic, stands still while the machine is paused.
  [[nodiscard]] virtual uint64_t now_ns() const = 0;
  // The time stamp counter before any guest offset: now_ns() x tsc_hz() / 10^9, but at its full resolution.
  [[nodiscard]] virtual uint64_t tsc() const = 0;
  [[nodiscard]] virtual uint64_t tsc_hz() const = 0;
  // What added to the host's TSC register gives tsc(), when this clock runs on it now. A processor that shows its guest
  // the host's TSC plus an offset (KVM) then agrees with this clock to the tick.
  [[nodiscard]] virtual std::optional<uint64_t> host_tsc_offset() const { return std::nullopt; }
  // Nanoseconds since 1970-01-01 UTC; only the RTC and kvm-clock's wall clock ask.
  [[nodiscard]] virtual uint64_t wall_ns() const = 0;
  [[nodiscard]] virtual std::unique_ptr<Timer> make_timer(std::string name, std::function<void()> on_expiry) = 0;

  // Saturating conversions between the TSC and nanoseconds.
  [[nodiscard]] uint64_t tsc_from_ns(uint64_t ns) const { return scale(ns, tsc_hz(), kNanosecondsPerSecond); }
  // Rounded up, so that a timer armed for the result does not fire before the TSC value.
  [[nodiscard]] uint64_t ns_from_tsc(uint64_t tsc_value) const {
    const uint64_t ns = scale(tsc_value, kNanosecondsPerSecond, tsc_hz());
    return ns == UINT64_MAX ? ns : ns + 1;
  }

  // value x numerator / denominator in 128 bits, UINT64_MAX when it does not fit.
  [[nodiscard]] static uint64_t scale(uint64_t value, uint64_t numerator, uint64_t denominator) {
    const unsigned __int128 scaled = static_cast<unsigned __int128>(value) * numerator / denominator;
    return scaled > UINT64_MAX ? UINT64_MAX : static_cast<uint64_t>(scaled);
  }
};

}  // namespace bulkhead
