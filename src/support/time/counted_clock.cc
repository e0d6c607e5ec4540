#include "support/time/counted_clock.h"

#include <algorithm>

#include "support/check.h"

namespace bulkhead {

class CountedClock::CountedTimer final : public Timer {
 public:
  CountedTimer(CountedClock& clock, std::function<void()> on_expiry)
      : clock_(clock), on_expiry_(std::make_shared<std::function<void()>>(std::move(on_expiry))) {}
  ~CountedTimer() override { disarm(); }

  void arm(uint64_t deadline_ns) override {
    disarm();
    key_ = Key{deadline_ns, ++clock_.armings_};
    clock_.armed_.emplace(*key_, this);
    if (clock_.counter_ == nullptr) return;
    const uint64_t wait_ns = deadline_ns > clock_.base_ns_ ? deadline_ns - clock_.base_ns_ : 0;
    const uint64_t count = clock_.count_at_begin_ + wait_ns;
    clock_.counter_->bring_forward(count < wait_ns ? UINT64_MAX : count);
  }
  void disarm() override {
    if (key_) clock_.armed_.erase(*key_);
    key_.reset();
  }

 private:
  friend class CountedClock;
  CountedClock& clock_;
  // Shared with fire_due(), so that a callback may destroy its own timer.
  std::shared_ptr<std::function<void()>> on_expiry_;
  std::optional<Key> key_;
};

CountedClock::~CountedClock() {
  CHECK(armed_.empty(), "a clock dies before its timers");
}

uint64_t CountedClock::now_ns() const {
  return counter_ == nullptr ? base_ns_ : base_ns_ + (counter_->instruction_count() - count_at_begin_);
}

std::unique_ptr<Timer> CountedClock::make_timer(std::string, std::function<void()> on_expiry) {
  return std::make_unique<CountedTimer>(*this, std::move(on_expiry));
}

void CountedClock::begin_turn(Counter& counter) {
  CHECK(counter_ == nullptr, "one turn at a time");
  count_at_begin_ = counter.instruction_count();
  counter_ = &counter;
}

uint64_t CountedClock::end_turn() {
  CHECK(counter_ != nullptr, "a turn has begun");
  const uint64_t retired = counter_->instruction_count() - count_at_begin_;
  counter_ = nullptr;
  base_ns_ += retired;
  return retired;
}

std::optional<uint64_t> CountedClock::next_deadline_ns() const {
  if (armed_.empty()) return std::nullopt;
  return armed_.begin()->first.first;
}

bool CountedClock::fire_due() {
  for (unsigned i = 0; i < kMaximumCallbacks; ++i) {
    if (armed_.empty() || armed_.begin()->first.first > base_ns_) return i != 0;
    CountedTimer* timer = armed_.begin()->second;
    timer->disarm();
    const auto callback = timer->on_expiry_;
    (*callback)();
  }
  return true;
}

void CountedClock::skip_to(uint64_t now_ns) {
  base_ns_ = std::max(base_ns_, now_ns);
}

}  // namespace bulkhead
