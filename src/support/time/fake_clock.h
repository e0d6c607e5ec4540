// A clock that moves only when told to, for tests. Timers fire inside advance_to(), in the order of their deadlines.
#pragma once

#include <algorithm>
#include <vector>

#include "support/time/clock.h"

namespace bulkhead {

class FakeClock final : public Clock {
 public:
  explicit FakeClock(uint64_t tsc_hz = 1'000'000'000) : tsc_hz_(tsc_hz) {}

  [[nodiscard]] uint64_t now_ns() const override { return now_ns_; }
  [[nodiscard]] uint64_t tsc() const override { return tsc_from_ns(now_ns_); }
  [[nodiscard]] uint64_t tsc_hz() const override { return tsc_hz_; }
  [[nodiscard]] uint64_t wall_ns() const override { return wall_at_start_ns_ + now_ns_; }
  void set_wall_at_start(uint64_t ns) { wall_at_start_ns_ = ns; }

  [[nodiscard]] std::unique_ptr<Timer> make_timer(std::string, std::function<void()> on_expiry) override {
    return std::make_unique<FakeTimer>(*this, std::move(on_expiry));
  }

  void advance(uint64_t ns) { advance_to(now_ns_ + ns); }
  void advance_to(uint64_t target_ns) {
    while (true) {
      FakeTimer* next = nullptr;
      for (FakeTimer* timer : timers_) {
        if (timer->armed_ && timer->deadline_ns_ <= target_ns && (!next || timer->deadline_ns_ < next->deadline_ns_)) {
          next = timer;
        }
      }
      if (next == nullptr) break;
      now_ns_ = std::max(now_ns_, next->deadline_ns_);
      next->armed_ = false;
      next->on_expiry_();
    }
    now_ns_ = std::max(now_ns_, target_ns);
  }
  [[nodiscard]] size_t armed_count() const {
    return static_cast<size_t>(
        std::count_if(timers_.begin(), timers_.end(), [](auto* timer) { return timer->armed_; }));
  }

 private:
  struct FakeTimer final : Timer {
    FakeTimer(FakeClock& clock, std::function<void()> on_expiry) : clock_(clock), on_expiry_(std::move(on_expiry)) {
      clock_.timers_.push_back(this);
    }
    ~FakeTimer() override { std::erase(clock_.timers_, this); }
    void arm(uint64_t deadline_ns) override {
      armed_ = true;
      deadline_ns_ = deadline_ns;
    }
    void disarm() override { armed_ = false; }

    FakeClock& clock_;
    std::function<void()> on_expiry_;
    bool armed_ = false;
    uint64_t deadline_ns_ = 0;
  };

  uint64_t tsc_hz_;
  uint64_t now_ns_ = 0;
  uint64_t wall_at_start_ns_ = 1'700'000'000ull * kNanosecondsPerSecond;
  std::vector<FakeTimer*> timers_;
};

}  // namespace bulkhead
