// The Clock of a machine that lives in real time: the host's TSC where it is invariant, else CLOCK_MONOTONIC, less the
// time the machine stood paused. One thread fires all its timers. It must never run backwards, and never fire a timer
// of a paused machine.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "support/os/mutex.h"
#include "support/os/thread.h"
#include "support/time/clock.h"

namespace bulkhead {

class HostClock final : public Clock {
 public:
  enum class Source {
    kBest,       // the TSC when CPUID calls it invariant and it agrees with the kernel's clock
    kHostTsc,    // the TSC whatever CPUID says of it: for KVM, whose guests see it anyway
    kMonotonic,  // CLOCK_MONOTONIC, scaled to a TSC of kMonotonicTscHz
  };
  static constexpr uint64_t kMonotonicTscHz = kNanosecondsPerSecond;

  // Stands still at 0 until the first resume(). Measuring the TSC takes 10 ms the first time in a process, on a busy
  // host up to 150 ms.
  explicit HostClock(Source source = Source::kBest);
  ~HostClock() override;

  [[nodiscard]] uint64_t now_ns() const override;
  [[nodiscard]] uint64_t tsc() const override;
  [[nodiscard]] uint64_t tsc_hz() const override { return tsc_hz_; }
  [[nodiscard]] uint64_t wall_ns() const override;
  [[nodiscard]] std::optional<uint64_t> host_tsc_offset() const override;
  [[nodiscard]] std::unique_ptr<Timer> make_timer(std::string name, std::function<void()> on_expiry) override;

  [[nodiscard]] bool uses_host_tsc() const { return uses_host_tsc_; }

  // Time stands still between the two. pause() returns when no timer callback is under way any more (called from a
  // callback, it does not wait for that one). Both may be called again without effect.
  void pause();
  void resume();
  // Sets the time of a paused clock, as restoring a saved machine does.
  void set_now_ns(uint64_t now_ns);

 private:
  class HostTimer;
  using Deadlines = std::set<std::pair<uint64_t, HostTimer*>>;
  static constexpr uint64_t kRunning = UINT64_MAX;

  [[nodiscard]] uint64_t counter() const;
  [[nodiscard]] uint64_t ns_from_counter(uint64_t counter) const;
  void timer_thread();
  void run_expired() REQUIRES(mutex_);

  bool uses_host_tsc_;
  uint64_t tsc_hz_;
  uint64_t ns_multiplier_;  // nanoseconds a tick, 62 fraction bits

  // While the machine runs: the host's counter at its time 0. While it is paused, frozen_tsc_ holds its time.
  std::atomic<uint64_t> counter_at_zero_{0};
  std::atomic<uint64_t> frozen_tsc_{0};

  Mutex mutex_;
  ConditionVariable wake_;      // the timer thread: an earlier deadline, resume, stop
  ConditionVariable returned_;  // those who wait for a callback to return
  Deadlines deadlines_ GUARDED_BY(mutex_);
  // Of the timer thread; 0 while it looks for what is due, and while the clock is paused.
  uint64_t slept_for_ns_ GUARDED_BY(mutex_) = 0;
  HostTimer* under_way_ GUARDED_BY(mutex_) = nullptr;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::atomic<std::thread::id> timer_thread_id_{};
  Thread thread_;
};

}  // namespace bulkhead
