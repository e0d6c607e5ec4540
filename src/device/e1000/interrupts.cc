// Causes, the pin and its throttle (software developer's manual, 13.4.17 to 13.4.22); statistics (13.7).
#include <algorithm>
#include <bit>
#include <utility>

#include "device/e1000/card.h"

namespace bulkhead::device::e1000 {

using namespace spec::e1000;

// With MSI-X the 82574L sums them up by what its vectors are for.
void Card::raise(uint32_t causes) {
  registers_.causes |= causes & (is_82574() ? kCausesWithQueues : kCauses);
  if (is_82574() && msix_enabled()) {
    constexpr uint32_t kReceive = kCauseReceived | kCauseReceiveThreshold;
    constexpr uint32_t kTransmit = kCauseTransmitted | kCauseTransmitEmpty;
    if ((causes & kReceive) != 0) registers_.causes |= kCauseReceiveQueue;
    if ((causes & kTransmit) != 0) registers_.causes |= kCauseTransmitQueue;
    if ((causes & kCauses & ~kReceive & ~kTransmit) != 0) registers_.causes |= kCauseOther;
  }
  update_interrupts();
}

void Card::update_interrupts() {
  if (is_82574() && msix_enabled()) {
    update_vectors();
  } else {
    update_pin();
  }
}

// A pin that is to rise waits until the throttle's interval since it rose last has passed. With MSI its rising is the
// message.
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
  if (is_82574()) messages_due_ |= 1;
}

// Each cause has a vector (IVAR), which tells it once and may clear it then (EIAC); the next waits for its throttle.
void Card::update_vectors() {
  struct Line {
    uint32_t cause;
    unsigned shift;
  };
  constexpr Line kLines[] = {{kCauseReceiveQueue, 0}, {kCauseTransmitQueue, 8}, {kCauseOther, 16}};
  const uint64_t now = clock_.now_ns();
  uint64_t next = UINT64_MAX;
  causes_told_ &= registers_.causes & registers_.mask;
  for (const Line& line : kLines) {
    const uint32_t allocated = registers_.vectors >> line.shift & 0xF, vector = allocated & 7;
    const bool is_wanted = (registers_.causes & registers_.mask & ~causes_told_ & line.cause) != 0;
    if (!is_wanted || (allocated & kVectorValid) == 0 || vector >= kVectorCount) continue;
    const uint64_t interval = registers_.vector_throttles[vector] * kThrottleUnit_ns;
    auto& last = last_message_ns_[vector];
    if (last && now - *last < interval) {
      next = std::min(next, *last + interval);
      continue;
    }
    last = now;
    messages_due_ |= 1u << vector;
    if ((registers_.auto_clear & line.cause) != 0) {
      registers_.causes &= ~line.cause;
    } else {
      causes_told_ |= line.cause;
    }
  }
  if (next == UINT64_MAX) {
    throttle_timer_->disarm();
  } else {
    throttle_timer_->arm(next);
  }
}

// Reading takes them; the 82574L keeps them while it does not interrupt for them, and may mask them by itself (IAM).
uint32_t Card::take_causes() {
  uint32_t causes = registers_.causes;
  if (is_82574()) {
    const bool asserted = (causes & registers_.mask) != 0;
    if (!asserted && registers_.mask != 0) return causes;
    if (asserted) causes |= kCauseAsserted;
    if ((registers_.control_extended & kControlExtendedAutoMask) != 0) registers_.mask &= ~registers_.auto_mask;
  }
  registers_.causes = 0;
  update_interrupts();
  return causes;
}

void Card::settle_interrupts() {
  settle_interrupt_pin();
  if (!is_82574()) return;
  uint32_t due = 0;
  {
    const LockGuard lock(mutex_);
    due = std::exchange(messages_due_, 0);
  }
  if (due == 0) return;
  if (!msix_enabled()) return notify_msi(0);
  for (unsigned vector = 0; vector < kVectorCount; ++vector) {
    if ((due >> vector & 1) != 0) msix()->notify(vector);
  }
}

void Card::on_timer() {
  {
    const LockGuard lock(mutex_);
    update_interrupts();
  }
  settle_interrupts();
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
