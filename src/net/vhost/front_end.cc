#include "net/vhost/front_end.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "net/vhost/absence.h"
#include "net/vhost/back_end.h"
#include "support/log.h"

namespace bulkhead::net::vhost {
namespace {

constexpr size_t kBufferSize = kNetHeaderSize + FrontEnd::kMaximumFrame;
// A ring's parts, each on pages of its own, then its buffers.
constexpr size_t kDescriptorsAt = 0, kAvailableAt = 4096, kUsedAt = 8192, kBuffersAt = 12288;
constexpr time_t kReplyPatience_s = 2;

size_t ring_span(size_t count) {
  return (kBuffersAt + count * kBufferSize + 4095) / 4096 * 4096;
}

// The switch has it too: one that it has filled says all there is to say, and could be one that waits by now.
void kick(EventFd& event) {
  pollfd room{.fd = event.fd(), .events = POLLOUT, .revents = 0};
  if (::poll(&room, 1, 0) == 1) event.signal();
}

Result<uint64_t> ask(int socket, Request request) {
  TRY(send_message(socket, make_message(request)));
  const auto reply = TRY(receive_message(socket));
  if (!reply || reply->request != request || (reply->flags & kReplyFlag) == 0) {
    return fail("vhost-user: no answer to request {}", static_cast<uint32_t>(request));
  }
  return reply->number();
}

Result<> give(int socket, Request request, uint64_t number, int descriptor) {
  Message message = make_message(request, number);
  message.descriptors.emplace_back(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
  if (!message.descriptors.back().valid()) return fail_errno(errno, "vhost-user: a descriptor");
  return send_message(socket, message);
}

}  // namespace

uint8_t* FrontEnd::Session::buffer(size_t ring, uint16_t index) const {
  return memory.data() + ring * ring_span(kRingSize) + kBuffersAt + index * kBufferSize;
}

Result<std::unique_ptr<link::Link>> FrontEnd::create(const std::string& path) {
  if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    return fail("'{}': a socket's path has at most {} characters", path, sizeof(sockaddr_un::sun_path) - 1);
  }
  std::unique_ptr<FrontEnd> link(
      new FrontEnd(path, TRY(EventFd::create()), TRY(EventFd::create()), TRY(EventFd::create())));
  link->thread_ = Thread("switch-link", [raw = link.get()] { raw->work(); });
  return link;
}

FrontEnd::~FrontEnd() {
  stopping_ = true;
  stop_.signal();
  thread_.join();
}

// ---- The guest's side ----

Sent FrontEnd::send(ByteSpan frame, const frame::Offload& offload) {
  const LockGuard lock(mutex_);
  // Without a switch, or too large for any: lost as on a wire.
  if (session_ == nullptr || frame.size() > kMaximumFrame) return Sent::kDone;
  Session& session = *session_;
  const bool goes_whole = taken_by_device(session.features).takes(offload, frame);
  // All pieces or none; what has more of them than the ring has places is lost.
  const size_t needed = goes_whole ? 1 : frame::Segments(frame, offload).count();
  if (needed > kRingSize) return Sent::kDone;
  if (session.free.size() < std::max<size_t>(kRingSize / 2, needed) && !reap()) return Sent::kDone;
  if (session.free.size() < needed) {
    session.transmit->set_interrupts(true);
    session.waits_for_room = true;
    if (!reap()) return Sent::kDone;
    if (session.free.size() < needed) return Sent::kNoRoom;
  }
  if (std::exchange(session.waits_for_room, false)) session.transmit->set_interrupts(false);
  if (goes_whole) {
    put(session, frame, offload);
  } else {
    frame::for_each_piece(frame, offload, [&](ByteSpan piece) {
      put(session, piece, {});
      return true;
    });
  }
  if (session.transmit->wants_notify()) kick(session.transmit_kick);
  return Sent::kDone;
}

void FrontEnd::put(Session& session, ByteSpan frame, const frame::Offload& offload) {
  const uint16_t index = session.free.back();
  session.free.pop_back();
  uint8_t* const buffer = session.buffer(kTransmitRing, index);
  const auto header = frame::make_virtio_header(offload, frame, 0);
  std::memcpy(buffer, header.data(), kNetHeaderSize);
  std::memcpy(buffer + kNetHeaderSize, frame.data(), frame.size());
  session.transmit->add(index, static_cast<uint32_t>(kNetHeaderSize + frame.size()));
}

bool FrontEnd::reap() {
  Session& session = *session_;
  for (uint16_t count = 0; count < kRingSize; ++count) {
    const DriverRing::Used used = session.transmit->take();
    if (used.kind == DriverRing::Used::Kind::kNone) return true;
    if (used.kind == DriverRing::Used::Kind::kBroken) {
      break_off();
      return false;
    }
    session.free.push_back(used.buffer);
  }
  return true;
}

// The thread sees the end of the stream and does the rest.
void FrontEnd::break_off() {
  log::warning("switch '{}': its rings make no sense", path_);
  ::shutdown(session_->socket.get(), SHUT_RDWR);
}

void FrontEnd::set_listener(std::function<void()> on_ready) {
  bell_.set_listener(std::move(on_ready));
  // What came while nobody was told is told now, by the thread.
  again_.signal();
}

EventFd* FrontEnd::news() {
  news_taken_ = true;
  return &news_;
}

size_t FrontEnd::receive(MutableByteSpan out, frame::Offload& offload) {
  const LockGuard lock(mutex_);
  if (session_ == nullptr) return 0;
  Session& session = *session_;
  for (uint16_t count = 0; count < kRingSize; ++count) {
    DriverRing::Used used = session.receive->take();
    if (used.kind == DriverRing::Used::Kind::kNone) {
      // From here on the switch has to say when there is more; what came before it knew that is taken now.
      session.receive->set_interrupts(true);
      used = session.receive->take();
      if (used.kind == DriverRing::Used::Kind::kNone) return 0;
    }
    if (used.kind == DriverRing::Used::Kind::kBroken) {
      break_off();
      return 0;
    }
    // Whoever takes frames takes all there are, and finds the ring empty in the end.
    session.receive->set_interrupts(false);
    const size_t size = used.written > kNetHeaderSize ? used.written - kNetHeaderSize : 0;
    bool fits = size != 0 && size <= out.size();
    if (fits) {
      // Copied out once, then believed as little as a guest's.
      std::array<uint8_t, kNetHeaderSize> header;
      std::memcpy(header.data(), session.buffer(kReceiveRing, used.buffer), kNetHeaderSize);
      std::memcpy(out.data(), session.buffer(kReceiveRing, used.buffer) + kNetHeaderSize, size);
      const auto left = frame::read_virtio_header(header, taken_by_driver(session.features));
      if (left) offload = *left;
      fits = left && frame::settle(out.first(size), offload, out.size());
    }
    session.receive->add(used.buffer, kBufferSize);
    if (session.receive->wants_notify()) kick(session.receive_kick);
    if (fits) return size;
    ++dropped_;
  }
  // There may be more, of which the switch need not tell: the thread tells once again.
  again_.signal();
  return 0;
}

// ---- The thread ----

Result<Fd> FrontEnd::reach() const {
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return fail_errno(errno, "switch '{}'", path_);
  // Before it connects: a switch that takes nobody in would hold it there.
  const timeval patience{.tv_sec = kReplyPatience_s, .tv_usec = 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  sockaddr_un where{};
  where.sun_family = AF_UNIX;
  std::memcpy(where.sun_path, path_.data(), path_.size());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&where), sizeof where) != 0) {
    return fail_errno(errno, "switch '{}'", path_);
  }
  return socket;
}

