#include "net/link/tunnel_link.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/check.h"

namespace bulkhead::net::link {
namespace {

constexpr std::chrono::milliseconds kTick{500};
// Datagrams of a turn, before the frames among them are announced.
constexpr unsigned kDatagramsATurn = 32;
constexpr size_t kDatagramRoom = 65536;
constexpr int kSocketBuffer = 4 << 20;
constexpr std::array<uint8_t, 12> kMappedPrefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

tunnel::Now now() {
  using std::chrono::steady_clock, std::chrono::system_clock;
  return {.ns = static_cast<uint64_t>(steady_clock::now().time_since_epoch().count()),
          .wall_ns = static_cast<uint64_t>(system_clock::now().time_since_epoch().count())};
}

struct SocketAddress {
  sockaddr_storage bytes{};
  socklen_t size = 0;
};

// For a socket of IPv6 an IPv4 address is one of IPv6 too.
SocketAddress to_socket(const tunnel::Endpoint& endpoint, bool is_ipv6) {
  SocketAddress made;
  const bool is_v4 = endpoint.address.family == frame::Family::kIpv4;
  if (is_ipv6) {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(endpoint.port);
    uint8_t* const at = address.sin6_addr.s6_addr;
    if (is_v4) std::memcpy(at, kMappedPrefix.data(), kMappedPrefix.size());
    std::memcpy(at + (is_v4 ? kMappedPrefix.size() : 0), endpoint.address.bytes.data(), is_v4 ? 4 : 16);
    std::memcpy(&made.bytes, &address, made.size = sizeof address);
    return made;
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(endpoint.port);
  std::memcpy(&address.sin_addr, endpoint.address.bytes.data(), 4);
  std::memcpy(&made.bytes, &address, made.size = sizeof address);
  return made;
}

tunnel::Endpoint from_socket(const sockaddr_storage& from) {
  if (from.ss_family == AF_INET) {
    const auto& address = reinterpret_cast<const sockaddr_in&>(from);
    return {.address = frame::IpAddress::v4(as_bytes(address.sin_addr)), .port = ntohs(address.sin_port)};
  }
  const auto& address = reinterpret_cast<const sockaddr_in6&>(from);
  const ByteSpan bytes = as_bytes(address.sin6_addr);
  const bool is_mapped = std::ranges::equal(bytes.first(kMappedPrefix.size()), kMappedPrefix);
  return {
      .address = is_mapped ? frame::IpAddress::v4(bytes.subspan(kMappedPrefix.size())) : frame::IpAddress::v6(bytes),
      .port = ntohs(address.sin6_port)};
}

Result<Fd> open_socket(const tunnel::Endpoint& listen, bool is_ipv6) {
  Fd socket(::socket(is_ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return fail_errno(errno, "listen on {}", listen.to_string());
  const int off = 0;
  if (is_ipv6) (void)::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  // What is larger than the path goes in fragments: a link without a way for whole frames loses them in silence.
  const int never = IP_PMTUDISC_DONT;
  (void)::setsockopt(socket.get(), IPPROTO_IP, IP_MTU_DISCOVER, &never, sizeof never);
  const int never6 = IPV6_PMTUDISC_DONT;
  if (is_ipv6) (void)::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_MTU_DISCOVER, &never6, sizeof never6);
  for (const int which : {SO_RCVBUF, SO_SNDBUF}) {
    (void)::setsockopt(socket.get(), SOL_SOCKET, which, &kSocketBuffer, sizeof kSocketBuffer);
  }
  const SocketAddress at = to_socket(listen, is_ipv6);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&at.bytes), at.size) != 0) {
    return fail_errno(errno, "listen on {}", listen.to_string());
  }
  return socket;
}

}  // namespace

TunnelLink::TunnelLink(std::unique_ptr<EventLoop> loop, Fd socket, bool is_ipv6)
    : loop_(std::move(loop)),
      socket_(std::move(socket)),
      is_ipv6_(is_ipv6),
      outgoing_(frame::kMaximumFrameSize),
      incoming_(kDatagramsATurn * kDatagramRoom) {}

