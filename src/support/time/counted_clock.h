// The Clock of a repeatable run: its time is the number of instructions that the machine has retired, one nanosecond
// each, plus what it skipped while no vCPU had anything to do. Nothing of the host's time comes in. One thread drives
// it: timers fire only in fire_due(), in the order of their deadlines and, of equal ones, in the order of arming.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "support/time/clock.h"

namespace bulkhead {

class CountedClock final : public Clock {
 public:
  static constexpr uint64_t kTscHz = kNanosecondsPerSecond;
  // 2026-01-01 00:00:00 UTC, when every repeatable run begins.
  static constexpr uint64_t kWallAtStartNs = 1'767'225'600ull * kNanosecondsPerSecond;

  // Who retires instructions at the moment.
  class Counter {
   public:
    virtual ~Counter() = default;
    [[nodiscard]] virtual uint64_t instruction_count() const = 0;
    // A timer was armed for this count, earlier than what limited the turn so far.
    virtual void bring_forward(uint64_t count) = 0;
  };

  CountedClock() = default;
  ~CountedClock() override;

  [[nodiscard]] uint64_t now_ns() const override;
  [[nodiscard]] uint64_t tsc() const override { return now_ns(); }
  [[nodiscard]] uint64_t tsc_hz() const override { return kTscHz; }
  [[nodiscard]] uint64_t wall_ns() const override { return kWallAtStartNs + now_ns(); }
  [[nodiscard]] std::unique_ptr<Timer> make_timer(std::string name, std::function<void()> on_expiry) override;

  // Between the two, time moves with the counter, which outlives the turn. end_turn() returns the instructions retired.
  void begin_turn(Counter& counter);
  uint64_t end_turn();

  // The following outside of turns only. The earliest deadline, perhaps in the past; none when no timer is armed.
  [[nodiscard]] std::optional<uint64_t> next_deadline_ns() const;
  // Calls those whose deadline has come, and those that they arm for now or earlier, at most kMaximumCallbacks; true
  // when there was one.
  bool fire_due();
  void skip_to(uint64_t now_ns);
  // As restoring a saved machine does.
  void set_now_ns(uint64_t now_ns) { base_ns_ = now_ns; }

  static constexpr unsigned kMaximumCallbacks = 1000;

 private:
  class CountedTimer;
  using Key = std::pair<uint64_t, uint64_t>;  // deadline, number of the arming

  uint64_t base_ns_ = 0;  // the time outside of turns, or when the turn began
  Counter* counter_ = nullptr;
  uint64_t count_at_begin_ = 0;
  uint64_t armings_ = 0;
  std::map<Key, CountedTimer*> armed_;
};

}  // namespace bulkhead
