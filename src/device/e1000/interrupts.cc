// Causes, the pin and its throttle (software developer's manual, 13.4.17 to 13.4.22); statistics (13.7).
#include <algorithm>
#include <bit>

#include "device/e1000/card.h"

namespace bulkhead::device::e1000 {

using namespace spec::e1000;

void Card::raise(uint32_t causes) {
  registers_.causes |= causes & kCauses;
  update_pin();
}

// A pin that is to rise waits until the throttle's interval since it rose last has passed.
void Card::update_pin() {
  const bool wanted = (registers_.causes & registers_.mask) != 0;
  if (!wanted) {
    pin_up_ = false;
    want_interrupt_pin_level(false);
    throttle_timer_->disarm();
    return;
  }
  if (pin_up_) return;
  const uint64_t now = clock_.now_ns();
  const uint64_t interval = registers_.throttle * kThrottleUnit_ns;
  if (last_interrupt_ns_ && now - *last_interrupt_ns_ < interval) {
    throttle_timer_->arm(*last_interrupt_ns_ + interval);
    return;
  }
  last_interrupt_ns_ = now;
  pin_up_ = true;
  want_interrupt_pin_level(true);
}

void Card::on_timer() {
  {
    const LockGuard lock(mutex_);
    update_pin();
  }
  settle_interrupt_pin();
}

// They stay at their largest value.
void Card::count(uint8_t statistic, uint64_t more) {
  uint32_t& value = registers_.statistics[statistic];
  value = static_cast<uint32_t>(std::min<uint64_t>(value + more, UINT32_MAX));
}

void Card::count_octets(uint8_t statistic, uint64_t more) {
  uint32_t& low = registers_.statistics[statistic];
  uint32_t& high = registers_.statistics[statistic + 1u];
  const uint64_t value = checked_add(uint64_t{high} << 32 | low, more).value_or(UINT64_MAX);
  low = static_cast<uint32_t>(value);
  high = static_cast<uint32_t>(value >> 32);
}

uint8_t Card::size_class(uint64_t wire_size) {
  if (wire_size <= 64) return 0;
  return static_cast<uint8_t>(std::min<size_t>(std::bit_width(wire_size), 11) - 6);
}

}  // namespace bulkhead::device::e1000
