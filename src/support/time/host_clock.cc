#include "support/time/host_clock.h"

#include <algorithm>
#include <chrono>
#include <ctime>

#include <cpuid.h>
#include <sys/prctl.h>
#include <x86intrin.h>

#include "support/check.h"
#include "support/time/tsc_rate.h"

namespace bulkhead {
namespace {

uint64_t read_host_clock(clockid_t id) {
  timespec time{};
  clock_gettime(id, &time);
  return static_cast<uint64_t>(time.tv_sec) * Clock::kNanosecondsPerSecond + static_cast<uint64_t>(time.tv_nsec);
}

// LFENCE keeps the read from moving ahead of earlier loads, which would show time running backwards between threads.
uint64_t read_tsc() {
  _mm_lfence();
  return __rdtsc();
}

// CPUID 80000007H:EDX[8]: the counter runs at one rate in every power state.
bool tsc_is_invariant() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) != 0 && (edx & (1u << 8)) != 0;
}

// The TSC and CLOCK_MONOTONIC_RAW at the same moment: of several tries, the one with the least time between its ends.
TscSample sample_both() {
  TscSample best{};
  uint64_t least = UINT64_MAX;
  for (int attempt = 0; attempt < 32; ++attempt) {
    const uint64_t before = read_tsc();
    const uint64_t ns = read_host_clock(CLOCK_MONOTONIC_RAW);
    const uint64_t after = read_tsc();
    if (after - before < least) {
      least = after - before;
      best = {before + (after - before) / 2, ns};
    }
  }
  return best;
}

TscRate measure_tsc() {
  TscRate rate = measure_tsc_rate(sample_both, [](uint64_t ns) {
    const timespec duration{0, static_cast<long>(ns)};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &duration, nullptr);
  });
  rate.steady = rate.steady && tsc_is_invariant();
  return rate;
}

// The host's counter does not change its rate, so one measurement serves every clock of the process.
const TscRate& host_tsc() {
  static const TscRate rate = measure_tsc();
  return rate;
}

}  // namespace

class HostClock::HostTimer final : public Timer {
 public:
  HostTimer(HostClock& clock, std::function<void()> on_expiry)
      : clock_(clock), on_expiry_(std::make_shared<std::function<void()>>(std::move(on_expiry))) {}

  ~HostTimer() override {
    LockGuard guard(clock_.mutex_);
    remove();
    if (clock_.timer_thread_id_.load() == std::this_thread::get_id()) {
      if (clock_.under_way_ == this) clock_.under_way_ = nullptr;
      return;
    }
    while (clock_.under_way_ == this) clock_.returned_.wait(clock_.mutex_);
  }

  void arm(uint64_t deadline_ns) override {
    {
      LockGuard guard(clock_.mutex_);
      remove();
      armed_ = true;
      deadline_ns_ = deadline_ns;
      clock_.deadlines_.emplace(deadline_ns, this);
      // A guest arms its timer several times each time it wakes up. A later deadline than the one slept for needs no
      // wake-up: the thread looks again by itself.
      if (deadline_ns >= clock_.slept_for_ns_) return;
      clock_.slept_for_ns_ = deadline_ns;
    }
    // Without the lock, which the thread would wake up to wait for.
    clock_.wake_.notify_one();
  }

  void disarm() override {
    LockGuard guard(clock_.mutex_);
    remove();
  }

 private:
  friend class HostClock;
  void remove() BULKHEAD_THREAD(no_thread_safety_analysis) {
    if (armed_) clock_.deadlines_.erase({deadline_ns_, this});
    armed_ = false;
  }

  HostClock& clock_;
  // Shared with the timer thread, so that a callback may destroy its own timer.
  std::shared_ptr<std::function<void()>> on_expiry_;
  // Both guarded by the clock's mutex.
  bool armed_ = false;
  uint64_t deadline_ns_ = 0;
};

HostClock::HostClock(Source source)
    : uses_host_tsc_(source == Source::kHostTsc || (source == Source::kBest && host_tsc().steady)),
      tsc_hz_(uses_host_tsc_ ? host_tsc().hz : kMonotonicTscHz),
      ns_multiplier_(static_cast<uint64_t>((static_cast<unsigned __int128>(kNanosecondsPerSecond) << 62) / tsc_hz_)),
      thread_("clock", [this] { timer_thread(); }) {}

