// How fast a card may be: a limit for what it sends and one of the same size for what it receives. A frame that is too
// early waits where it is, in the card's ring or in front of it in the port's bounded queue, and none is lost here.
#pragma once

#include <memory>

#include "net/link/bell.h"
#include "net/port.h"
#include "support/os/mutex.h"
#include "support/time/clock.h"
#include "support/time/token_bucket.h"

namespace bulkhead::net::link {

struct RateConfig {
  uint64_t bytes_a_second = 0;  // of frames, in each direction; 0: no limit
  uint64_t burst_bytes = 0;     // what may pass at once after a rest; 0: a tenth of a second's worth
  friend bool operator==(const RateConfig&, const RateConfig&) = default;
};

class RateLimited final : public Port {
 public:
  // below and the clock outlive it.
  RateLimited(Port& below, const RateConfig& config, Clock& clock);
  ~RateLimited() override;

  using Port::send;
  Sent send(ByteSpan frame, const frame::Offload& offload) override;
  size_t receive(MutableByteSpan out, frame::Offload& offload) override;
  [[nodiscard]] bool link_up() const override { return below_.link_up(); }
  void set_listener(std::function<void()> on_ready) override { bell_.set_listener(std::move(on_ready)); }

 private:
  // Whether a frame may pass; if not, the listener is rung when one may.
  [[nodiscard]] bool may_pass(const TokenBucket& bucket) REQUIRES(mutex_);

  Port& below_;
  Clock& clock_;
  Bell bell_;
  Mutex mutex_;
  TokenBucket sent_ GUARDED_BY(mutex_), received_ GUARDED_BY(mutex_);
  uint64_t alarm_ns_ GUARDED_BY(mutex_) = UINT64_MAX;  // when the timer rings
  // Last: its callback ends before the rest is gone.
  std::unique_ptr<Timer> timer_;
};

}  // namespace bulkhead::net::link
