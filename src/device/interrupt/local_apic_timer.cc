// The local APIC's timer: one-shot and periodic down-counter, and the TSC deadline (Intel SDM 3, 11.5.4).
#include <algorithm>

#include "device/interrupt/local_apic.h"
#include "device/interrupt/local_apic_registers.h"

namespace bulkhead::device::interrupt {
namespace {

static_assert(LocalApic::kTimerHz == Clock::kNanosecondsPerSecond, "counts are nanoseconds");

// A guest may ask for a period of nanoseconds; the host's timer is not armed more often than this for it.
constexpr uint64_t kLeastPeriodNs = 20'000;

}  // namespace

LocalApic::TimerMode LocalApic::timer_mode() const {
  switch (registers_.local_vectors[kTimer] >> kLvtTimerModeShift & 3) {
    case 0:
      return TimerMode::kOneShot;
    case 1:
      return TimerMode::kPeriodic;
    default:
      return TimerMode::kTscDeadline;
  }
}

// Bits 3, 1 and 0 are the power of two less one; all set means a divisor of 1.
uint32_t LocalApic::timer_divisor() const {
  const uint32_t code = (registers_.timer_divide >> 1 & 4) | (registers_.timer_divide & 3);
  return 1u << ((code + 1) & 7);
}

// The count is what is left until the deadline; a periodic one begins again while its expiry is still under way.
uint32_t LocalApic::timer_current_count() const {
  if (timer_mode() == TimerMode::kTscDeadline || registers_.timer_deadline_ns == kNoDeadline) return 0;
  const uint64_t now_ns = clock_.now_ns();
  const uint64_t deadline_ns = registers_.timer_deadline_ns;
  const uint64_t initial = registers_.timer_initial_count;
  if (now_ns >= deadline_ns) {
    if (timer_mode() == TimerMode::kOneShot) return 0;
    return static_cast<uint32_t>(initial - (now_ns - deadline_ns) / timer_divisor() % initial);
  }
  const uint64_t left = (deadline_ns - now_ns - 1) / timer_divisor();
  return static_cast<uint32_t>(left % initial + 1);
}

void LocalApic::stop_timer() {
  if (registers_.timer_deadline_ns == kNoDeadline) return;
  registers_.timer_deadline_ns = kNoDeadline;
  timer_->disarm();
}

void LocalApic::start_timer(uint32_t count) {
  if (timer_mode() == TimerMode::kTscDeadline) return;
  registers_.timer_initial_count = count;
  if (count == 0) {
    stop_timer();
    return;
  }
  registers_.timer_deadline_ns = clock_.now_ns();
  if (timer_mode() == TimerMode::kPeriodic) {
    schedule_next_period();
  } else {
    registers_.timer_deadline_ns += uint64_t{count} * timer_divisor();
    timer_->arm(registers_.timer_deadline_ns);
  }
}

// The count goes on from where it stands, at the new rate.
void LocalApic::change_timer_divide(uint8_t value) {
  const uint32_t remaining = timer_current_count();
  registers_.timer_divide = value;
  if (registers_.timer_deadline_ns == kNoDeadline || timer_mode() == TimerMode::kTscDeadline) return;
  registers_.timer_deadline_ns = clock_.now_ns() + uint64_t{remaining} * timer_divisor();
  timer_->arm(registers_.timer_deadline_ns);
}

// Entering or leaving deadline mode stops the timer; between the counting modes it runs on.
void LocalApic::change_timer_mode(uint32_t old_local_vector) {
  const bool was_deadline = (old_local_vector >> kLvtTimerModeShift & 2) != 0;
  if (was_deadline == (timer_mode() == TimerMode::kTscDeadline)) return;
  stop_timer();
  registers_.timer_initial_count = 0;
  registers_.tsc_deadline = 0;
}

// The next end of a period, counted from the last deadline, that lies far enough ahead: ends that were missed fall
// together into one interrupt.
void LocalApic::schedule_next_period() {
  const uint64_t period_ns = uint64_t{registers_.timer_initial_count} * timer_divisor();
  const uint64_t earliest_ns = clock_.now_ns() + (period_ns < kLeastPeriodNs ? kLeastPeriodNs : 1);
  const uint64_t behind_ns = earliest_ns - registers_.timer_deadline_ns;
  registers_.timer_deadline_ns += (behind_ns + period_ns - 1) / period_ns * period_ns;
  timer_->arm(registers_.timer_deadline_ns);
}

void LocalApic::write_tsc_deadline(uint64_t value, Action& action) {
  if (!is_enabled_locked() || timer_mode() != TimerMode::kTscDeadline) return;
  registers_.tsc_deadline = value;
  arm_tsc_deadline(action);
}

void LocalApic::arm_tsc_deadline(Action& action) {
  if (registers_.tsc_deadline == 0) {
    stop_timer();
    return;
  }
  const uint64_t host_tsc = clock_.tsc();
  const uint64_t guest_tsc = host_tsc + tsc_offset_;
  if (registers_.tsc_deadline <= guest_tsc) {
    stop_timer();
    registers_.tsc_deadline = 0;
    fire_local_vector(kTimer, action);
    return;
  }
  const std::optional<uint64_t> host_deadline = checked_add(host_tsc, registers_.tsc_deadline - guest_tsc);
  // A deadline beyond the end of time is never reached; the least below "none" stands for it.
  registers_.timer_deadline_ns = std::min(clock_.ns_from_tsc(host_deadline.value_or(UINT64_MAX)), kNoDeadline - 1);
  timer_->arm(registers_.timer_deadline_ns);
}

void LocalApic::set_tsc_offset(uint64_t offset) {
  Action action;
  {
    LockGuard lock(mutex_);
    if (tsc_offset_ == offset) return;
    tsc_offset_ = offset;
    if (timer_mode() == TimerMode::kTscDeadline) arm_tsc_deadline(action);
  }
  perform(action);
}

void LocalApic::on_timer() {
  Action action;
  {
    LockGuard lock(mutex_);
    if (registers_.timer_deadline_ns == kNoDeadline) return;
    if (clock_.now_ns() < registers_.timer_deadline_ns) {
      timer_->arm(registers_.timer_deadline_ns);
      return;
    }
    switch (timer_mode()) {
      case TimerMode::kTscDeadline:
        registers_.timer_deadline_ns = kNoDeadline;
        arm_tsc_deadline(action);
        break;
      case TimerMode::kPeriodic:
        fire_local_vector(kTimer, action);
        schedule_next_period();
        break;
      case TimerMode::kOneShot:
        registers_.timer_deadline_ns = kNoDeadline;
        fire_local_vector(kTimer, action);
        break;
    }
  }
  perform(action);
}

}  // namespace bulkhead::device::interrupt