Result<std::unique_ptr<FrontEnd::Session>> FrontEnd::begin_session(Fd socket) const {
  const size_t size = kRingCount * ring_span(kRingSize);
  const Fd file(::memfd_create("bulkhead-card", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.valid() || ::ftruncate(file.get(), static_cast<off_t>(size)) != 0 ||
      ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return fail_errno(errno, "memory of a card");
  }
  void* const address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (address == MAP_FAILED) return fail_errno(errno, "memory of a card");
  std::unique_ptr<Session> session(new Session{.socket = std::move(socket),
                                               .memory = Mapping(address, size),
                                               .receive_kick = TRY(EventFd::create()),
                                               .transmit_kick = TRY(EventFd::create())});
  for (size_t ring = 0; ring < kRingCount; ++ring) {
    uint8_t* const base = session->memory.data() + ring * ring_span(kRingSize);
    const RingMemory memory{base + kDescriptorsAt, base + kAvailableAt, base + kUsedAt, kRingSize};
    auto& made = ring == kReceiveRing ? session->receive : session->transmit;
    made = std::make_unique<DriverRing>(memory, ring * ring_span(kRingSize) + kBuffersAt, kBufferSize,
                                        ring == kReceiveRing);
  }
  for (uint16_t i = 0; i < kRingSize; ++i) {
    session->receive->add(i, kBufferSize);
    session->free.push_back(static_cast<uint16_t>(kRingSize - 1 - i));
  }
  session->transmit->set_interrupts(false);
  TRY_IN(fmt::format("switch '{}'", path_), introduce(*session, file.get()));
  return session;
}

// Says what there is, in the order that every back end knows.
Result<> FrontEnd::introduce(Session& session, int file) const {
  const int socket = session.socket.get();
  const uint64_t features = TRY(ask(socket, Request::kGetFeatures));
  session.features = features & kOffloadFeatures;
  if ((features & kFeatureVersion1) == 0) return fail("vhost-user: a switch older than VIRTIO 1.0");
  const bool has_protocol = (features & kFeatureProtocol) != 0;
  if (has_protocol) {
    (void)TRY(ask(socket, Request::kGetProtocolFeatures));
    TRY(send_message(socket, make_message(Request::kSetProtocolFeatures, uint64_t{0})));
  }
  TRY(send_message(socket, make_message(Request::kSetOwner)));
  TRY(send_message(socket, make_message(Request::kSetFeatures,
                                        kFeatureVersion1 | (features & (kFeatureProtocol | kOffloadFeatures)))));
  struct {
    uint32_t count = 1, padding = 0;
    MemoryRegion region;
  } table;
  // The card's addresses begin at 0 in this memory; those of the process name the rings.
  const auto base = reinterpret_cast<uint64_t>(session.memory.data());
  table.region = {.guest_address = 0, .size = session.memory.size(), .user_address = base, .file_offset = 0};
  Message memory = make_message(Request::kSetMemoryTable, as_bytes(table));
  memory.descriptors.emplace_back(::fcntl(file, F_DUPFD_CLOEXEC, 0));
  TRY(send_message(socket, memory));
  for (uint32_t ring = 0; ring < kRingCount; ++ring) {
    const uint64_t at = base + ring * ring_span(kRingSize);
    const RingAddress address{
        .index = ring, .descriptors = at + kDescriptorsAt, .used = at + kUsedAt, .available = at + kAvailableAt};
    TRY(send_message(socket, make_message(Request::kSetRingSize, ring, kRingSize)));
    TRY(send_message(socket, make_message(Request::kSetRingBase, ring, 0)));
    TRY(send_message(socket, make_message(Request::kSetRingAddress, as_bytes(address))));
    TRY(give(socket, Request::kSetRingCall, ring, news_.fd()));
    const EventFd& kick = ring == kReceiveRing ? session.receive_kick : session.transmit_kick;
    TRY(give(socket, Request::kSetRingKick, ring, kick.fd()));
  }
  for (uint32_t ring = 0; has_protocol && ring < kRingCount; ++ring) {
    TRY(send_message(socket, make_message(Request::kSetRingEnable, ring, 1)));
  }
  // Answered behind all that came before: no frame for this card is lost because the switch has not got that far.
  (void)TRY(ask(socket, Request::kGetFeatures));
  return {};
}

void FrontEnd::rest(std::chrono::milliseconds pause) const {
  pollfd stop{.fd = stop_.fd(), .events = POLLIN, .revents = 0};
  (void)::poll(&stop, 1, static_cast<int>(pause.count()));
}

void FrontEnd::work() {
  using Clock = Absence::Clock;
  Absence absence(Clock::now());
  bool told = false;
  while (!stopping_) {
    auto socket = reach();
    const bool is_there = socket.has_value();
    auto session = is_there ? begin_session(std::move(*socket)) : std::unexpected(std::move(socket).error());
    if (session) {
      if (std::exchange(told, true)) log::info("switch '{}': connected", path_);
      const auto began = Clock::now();
      keep(std::move(*session));
      absence.begin(began, Clock::now());
      if (!stopping_) log::warning("switch '{}': gone", path_);
    } else if (!std::exchange(told, true)) {
      log::warning("{}; trying again", session.error().message);
    }
    const auto now = Clock::now();
    if (absence.is_noticed(now) && up_.exchange(false)) bell_.ring();
    rest(absence.pause(is_there, now));
  }
}

void FrontEnd::keep(std::unique_ptr<Session> session) {
  const Session& kept = *session;
  {
    const LockGuard lock(mutex_);
    session_ = std::move(session);
  }
  up_ = true;
  bell_.ring();
  watch(kept);
  {
    const LockGuard lock(mutex_);
    session = std::move(session_);
  }
  // Whoever waits for room has it: what is sent now is lost.
  bell_.ring();
}

void FrontEnd::watch(const Session& session) {
  std::array<pollfd, 4> fds{{{.fd = stop_.fd(), .events = POLLIN, .revents = 0},
                             {.fd = session.socket.get(), .events = POLLIN | POLLRDHUP, .revents = 0},
                             {.fd = again_.fd(), .events = POLLIN, .revents = 0},
                             {.fd = news_.fd(), .events = POLLIN, .revents = 0}}};
  while (!stopping_) {
    // The card may have asked for it meanwhile.
    if (news_taken_) fds[3] = {.fd = -1, .events = 0, .revents = 0};
    if (::poll(fds.data(), fds.size(), -1) < 0) continue;
    // A switch says nothing of its own accord.
    if (fds[1].revents != 0) return;
    if (fds[2].revents == 0 && (fds[3].revents == 0 || news_taken_)) continue;
    if (fds[2].revents != 0) again_.take();
    if (fds[3].revents != 0) news_.take();
    bell_.ring();
  }
}

}  // namespace bulkhead::net::vhost
