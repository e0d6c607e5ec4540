#include "net/link/rate_limited.h"

#include <algorithm>

#include "net/frame/protocol.h"

namespace bulkhead::net::link {
namespace {

TokenBucket bucket_of(const RateConfig& config) {
  const uint64_t burst = config.burst_bytes != 0 ? config.burst_bytes : config.bytes_a_second / 10;
  return {config.bytes_a_second, std::max<uint64_t>(burst, frame::kEthernetHeaderSize)};
}

}  // namespace

RateLimited::RateLimited(Port& below, const RateConfig& config, Clock& clock)
    : below_(below),
      clock_(clock),
      sent_(bucket_of(config)),
      received_(bucket_of(config)),
      timer_(clock.make_timer("card's rate", [this] {
        {
          const LockGuard lock(mutex_);
          alarm_ns_ = UINT64_MAX;
        }
        bell_.ring();
      })) {
  below_.set_listener([this] { bell_.ring(); });
}

RateLimited::~RateLimited() {
  below_.set_listener({});
}

// What passes may be larger than what is left: the next frame waits for that too.
bool RateLimited::may_pass(const TokenBucket& bucket) {
  const uint64_t now_ns = clock_.now_ns();
  const uint64_t ready_ns = bucket.ready_at_ns(now_ns, 1);
  if (ready_ns <= now_ns) return true;
  if (ready_ns < alarm_ns_) {
    alarm_ns_ = ready_ns;
    timer_->arm(ready_ns);
  }
  return false;
}

Sent RateLimited::send(ByteSpan frame, const frame::Offload& offload) {
  {
    const LockGuard lock(mutex_);
    if (!may_pass(sent_)) return Sent::kNoRoom;
  }
  const Sent sent = below_.send(frame, offload);
  if (sent == Sent::kDone) {
    const LockGuard lock(mutex_);
    sent_.take(clock_.now_ns(), frame.size());
  }
  return sent;
}

size_t RateLimited::receive(MutableByteSpan out, frame::Offload& offload) {
  {
    const LockGuard lock(mutex_);
    if (!may_pass(received_)) return 0;
  }
  const size_t size = below_.receive(out, offload);
  if (size != 0) {
    const LockGuard lock(mutex_);
    received_.take(clock_.now_ns(), size);
  }
  return size;
}

}  // namespace bulkhead::net::link
