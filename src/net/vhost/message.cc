#include "net/vhost/message.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include <sys/socket.h>

namespace bulkhead::net::vhost {
namespace {

using Clock = std::chrono::steady_clock;
// From the first byte of a message to its last: whoever sends it has it, and others wait meanwhile.
constexpr std::chrono::milliseconds kMessagePatience{100};

struct Header {
  uint32_t request;
  uint32_t flags;
  uint32_t size;
};

union ControlBuffer {
  cmsghdr header;
  std::array<char, CMSG_SPACE(sizeof(int) * kMaximumDescriptors)> bytes;
};

void take_descriptors(msghdr& message, std::vector<Fd>& out) {
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr; control = CMSG_NXTHDR(&message, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
      out.emplace_back(descriptor);
    }
  }
}

// Reads exactly so much of a message that has begun.
Result<> read_rest(int socket, MutableByteSpan out, Clock::time_point deadline) {
  size_t done = 0;
  while (done < out.size()) {
    if (done != 0 && Clock::now() > deadline) return fail("vhost-user: a message that comes in drops");
    const ssize_t count = ::recv(socket, out.data() + done, out.size() - done, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "vhost-user: receive");
    if (count == 0) return fail("vhost-user: the stream ends within a message");
    done += static_cast<size_t>(count);
  }
  return {};
}

}  // namespace

uint64_t Message::number() const {
  return payload.size() < sizeof(uint64_t) ? 0 : load<uint64_t>(payload.data());
}

std::pair<uint32_t, uint32_t> Message::ring_state() const {
  if (payload.size() < 2 * sizeof(uint32_t)) return {UINT32_MAX, 0};
  return {load<uint32_t>(payload.data()), load<uint32_t>(payload.data() + 4)};
}

Message make_message(Request request, ByteSpan payload) {
  return {.request = request, .flags = kVersion, .payload = {payload.begin(), payload.end()}, .descriptors = {}};
}
Message make_message(Request request, uint64_t number) {
  return make_message(request, as_bytes(number));
}
Message make_message(Request request, uint32_t ring, uint32_t value) {
  return make_message(request, uint64_t{value} << 32 | ring);
}

Result<std::optional<Message>> receive_message(int socket) {
  Header header{};
  Message message;
  iovec part{.iov_base = &header, .iov_len = sizeof header};
  ControlBuffer control{};
  msghdr received{};
  received.msg_iov = &part;
  received.msg_iovlen = 1;
  received.msg_control = control.bytes.data();
  received.msg_controllen = control.bytes.size();
  ssize_t count = -1;
  do {
    count = ::recvmsg(socket, &received, MSG_CMSG_CLOEXEC);
  } while (count < 0 && errno == EINTR);
  if (count < 0) return fail_errno(errno, "vhost-user: receive");
  const Clock::time_point deadline = Clock::now() + kMessagePatience;
  take_descriptors(received, message.descriptors);
  if (count == 0) return std::optional<Message>();
  if ((received.msg_flags & MSG_CTRUNC) != 0) return fail("vhost-user: more descriptors than a message may have");
  if (static_cast<size_t>(count) < sizeof header) {
    const MutableByteSpan rest{reinterpret_cast<uint8_t*>(&header) + count, sizeof header - static_cast<size_t>(count)};
    TRY(read_rest(socket, rest, deadline));
  }
  if ((header.flags & kVersionMask) != kVersion) return fail("vhost-user: version {}", header.flags & kVersionMask);
  if (header.size > kMaximumPayload) return fail("vhost-user: a message of {} bytes", header.size);
  message.request = static_cast<Request>(header.request);
  message.flags = header.flags;
  message.payload.resize(header.size);
  TRY(read_rest(socket, message.payload, deadline));
  return message;
}

Result<> send_message(int socket, const Message& message) {
  std::vector<uint8_t> bytes(sizeof(Header) + message.payload.size());
  const Header header{static_cast<uint32_t>(message.request), message.flags,
                      static_cast<uint32_t>(message.payload.size())};
  std::memcpy(bytes.data(), &header, sizeof header);
  if (!message.payload.empty())
    std::memcpy(bytes.data() + sizeof header, message.payload.data(), message.payload.size());
  iovec part{.iov_base = bytes.data(), .iov_len = bytes.size()};
  ControlBuffer control{};
  msghdr sent{};
  sent.msg_iov = &part;
  sent.msg_iovlen = 1;
  if (!message.descriptors.empty()) {
    const size_t size = message.descriptors.size() * sizeof(int);
    sent.msg_control = control.bytes.data();
    sent.msg_controllen = CMSG_SPACE(size);
    cmsghdr* const first = CMSG_FIRSTHDR(&sent);
    first->cmsg_level = SOL_SOCKET;
    first->cmsg_type = SCM_RIGHTS;
    first->cmsg_len = CMSG_LEN(size);
    for (size_t i = 0; i < message.descriptors.size(); ++i) {
      const int descriptor = message.descriptors[i].get();
      std::memcpy(CMSG_DATA(first) + i * sizeof(int), &descriptor, sizeof(int));
    }
  }
  // A socket's buffer holds many messages of this size, so one that takes less is a peer that does not read.
  const ssize_t count = ::sendmsg(socket, &sent, MSG_NOSIGNAL);
  if (count < 0) return fail_errno(errno, "vhost-user: send");
  if (static_cast<size_t>(count) != bytes.size()) return fail("vhost-user: the peer does not read");
  return {};
}

frame::OffloadSupport taken_by_device(uint64_t features) {
  // Cutting needs checksums (5.1.3.1).
  if ((features & kFeatureChecksum) == 0) return {};
  const bool udp = (features & kFeatureHostUdp) != 0;
  return {.checksum = true,
          .tcp_ipv4 = (features & kFeatureHostTcp4) != 0,
          .tcp_ipv6 = (features & kFeatureHostTcp6) != 0,
          .udp_ipv4 = udp,
          .udp_ipv6 = udp};
}

frame::OffloadSupport taken_by_driver(uint64_t features) {
  if ((features & kFeatureGuestChecksum) == 0) return {};
  return {.checksum = true,
          .tcp_ipv4 = (features & kFeatureGuestTcp4) != 0,
          .tcp_ipv6 = (features & kFeatureGuestTcp6) != 0,
          .udp_ipv4 = (features & kFeatureGuestUdp4) != 0,
          .udp_ipv6 = (features & kFeatureGuestUdp6) != 0};
}

}  // namespace bulkhead::net::vhost
