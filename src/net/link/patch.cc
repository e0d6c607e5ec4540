#include "net/link/patch.h"

#include <poll.h>

namespace bulkhead::net::link {
namespace {

constexpr size_t kLargestFrame = frame::kMaximumFrameSize;
// Of one direction in a turn, before the other has its.
constexpr unsigned kFramesATurn = 64;

}  // namespace

Patch::Patch(Port& one, Port& other, EventFd wake)
    : wake_(std::move(wake)),
      lanes_{Lane{.from = one, .to = other, .frame = std::vector<uint8_t>(kLargestFrame), .offload = {}},
             Lane{.from = other, .to = one, .frame = std::vector<uint8_t>(kLargestFrame), .offload = {}}} {}

Result<std::unique_ptr<Patch>> Patch::create(Port& one, Port& other) {
  std::unique_ptr<Patch> made(new Patch(one, other, TRY(EventFd::create())));
  for (const Lane& lane : made->lanes_) lane.from.set_listener([raw = made.get()] { raw->wake_.signal(); });
  return made;
}

Patch::~Patch() {
  for (const Lane& lane : lanes_) lane.from.set_listener({});
}

bool Patch::carry(Lane& lane) {
  for (unsigned count = 0; count < kFramesATurn; ++count) {
    if (lane.waiting == 0) lane.waiting = lane.from.receive(lane.frame, lane.offload);
    if (lane.waiting == 0) return false;
    // Whoever has no room rings when it has some.
    if (lane.to.send(ByteSpan(lane.frame).first(lane.waiting), lane.offload) == Sent::kNoRoom) return false;
    lane.waiting = 0;
  }
  return true;
}

void Patch::run(const std::function<void(bool up)>& on_link) {
  bool up = false;
  while (!stopping_) {
    const bool now_up = lanes_[0].from.link_up() && lanes_[1].from.link_up();
    if (std::exchange(up, now_up) != now_up) on_link(up);
    bool more = false;
    for (Lane& lane : lanes_) more |= carry(lane);
    if (more) continue;
    pollfd wake{.fd = wake_.fd(), .events = POLLIN, .revents = 0};
    (void)::poll(&wake, 1, -1);
    (void)wake_.take();
  }
}

void Patch::stop() {
  stopping_ = true;
  wake_.signal();
}

}  // namespace bulkhead::net::link
