// Asking again and again for a short while before a thread goes to sleep. Waking a sleeping thread takes longer than
// many a wait of a virtual machine lasts (its disk's answer out of the page cache, the guest's next request). How long
// is asked follows what came of it: while waits are long, as of an idle guest, nothing is spent on it.
#pragma once

#include <algorithm>
#include <chrono>

namespace bulkhead {

// Of one thread.
class BusyPoll {
 public:
  using Duration = std::chrono::nanoseconds;
  // Longer than a hand-over between two threads that run takes, and shorter than a scheduler's slice.
  static constexpr Duration kLongest = std::chrono::microseconds(50);
  static constexpr Duration kFirst = std::chrono::microseconds(10);

  // Longest: nothing is asked for longer than that; zero turns it off.
  explicit BusyPoll(Duration longest = kLongest) : longest_(longest) {}

  // Asks is_over() for at most window(), and calls sleep() when that has not become true; sleep() returns at the end of
  // the wait. Clock: now() of a monotonic clock.
  template <class Clock = std::chrono::steady_clock, class IsOver, class Sleep>
  void wait(IsOver is_over, Sleep sleep) {
    if (longest_ == Duration::zero()) return sleep();
    const auto begin = Clock::now();
    while (Clock::now() - begin < window_) {
      if (is_over()) return;
      relax();
    }
    sleep();
    learn(Clock::now() - begin);
  }

  [[nodiscard]] Duration window() const { return window_; }

 private:
  // After a wait that was slept through.
  void learn(Duration waited) {
    if (waited > longest_) {
      window_ = window_ / 2 < kFirst ? Duration::zero() : window_ / 2;
    } else {
      window_ = std::min(longest_, std::max(2 * window_, kFirst));
    }
  }
  // Leaves the core to its other half for a moment.
  static void relax() {
    for (int i = 0; i < 16; ++i) __builtin_ia32_pause();
  }

  const Duration longest_;
  Duration window_{0};
};

}  // namespace bulkhead