Result<std::unique_ptr<TunnelLink>> TunnelLink::create(const TunnelLinkConfig& config) {
  bool is_ipv6 = config.listen.address.family == frame::Family::kIpv6;
  auto socket = open_socket(config.listen, is_ipv6);
  // A host without IPv6.
  if (!socket && is_ipv6 && config.listen.address.is_unspecified()) {
    is_ipv6 = false;
    socket = open_socket({.address = {}, .port = config.listen.port}, is_ipv6);
  }
  if (!socket) return std::unexpected(socket.error());
  for (const tunnel::PeerConfig& peer : config.tunnel.peers) {
    if (!is_ipv6 && peer.endpoint && peer.endpoint->address.family == frame::Family::kIpv6) {
      return fail("peer '{}': {} cannot be reached from {}", peer.name, peer.endpoint->to_string(),
                  config.listen.to_string());
    }
  }
  std::unique_ptr<TunnelLink> made(new TunnelLink(TRY(EventLoop::create()), std::move(*socket), is_ipv6));
  {
    const LockGuard lock(made->mutex_);
    made->tunnel_ = TRY(tunnel::Tunnel::create(config.tunnel, made->random_));
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  (void)::getsockname(made->socket_.get(), reinterpret_cast<sockaddr*>(&bound), &size);
  made->local_ = from_socket(bound);
  TRY(made->loop_->watch(made->socket_.get(), EPOLLIN, [raw = made.get()](uint32_t) { raw->hear(); }));
  if (!config.status_path.empty()) {
    made->status_ = TRY(server::Control::create(config.status_path, *made->loop_,
                                                [raw = made.get()](std::string_view) { return raw->describe(); }));
  }
  return made;
}

void TunnelLink::start() {
  thread_ = Thread("tunnel", [this] {
    tick();
    loop_->run();
  });
}

TunnelLink::~TunnelLink() {
  loop_->stop();
  thread_.join();
}

// ---- From the card's thread ----

Sent TunnelLink::send(ByteSpan frame, const frame::Offload& offload) {
  const LockGuard lock(mutex_);
  // Within the lock, so that the tunnel sees no time before one that it has seen.
  const tunnel::Now at = now();
  tunnel::Tunnel& tunnel = *tunnel_;
  const MutableByteSpan room(outgoing_);
  frame::for_each_piece(frame, offload, [&](ByteSpan piece) {
    const MutableByteSpan copy = room.first(piece.size());
    std::ranges::copy(piece, copy.begin());
    tunnel.send(copy, at, *this);
    return true;
  });
  return Sent::kDone;
}

size_t TunnelLink::receive(MutableByteSpan out, frame::Offload& offload) {
  const LockGuard lock(queue_mutex_);
  return to_guest_.pop(out, offload);
}

// ---- Of either, with the lock held ----

void TunnelLink::transmit(const tunnel::Endpoint& to, ByteSpan datagram) {
  const SocketAddress address = to_socket(to, is_ipv6_);
  // A full socket and a host without a way there lose it, as networks do.
  const ssize_t sent = ::sendto(socket_.get(), datagram.data(), datagram.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                                reinterpret_cast<const sockaddr*>(&address.bytes), address.size);
  if (sent < 0) ++unsent_;
}

void TunnelLink::deliver(ByteSpan frame) {
  has_news_ = true;
  const LockGuard lock(queue_mutex_);
  if (!to_guest_.push(frame)) ++dropped_;
}

std::string TunnelLink::describe() {
  const LockGuard lock(mutex_);
  std::string text = fmt::format("at {}, ", local_.to_string()) + tunnel_->describe(now());
  if (unsent_ != 0) text += fmt::format("{:>12}  datagrams that the host did not send\n", unsent_.load());
  if (dropped_ != 0) text += fmt::format("{:>12}  frames that the switch did not fetch\n", dropped_.load());
  return text;
}

// ---- The thread ----

void TunnelLink::hear() {
  std::array<mmsghdr, kDatagramsATurn> messages{};
  std::array<iovec, kDatagramsATurn> parts{};
  std::array<sockaddr_storage, kDatagramsATurn> senders{};
  for (size_t i = 0; i < kDatagramsATurn; ++i) {
    parts[i] = {.iov_base = incoming_.data() + i * kDatagramRoom, .iov_len = kDatagramRoom};
    messages[i].msg_hdr.msg_name = &senders[i];
    messages[i].msg_hdr.msg_namelen = sizeof senders[i];
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  const int count = ::recvmmsg(socket_.get(), messages.data(), kDatagramsATurn, MSG_DONTWAIT, nullptr);
  for (int i = 0; i < count; ++i) {
    // Between two of them the other thread may seal.
    const LockGuard lock(mutex_);
    const MutableByteSpan datagram = MutableByteSpan(incoming_).subspan(i * kDatagramRoom, messages[i].msg_len);
    tunnel_->receive(from_socket(senders[i]), datagram, now(), *this);
  }
  if (std::exchange(has_news_, false)) bell_.ring();
}

void TunnelLink::tick() {
  {
    const LockGuard lock(mutex_);
    tunnel_->run_timers(now(), *this);
  }
  loop_->call_after(kTick, [this] { tick(); });
}

}  // namespace bulkhead::net::link
