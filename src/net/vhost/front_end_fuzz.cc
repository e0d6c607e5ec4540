// A hostile switch against a card's front end: any answers while it introduces itself, and any bytes in the rings and
// buffers that it then shares, while frames are sent and taken. What the card gets is a frame in its own memory that
// can be cut, and every call ends.
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/frame/frame_builder.h"
#include "net/server/listen.h"
#include "net/vhost/back_end.h"
#include "net/vhost/front_end.h"
#include "support/check.h"
#include "support/log.h"

namespace bulkhead::net::vhost {
namespace {

constexpr std::chrono::seconds kPatience{10};

// The input, from its front; zeroes behind its end.
class Bytes {
 public:
  explicit Bytes(ByteSpan all) : left_(all) {}
  [[nodiscard]] bool empty() const { return left_.empty(); }
  ByteSpan take(size_t count) {
    const ByteSpan taken = left_.first(std::min(count, left_.size()));
    left_ = left_.subspan(taken.size());
    return taken;
  }
  uint64_t number(size_t size) {
    uint64_t value = 0;
    for (const uint8_t byte : take(size)) value = value << 8 | byte;
    return value;
  }

 private:
  ByteSpan left_;
};

// The memory that the card shows, and where its rings stand in it.
struct Shared {
  Mapping memory;
  uint64_t user_address = 0;
  std::array<RingAddress, kRingCount> rings;
};

// Answers as a switch does until the introduction is over; false when it did not come to that.
bool hear_introduction(int socket, uint64_t features, Shared& shared) {
  unsigned asked = 0;
  for (unsigned count = 0; count < 64 && asked < 2; ++count) {
    auto message = receive_message(socket);
    if (!message || !*message) return false;
    const Message& said = **message;
    if (said.request == Request::kGetFeatures || said.request == Request::kGetProtocolFeatures) {
      Message reply = make_message(said.request, said.request == Request::kGetFeatures ? features : 0);
      reply.flags |= kReplyFlag;
      if (!send_message(socket, reply)) return false;
      if (said.request == Request::kGetFeatures) ++asked;
    }
    if (said.request == Request::kSetMemoryTable) {
      CHECK(said.payload.size() >= 8 + sizeof(MemoryRegion) && said.descriptors.size() == 1, "a table of one region");
      const auto region = load<MemoryRegion>(said.payload.data() + 8);
      void* const address =
          ::mmap(nullptr, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, said.descriptors[0].get(), 0);
      CHECK(address != MAP_FAILED, "memory that a switch may map");
      shared.memory = Mapping(address, region.size);
      shared.user_address = region.user_address;
    }
    if (said.request == Request::kSetRingAddress) {
      const auto ring = load<RingAddress>(said.payload.data());
      CHECK(ring.index < kRingCount, "a ring that there is");
      shared.rings[ring.index] = ring;
    }
  }
  return shared.memory.data() != nullptr;
}

void take_frames(link::Link& link) {
  std::array<uint8_t, 4096> frame;
  for (unsigned count = 0; count < 8; ++count) {
    frame::Offload offload;
    const size_t size = link.receive(frame, offload);
    if (size == 0) return;
    CHECK(size <= frame.size(), "no more than there is room");
    size_t pieces = 0;
    frame::for_each_piece(ByteSpan(frame).first(size), offload, [&](ByteSpan piece) {
      CHECK(!piece.empty(), "a piece is something");
      return ++pieces < 4096;
    });
  }
}

// Bytes into a ring's used part, its descriptors, or a buffer's start, then what a card does.
void play(link::Link& link, const Shared& shared, Bytes& input) {
  const auto frame = frame::FrameBuilder().payload("from the card").build();
  while (!input.empty()) {
    const auto what = static_cast<uint8_t>(input.number(1));
    const RingAddress& ring = shared.rings[what % kRingCount];
    uint64_t at = input.number(1) * 2;
    switch (what >> 1 & 3) {
      case 0:
        at = ring.used - shared.user_address;  // flags and index
        break;
      case 1:
        at += ring.used - shared.user_address;
        break;
      case 2:
        at += ring.descriptors - shared.user_address;
        break;
      default:
        at += ring.used - shared.user_address + 4096;  // the first buffer: its header and what is behind it
        break;
    }
    const ByteSpan bytes = input.take(1 + (what >> 3 & 31));
    CHECK(at + bytes.size() <= shared.memory.size(), "inside of what is shared");
    std::ranges::copy(bytes, shared.memory.data() + at);
    take_frames(link);
    (void)link.send(frame);
  }
}

void run(ByteSpan all) {
  static const std::string path = fmt::format("/tmp/front-end-fuzz-{}.sock", ::getpid());
  const Fd listener = server::listen_at(path).value();
  Bytes input(all);
  const bool is_honest = (input.number(1) & 1) != 0;
  const uint64_t features = input.number(8) | (is_honest ? kFeatureVersion1 : 0);
  auto link = FrontEnd::create(path).value();
  const timeval patience{.tv_sec = 10, .tv_usec = 0};
  (void)::fcntl(listener.get(), F_SETFL, 0);
  (void)::setsockopt(listener.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  Fd socket;
  do {  // the fuzzer's clock interrupts it
    socket = Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  } while (!socket.valid() && errno == EINTR);
  CHECK(socket.valid(), "a card that comes");
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  Shared shared;
  if (!is_honest) {
    const ByteSpan words = input.take(4096);
    (void)!::send(socket.get(), words.data(), words.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)::shutdown(socket.get(), SHUT_WR);
    take_frames(*link);
  } else if (hear_introduction(socket.get(), features, shared)) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (!link->link_up() && std::chrono::steady_clock::now() < end) ::usleep(10);
    CHECK(link->link_up(), "a card that knows its switch");
    play(*link, shared, input);
  }
  socket.reset();
  link.reset();
  (void)::unlink(path.c_str());
}

}  // namespace
}  // namespace bulkhead::net::vhost

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Each end of a session is a line otherwise.
  bulkhead::log::set_level(bulkhead::log::Level::kError);
  bulkhead::net::vhost::run({data, size});
  return 0;
}
