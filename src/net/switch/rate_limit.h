// A token bucket: so much a second on average, with a burst. Time is passed in; no rate means no limit.
#pragma once

#include <algorithm>
#include <cstdint>

namespace bulkhead::net::switching {

class RateLimit {
 public:
  RateLimit() = default;
  // Units are the caller's: bytes or frames. A burst below one unit would never let anything through.
  RateLimit(uint64_t units_a_second, uint64_t burst)
      : rate_(units_a_second),
        burst_(std::max<uint64_t>(burst, 1)),
        tokens_(static_cast<unsigned __int128>(burst_) * kScale) {}

  // Takes units when they are there.
  [[nodiscard]] bool take(uint64_t units, uint64_t now_ns) {
    if (rate_ == 0) return true;
    refill(now_ns);
    const unsigned __int128 wanted = static_cast<unsigned __int128>(units) * kScale;
    if (wanted > tokens_) return false;
    tokens_ -= wanted;
    return true;
  }

 private:
  static constexpr uint64_t kScale = 1'000'000'000;  // tokens are counted in billionths

  void refill(uint64_t now_ns) {
    if (now_ns <= filled_ns_) return;
    const unsigned __int128 earned = static_cast<unsigned __int128>(now_ns - filled_ns_) * rate_;
    filled_ns_ = now_ns;
    tokens_ = std::min(tokens_ + earned, static_cast<unsigned __int128>(burst_) * kScale);
  }

  uint64_t rate_ = 0;
  uint64_t burst_ = 1;
  unsigned __int128 tokens_ = 0;
  uint64_t filled_ns_ = 0;
};

}  // namespace bulkhead::net::switching
