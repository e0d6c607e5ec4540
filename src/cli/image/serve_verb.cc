// "bulkhead image serve": an image as an NBD export, for one host's programs or, without any protection, for a
// network's.
#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <memory>

#include <netdb.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/format/image_disk.h"
#include "block/nbd/server.h"
#include "cli/image/image_verb.h"
#include "net/server/listen.h"

namespace bulkhead::cli {
namespace {

constexpr int kBacklog = 16;

// ADDR:PORT in numbers, an IPv6 address in brackets.
Result<Fd> listen_on(const std::string& text) {
  const size_t colon = text.rfind(':');
  std::string host = text.substr(0, std::min(colon, text.size()));
  const std::string port = colon == std::string::npos ? "" : text.substr(colon + 1);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (host.empty() || port.empty() || error != std::errc() || end != port.data() + port.size() ||
      ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) {
    return fail("--listen '{}': ADDR:PORT in numbers, as 127.0.0.1:10809 or [::1]:10809", text);
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, &::freeaddrinfo);
  Fd socket(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (!socket.valid() || ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(socket.get(), found->ai_addr, found->ai_addrlen) != 0 || ::listen(socket.get(), kBacklog) != 0) {
    return fail_errno(errno, "--listen '{}'", text);
  }
  return socket;
}

// Where it listens, with the port that the host has chosen when 0 was stated.
Result<std::string> place_of(const Fd& listener) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return fail("the address of the listening socket");
  }
  return address.ss_family == AF_INET6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

// Readable when somebody wants the process to end. Threads that begin later have the signals blocked too.
Result<Fd> watch_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  if (::pthread_sigmask(SIG_BLOCK, &signals, nullptr) != 0) return fail("signals cannot be blocked");
  Fd ends(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!ends.valid()) return fail_errno(errno, "signals");
  return ends;
}

}  // namespace

Result<int> ImageVerb::serve() {
  if (socket_.empty() == listen_.empty()) return fail("serve '{}': --socket PATH or --listen ADDR:PORT", file_);
  if (export_.size() > block::nbd::kMaximumNameBytes) return fail("--export: a name of {} bytes", export_.size());
  if (!read_only_) TRY(must_state_format("serve"));
  const Fd ends = TRY(watch_signals());
  auto image = TRY(open(file_, format_, read_only_ ? block::Access::kReadOnly : block::Access::kReadWrite));
  if (image->geometry().size == 0) return fail("serve '{}': the disk has no bytes", file_);
  block::Image& behind = *image;
  block::ImageDisk disk(std::move(image));
  const block::nbd::Export served{.name = export_, .disk = disk, .image = behind, .read_only = read_only_};
  const Fd listener = TRY(socket_.empty() ? listen_on(listen_) : net::server::listen_at(socket_));
  print(socket_.empty() ? fmt::format("nbd://{}/{}\n", TRY(place_of(listener)), export_)
                        : fmt::format("nbd+unix:///{}?socket={}\n", export_, socket_));
  std::fflush(stdout);
  block::nbd::Server server(listener, served);
  auto ended = server.run(ends.get());
  if (!socket_.empty()) ::unlink(socket_.c_str());
  TRY(std::move(ended));
  // Whoever did not flush was promised nothing, and gets it all the same.
  if (!read_only_) {
    if (const auto status = behind.flush(); status != block::Status::kOk) {
      return fail("flush '{}': {}", file_, to_string(status));
    }
  }
  return 0;
}

}  // namespace bulkhead::cli
