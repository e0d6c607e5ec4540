#include "net/link/cable.h"

#include "net/link/frame_queue.h"

namespace bulkhead::net::link {

Cable::Cable(std::unique_ptr<Link> far) : far_(std::move(far)) {
  far_->set_listener([this] { bell_.ring(); });
}

Cable::~Cable() {
  far_->set_listener({});
}

void Cable::set_plugged(bool plugged) {
  if (plugged_.exchange(plugged) != plugged) bell_.ring();
}

Sent Cable::send(ByteSpan frame, const frame::Offload& offload) {
  return plugged_ ? far_->send(frame, offload) : Sent::kDone;
}

size_t Cable::receive(MutableByteSpan out, frame::Offload& offload) {
  // What has come meanwhile is not delivered late.
  for (size_t count = 0; !plugged_ && count < FrameQueue::kMaximumFrames; ++count) {
    if (far_->receive(out, offload) == 0) return 0;
    ++lost_;
  }
  return plugged_ ? far_->receive(out, offload) : 0;
}

LinkCounters Cable::counters() const {
  LinkCounters counters = far_->counters();
  counters.to_guest_dropped += lost_;
  return counters;
}

}  // namespace bulkhead::net::link
