#include "net/link/nat.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <filesystem>

#include <arpa/inet.h>
#include <slirp/libslirp.h>

#include "net/frame/protocol.h"

namespace bulkhead::net::link {
namespace {

constexpr int64_t kNanosecondsPerMillisecond = 1'000'000;
constexpr std::string_view kNetwork = "10.0.2.0", kMask = "255.255.255.0", kGateway = "10.0.2.2", kNames = "10.0.2.3",
                           kGuest = "10.0.2.15";
constexpr size_t kMtu = 1500;
// Frames given to libslirp in one turn, before its sockets have theirs.
constexpr size_t kFramesATurn = 256;

in_addr address_of(const frame::IpAddress& address) {
  in_addr made{};
  std::memcpy(&made, address.bytes.data(), sizeof made);
  return made;
}

in_addr address_of(std::string_view text) {
  in_addr address{};
  ::inet_pton(AF_INET, std::string(text).c_str(), &address);
  return address;
}

int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}

}  // namespace

// What libslirp calls, on the thread that called it.
struct NatLink::Callbacks {
  static NatLink& link(void* opaque) { return *static_cast<NatLink*>(opaque); }

  static ssize_t send_packet(const void* bytes, size_t size, void* opaque) {
    NatLink& self = link(opaque);
    const LockGuard lock(self.mutex_);
    if (!self.to_guest_.push({static_cast<const uint8_t*>(bytes), size})) ++self.dropped_;
    self.has_news_ = true;
    return static_cast<ssize_t>(size);
  }
  static void guest_error(const char* message, void* opaque) {
    if (link(opaque).error_limit_.allow()) log::warning("nat: {}", message);
  }
  static int64_t clock_get_ns(void* /*opaque*/) { return now_ns(); }
  static void* timer_new(SlirpTimerCb expired, void* timer_opaque, void* opaque) {
    auto& timers = link(opaque).timers_;
    timers.push_back(std::make_unique<NatTimer>(NatTimer{expired, timer_opaque, INT64_MAX}));
    return timers.back().get();
  }
  static void timer_free(void* timer, void* opaque) {
    std::erase_if(link(opaque).timers_, [timer](const auto& each) { return each.get() == timer; });
  }
  static void timer_mod(void* timer, int64_t deadline_ms, void* /*opaque*/) {
    static_cast<NatTimer*>(timer)->deadline_ms = deadline_ms;
  }
  static void register_poll_fd(int /*fd*/, void* /*opaque*/) {}
  static void notify(void* opaque) { link(opaque).wake_.signal(); }

  static int add_poll(int fd, int events, void* opaque) {
    short wanted = 0;
    if ((events & SLIRP_POLL_IN) != 0) wanted |= POLLIN;
    if ((events & SLIRP_POLL_OUT) != 0) wanted |= POLLOUT;
    if ((events & SLIRP_POLL_PRI) != 0) wanted |= POLLPRI;
    auto& fds = link(opaque).fds_;
    fds.push_back({.fd = fd, .events = wanted, .revents = 0});
    return static_cast<int>(fds.size() - 1);
  }
  static int get_events(int index, void* opaque) {
    const short events = link(opaque).fds_.at(static_cast<size_t>(index)).revents;
    int result = 0;
    if ((events & POLLIN) != 0) result |= SLIRP_POLL_IN;
    if ((events & POLLOUT) != 0) result |= SLIRP_POLL_OUT;
    if ((events & POLLPRI) != 0) result |= SLIRP_POLL_PRI;
    if ((events & POLLERR) != 0) result |= SLIRP_POLL_ERR;
    if ((events & POLLHUP) != 0) result |= SLIRP_POLL_HUP;
    return result;
  }

  static constexpr SlirpCb table() {
    SlirpCb callbacks{};
    callbacks.send_packet = send_packet;
    callbacks.guest_error = guest_error;
    callbacks.clock_get_ns = clock_get_ns;
    callbacks.timer_new = timer_new;
    callbacks.timer_free = timer_free;
    callbacks.timer_mod = timer_mod;
    callbacks.register_poll_fd = register_poll_fd;
    callbacks.unregister_poll_fd = register_poll_fd;
    callbacks.notify = notify;
    return callbacks;
  }
};

Confinement NatLink::needs() {
  // Sockets for the guests' connections; the host's name servers are looked up again and again. The rest is for the
  // card's listener, which may wake other threads or a hypervisor of the host.
  return {
      .removable_in = {},
      .readable = readable_for("/etc/resolv.conf"),
      .calls = {"socket", "connect", "bind", "listen", "accept", "accept4", "shutdown", "sendto", "sendmsg", "recvfrom",
                "recvmsg", "setsockopt", "getsockopt", "getsockname", "getpeername", "ioctl", "openat", "stat"}};
}

std::vector<std::string> NatLink::readable_for(const std::string& file) {
  namespace fs = std::filesystem;
  std::error_code no_folder, no_target;
  const fs::path folder = fs::canonical(fs::path(file).parent_path(), no_folder);
  const fs::path target_folder = fs::canonical(file, no_target).parent_path();
  if (no_folder || no_target || target_folder == folder) return {file};
  return {file, target_folder.string()};
}

Result<std::unique_ptr<Link>> NatLink::create(const LinkConfig& config, Confined confined) {
  std::unique_ptr<NatLink> link(new NatLink(TRY(EventFd::create())));
  TRY(link->start(config, confined));
  return link;
}

