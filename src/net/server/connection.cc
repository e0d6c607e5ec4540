#include "net/server/connection.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net/frame/protocol.h"

namespace bulkhead::net::server {

// Of a frame that is not to be cut, or of a piece: no card has a larger MTU.
constexpr size_t kLargestPiece = frame::kMaximumFrameSize;

using vhost::DeviceRing, vhost::kReceiveRing, vhost::kTransmitRing;

Result<std::unique_ptr<Connection>> Connection::create(Fd socket, EventLoop& loop, std::function<void()> on_frames,
                                                       std::function<void(std::string)> on_end) {
  // A front end that begins a message and does not end it must not hold the others up for longer.
  const timeval patience{.tv_sec = 0, .tv_usec = 100'000};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  std::unique_ptr<Connection> made(new Connection(std::move(socket), loop, std::move(on_frames), std::move(on_end)));
  TRY(loop.watch(made->socket_.get(), EPOLLIN | EPOLLRDHUP, [raw = made.get()](uint32_t) { raw->on_message(); }));
  return made;
}

Connection::~Connection() {
  loop_.unwatch(socket_.get());
  if (kick_.valid()) loop_.unwatch(kick_.get());
}

void Connection::on_message() {
  auto message = vhost::receive_message(socket_.get());
  if (!message) return on_end_(message.error().message);
  if (!*message) return on_end_("");
  auto reply = back_end_.handle(std::move(**message));
  if (!reply) return on_end_(reply.error().message);
  if (*reply) {
    if (const auto sent = vhost::send_message(socket_.get(), **reply); !sent) return on_end_(sent.error().message);
  }
  watch_kick();
}

void Connection::watch_kick() {
  // Nobody here waits for room to receive into: without any, a frame is lost.
  if (DeviceRing* const ring = back_end_.ring(kReceiveRing)) ring->set_notifications(false);
  const bool ready = back_end_.ring(kTransmitRing) != nullptr;
  if (ready && kick_.valid() && kick_generation_ == back_end_.generation()) return;
  if (kick_.valid()) loop_.unwatch(kick_.get());
  kick_.reset();
  if (!ready) return;
  kick_ = Fd(::fcntl(back_end_.kick(kTransmitRing), F_DUPFD_CLOEXEC, 0));
  kick_generation_ = back_end_.generation();
  const auto watched = loop_.watch(kick_.get(), EPOLLIN, [this](uint32_t) {
    uint64_t count = 0;
    const iovec part{.iov_base = &count, .iov_len = sizeof count};
    // The front end has the descriptor too: it may have emptied it, and may have made it one that waits.
    const ssize_t size = ::preadv2(kick_.get(), &part, 1, -1, RWF_NOWAIT);
    if (size != sizeof count) {
      if (size < 0 && errno == EAGAIN) return;
      return on_end_("a kick that is no eventfd");
    }
    on_frames_();
  });
  if (!watched) {
    kick_.reset();
    return on_end_(watched.error().message);
  }
  // What was sent before the kick was watched.
  on_frames_();
}

void Connection::broken(size_t ring, const char* what) {
  back_end_.stop(ring);
  on_end_(fmt::format("its {} ring makes no sense", what));
}

Connection::Took Connection::take(MutableByteSpan room, Taken& taken) {
  DeviceRing* const ring = back_end_.ring(kTransmitRing);
  if (ring == nullptr) return Took::kNone;
  switch (ring->pop(back_end_)) {
    case DeviceRing::Popped::kEmpty:
      return Took::kNone;
    case DeviceRing::Popped::kBroken:
      broken(kTransmitRing, "transmit");
      return Took::kNone;
    case DeviceRing::Popped::kChain:
      break;
  }
  took_ = true;
  const size_t all = ring->readable_size();
  const bool fits = all > vhost::kNetHeaderSize && all <= room.size();
  const size_t size = fits ? ring->read(room) : 0;
  ring->push(0);
  if (size <= vhost::kNetHeaderSize) return Took::kNothingOfUse;
  const auto left = frame::read_virtio_header(room, vhost::taken_by_device(back_end_.features()));
  if (!left) return Took::kNothingOfUse;
  taken = {.frame = room.subspan(vhost::kNetHeaderSize, size - vhost::kNetHeaderSize), .offload = *left};
  return frame::settle(taken.frame, taken.offload, kLargestPiece) ? Took::kFrame : Took::kNothingOfUse;
}

void Connection::wake() {
  if (DeviceRing* const ring = back_end_.ring(kTransmitRing)) ring->set_notifications(false);
}

bool Connection::rest() {
  DeviceRing* const ring = back_end_.ring(kTransmitRing);
  if (ring == nullptr) return false;
  ring->set_notifications(true);
  const auto popped = ring->pop(back_end_);
  if (popped == DeviceRing::Popped::kChain) {
    ring->unpop();
    ring->set_notifications(false);
    return true;
  }
  if (popped == DeviceRing::Popped::kBroken) broken(kTransmitRing, "transmit");
  return false;
}

bool Connection::put(ByteSpan frame, const frame::Offload& offload) {
  if (vhost::taken_by_driver(back_end_.features()).takes(offload, frame)) return put_one(frame, offload);
  bool done = true;
  frame::for_each_piece(frame, offload, [&](ByteSpan piece) { return done = put_one(piece, {}); });
  return done;
}

bool Connection::put_one(ByteSpan frame, const frame::Offload& offload) {
  DeviceRing* const ring = back_end_.ring(kReceiveRing);
  if (ring == nullptr) return false;
  const auto popped = ring->pop(back_end_);
  if (popped == DeviceRing::Popped::kBroken) broken(kReceiveRing, "receive");
  if (popped != DeviceRing::Popped::kChain) return false;
  put_ = true;
  const auto header = frame::make_virtio_header(offload, frame, 1);
  const bool fits = header.size() + frame.size() <= ring->writable_size();
  if (fits) {
    ring->write(0, header);
    ring->write(header.size(), frame);
  }
  // A buffer too small for it goes back empty, or it would stand in the way of all that follows.
  ring->push(fits ? static_cast<uint32_t>(header.size() + frame.size()) : 0);
  return fits;
}

bool Connection::call(size_t index) const {
  const uint64_t one = 1;
  const int fd = back_end_.call(index);
  // One that is full has been rung, and a write to it would wait if the front end made it so. One that fills up only
  // now is left by the process's alarm.
  pollfd bell{.fd = fd, .events = POLLOUT, .revents = 0};
  if (fd >= 0 && ::poll(&bell, 1, 0) == 0) return true;
  return fd < 0 || ::write(fd, &one, sizeof one) >= 0 || errno == EAGAIN;
}

bool Connection::tell() {
  for (const auto& [index, news] : {std::pair(kTransmitRing, &took_), std::pair(kReceiveRing, &put_)}) {
    if (!std::exchange(*news, false)) continue;
    const DeviceRing* const ring = back_end_.ring(index);
    if (ring != nullptr && ring->wants_interrupt() && !call(index)) return false;
  }
  return true;
}

}  // namespace bulkhead::net::server
