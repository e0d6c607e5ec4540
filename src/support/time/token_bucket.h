// How much may pass in a second, and how much more at once after a rest. It knows no clock: callers say what time it
// is.
#pragma once

#include <algorithm>
#include <cstdint>

#include "support/time/clock.h"

namespace bulkhead {

// Kept as the time at which the bucket is full again, so that nothing has to be refilled:
//
//   ready: full_at + cost <= now + burst          taken: full_at = max(full_at, now) + cost
//
// with cost and burst in nanoseconds of the rate. What costs more than the burst passes when the bucket is full.
class TokenBucket {
 public:
  // rate 0: no limit. burst: what may come at once, at least 1.
  TokenBucket(uint64_t rate, uint64_t burst) : rate_(rate), burst_ns_(cost_ns(std::max<uint64_t>(burst, 1))) {}

  // The first time, from now on, at which the amount may pass.
  [[nodiscard]] uint64_t ready_at_ns(uint64_t now_ns, uint64_t amount) const {
    const uint64_t cost = std::min(cost_ns(amount), burst_ns_);
    return std::max(now_ns, full_at_ns_ + cost - std::min(full_at_ns_ + cost, burst_ns_));
  }
  void take(uint64_t now_ns, uint64_t amount) { full_at_ns_ = std::max(full_at_ns_, now_ns) + cost_ns(amount); }

 private:
  // Bounded, so that sums of two do not overflow.
  static constexpr uint64_t kLongest_ns = UINT64_MAX / 8;
  [[nodiscard]] uint64_t cost_ns(uint64_t amount) const {
    return rate_ == 0 ? 0 : std::min(kLongest_ns, Clock::scale(amount, Clock::kNanosecondsPerSecond, rate_));
  }

  uint64_t rate_, burst_ns_;
  uint64_t full_at_ns_ = 0;
};

}  // namespace bulkhead