HostClock::~HostClock() {
  {
    LockGuard guard(mutex_);
    CHECK(deadlines_.empty(), "a clock dies before its timers");
    stopping_ = true;
    wake_.notify_one();
  }
  thread_.join();
}

uint64_t HostClock::counter() const {
  return uses_host_tsc_ ? read_tsc() : read_host_clock(CLOCK_MONOTONIC);
}

uint64_t HostClock::ns_from_counter(uint64_t counter) const {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(counter) * ns_multiplier_) >> 62);
}

uint64_t HostClock::tsc() const {
  const uint64_t frozen = frozen_tsc_.load(std::memory_order_acquire);
  if (frozen != kRunning) return frozen;
  return counter() - counter_at_zero_.load(std::memory_order_relaxed);
}

uint64_t HostClock::now_ns() const {
  return ns_from_counter(tsc());
}

uint64_t HostClock::wall_ns() const {
  return read_host_clock(CLOCK_REALTIME);
}

std::optional<uint64_t> HostClock::host_tsc_offset() const {
  if (!uses_host_tsc_ || frozen_tsc_.load(std::memory_order_acquire) != kRunning) return std::nullopt;
  return uint64_t{0} - counter_at_zero_.load(std::memory_order_relaxed);
}

std::unique_ptr<Timer> HostClock::make_timer(std::string, std::function<void()> on_expiry) {
  return std::make_unique<HostTimer>(*this, std::move(on_expiry));
}

void HostClock::pause() {
  LockGuard guard(mutex_);
  if (frozen_tsc_.load() == kRunning) {
    frozen_tsc_.store(counter() - counter_at_zero_.load(), std::memory_order_release);
  }
  if (timer_thread_id_.load() == std::this_thread::get_id()) return;
  while (under_way_ != nullptr) returned_.wait(mutex_);
}

void HostClock::resume() {
  LockGuard guard(mutex_);
  const uint64_t frozen = frozen_tsc_.load();
  if (frozen == kRunning) return;
  counter_at_zero_.store(counter() - frozen);
  frozen_tsc_.store(kRunning, std::memory_order_release);
  wake_.notify_one();
}

void HostClock::set_now_ns(uint64_t now_ns) {
  LockGuard guard(mutex_);
  CHECK(frozen_tsc_.load() != kRunning, "the time of a running clock is set");
  frozen_tsc_.store(std::min(tsc_from_ns(now_ns), kRunning - 1), std::memory_order_release);
}

void HostClock::run_expired() {
  while (!stopping_ && !deadlines_.empty() && frozen_tsc_.load() == kRunning) {
    const auto [deadline_ns, timer] = *deadlines_.begin();
    if (deadline_ns > now_ns()) return;
    timer->remove();
    under_way_ = timer;
    auto on_expiry = timer->on_expiry_;
    mutex_.unlock();
    (*on_expiry)();
    mutex_.lock();
    under_way_ = nullptr;
    returned_.notify_all();
  }
}

void HostClock::timer_thread() {
  timer_thread_id_.store(std::this_thread::get_id());
  // The default slack lets the kernel delay every wake-up by 50 us.
  prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul);
  constexpr uint64_t kLongestSleepNs = 3600 * kNanosecondsPerSecond;
  LockGuard guard(mutex_);
  while (!stopping_) {
    run_expired();
    if (stopping_) return;
    if (frozen_tsc_.load() != kRunning) {
      wake_.wait(mutex_);
      continue;
    }
    const uint64_t now = now_ns();
    const uint64_t next = deadlines_.empty() ? UINT64_MAX : deadlines_.begin()->first;
    if (next <= now) continue;
    slept_for_ns_ = next;
    if (next == UINT64_MAX) {
      wake_.wait(mutex_);
    } else {
      wake_.wait_for(mutex_, std::chrono::nanoseconds(std::min(next - now, kLongestSleepNs)));
    }
    slept_for_ns_ = 0;
  }
}

}  // namespace bulkhead
