#include "net/link/tap.h"

#include <array>
#include <cstring>

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "net/frame/protocol.h"

namespace bulkhead::net::link {

Result<std::unique_ptr<Link>> TapLink::create(const std::string& name) {
  return adopt(TRY(open(name)));
}

Result<Fd> TapLink::open(const std::string& name) {
  ifreq request{};
  if (name.empty() || name.size() >= sizeof request.ifr_name) {
    return fail("tap '{}': a name has 1 to {} characters", name, sizeof request.ifr_name - 1);
  }
  Fd device = TRY_IN(fmt::format("tap '{}'", name), open_file("/dev/net/tun", O_RDWR | O_NONBLOCK));
  std::memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (::ioctl(device.get(), TUNSETIFF, &request) != 0) return fail_errno(errno, "tap '{}'", name);
  return device;
}

Result<std::unique_ptr<Link>> TapLink::adopt(Fd device) {
  std::unique_ptr<TapLink> link(new TapLink(std::move(device), TRY(EventFd::create())));
  link->thread_ = Thread("tap", [raw = link.get()] { raw->work(); });
  return link;
}

TapLink::~TapLink() {
  stop_.signal();
  thread_.join();
}

Sent TapLink::send(ByteSpan frame, const frame::Offload& offload) {
  // A device that is full or down loses the frame, as a wire does.
  frame::for_each_piece(frame, offload,
                        [this](ByteSpan piece) { return ::write(device_.get(), piece.data(), piece.size()) >= 0; });
  return Sent::kDone;
}

size_t TapLink::receive(MutableByteSpan out, frame::Offload& offload) {
  const LockGuard lock(mutex_);
  return to_guest_.pop(out, offload);
}

bool TapLink::read_frames() {
  std::array<uint8_t, 65536> bytes;
  for (size_t count = 0; count < FrameQueue::kMaximumFrames; ++count) {
    const ssize_t size = ::read(device_.get(), bytes.data(), bytes.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return size < 0 && errno == EAGAIN;
    if (static_cast<size_t>(size) < frame::kEthernetHeaderSize) continue;
    const LockGuard lock(mutex_);
    if (!to_guest_.push(ByteSpan(bytes).first(static_cast<size_t>(size)))) ++dropped_;
  }
  return true;
}

void TapLink::work() {
  while (true) {
    std::array<pollfd, 2> fds = {pollfd{.fd = stop_.fd(), .events = POLLIN, .revents = 0},
                                 pollfd{.fd = device_.get(), .events = POLLIN, .revents = 0}};
    if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) break;
    if (fds[0].revents != 0) return;
    if (fds[1].revents == 0) continue;
    const bool alive = read_frames();
    if (!alive) up_ = false;
    bell_.ring();
    if (!alive) break;
  }
}

}  // namespace bulkhead::net::link