Result<> NatLink::start(const LinkConfig& config, Confined confined) {
  static constexpr SlirpCb kCallbacks = Callbacks::table();
  SlirpConfig settings{};
  settings.version = 1;
  settings.in_enabled = true;
  settings.vnetwork = address_of(kNetwork);
  settings.vnetmask = address_of(kMask);
  settings.vhost = address_of(kGateway);
  settings.vdhcp_start = address_of(kGuest);
  settings.vnameserver = address_of(kNames);
  if (config.network) {
    settings.vnetwork = address_of(config.network->address);
    settings.vnetmask.s_addr = htonl(~uint32_t{0} << (32 - config.network->length));
    settings.vhost = address_of(config.gateway);
    settings.vnameserver = address_of(config.names);
    // Guests of such a network have addresses of their own; whoever asks gets those at its end.
    settings.vdhcp_start.s_addr = settings.vnetwork.s_addr | (~settings.vnetmask.s_addr & htonl(~uint32_t{0x1F}));
  }
  settings.if_mtu = kMtu;
  settings.if_mru = kMtu;
  settings.disable_host_loopback = !config.reach_host;
  slirp_ = ::slirp_new(&settings, &kCallbacks, this);
  if (slirp_ == nullptr) return fail("nat: libslirp refused its configuration");
  for (const Forward& forward : config.forwards) TRY(add_forward(forward));
  thread_ = Thread("nat", [this, confined] {
    if (confined == Confined::kThread) give_up();
    work();
  });
  return {};
}

Result<> NatLink::add_forward(const Forward& forward) {
  errno = 0;
  if (::slirp_add_hostfwd(slirp_, forward.udp ? 1 : 0, address_of(forward.address), forward.host_port,
                          address_of(forward.guest.empty() ? kGuest : forward.guest), forward.guest_port) != 0) {
    return fail_errno(errno, "forward {}:{}:{}", forward.udp ? "udp" : "tcp", forward.address, forward.host_port);
  }
  return {};
}

NatLink::~NatLink() {
  stopping_ = true;
  wake_.signal();
  thread_.join();
  if (slirp_ != nullptr) ::slirp_cleanup(slirp_);
}

// ---- From the card's thread ----

Sent NatLink::send(ByteSpan frame, const frame::Offload& offload) {
  {
    const LockGuard lock(mutex_);
    if (!from_guest_.push(frame, offload)) {
      wants_room_ = true;
      return Sent::kNoRoom;
    }
  }
  wake_.signal();
  return Sent::kDone;
}

size_t NatLink::receive(MutableByteSpan out, frame::Offload& offload) {
  const LockGuard lock(mutex_);
  return to_guest_.pop(out, offload);
}

// ---- The thread ----

void NatLink::give_up() {
  const auto missing = confine(needs());
  if (!missing) return log::warning("nat: not confined: {}", missing.error().message);
  for (const std::string& each : *missing) log::warning("nat: not confined: {}", each);
}

void NatLink::feed() {
  std::array<uint8_t, frame::kMaximumFrameSize> frame;
  for (size_t count = 0; count < kFramesATurn; ++count) {
    size_t size = 0;
    frame::Offload offload;
    {
      const LockGuard lock(mutex_);
      size = from_guest_.pop(frame, offload);
    }
    if (size == 0) break;
    const MutableByteSpan whole = MutableByteSpan(frame).first(size);
    const auto input = [this](ByteSpan piece) {
      ::slirp_input(slirp_, piece.data(), static_cast<int>(piece.size()));
      return true;
    };
    if (offload.segmentation == frame::Segmentation::kUdp) {
      // Each of the datagrams is one for its receiver too.
      frame::for_each_piece(whole, offload, input);
    } else {
      // A stream has no pieces at the far side of libslirp, which takes packets of any size.
      frame::complete(whole, offload);
      (void)input(whole);
    }
  }
  const LockGuard lock(mutex_);
  has_news_ |= std::exchange(wants_room_, false);
  // The rest has its turn after the sockets.
  if (!from_guest_.empty()) wake_.signal();
}

void NatLink::run_timers() {
  const int64_t now_ms = now_ns() / kNanosecondsPerMillisecond;
  for (size_t i = 0; i < timers_.size(); ++i) {
    if (timers_[i]->deadline_ms > now_ms) continue;
    timers_[i]->deadline_ms = INT64_MAX;
    timers_[i]->expired(timers_[i]->opaque);
  }
}

int NatLink::wait_ms(uint32_t slirp_ms) const {
  int64_t wait = std::min<int64_t>(slirp_ms, INT32_MAX);
  const int64_t now_ms = now_ns() / kNanosecondsPerMillisecond;
  for (const auto& timer : timers_) wait = std::min(wait, std::max<int64_t>(timer->deadline_ms - now_ms, 0));
  return slirp_ms == UINT32_MAX && wait == INT32_MAX ? -1 : static_cast<int>(wait);
}

void NatLink::work() {
  while (!stopping_) {
    fds_.assign(1, {.fd = wake_.fd(), .events = POLLIN, .revents = 0});
    uint32_t slirp_ms = UINT32_MAX;
    ::slirp_pollfds_fill(slirp_, &slirp_ms, Callbacks::add_poll, this);
    const int ready = ::poll(fds_.data(), fds_.size(), wait_ms(slirp_ms));
    (void)wake_.take();
    ::slirp_pollfds_poll(slirp_, ready < 0 ? 1 : 0, Callbacks::get_events, this);
    run_timers();
    feed();
    if (std::exchange(has_news_, false)) bell_.ring();
  }
}

}  // namespace bulkhead::net::link
