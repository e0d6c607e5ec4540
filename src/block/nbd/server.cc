#include "block/nbd/server.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <system_error>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "support/log.h"

namespace bulkhead::block::nbd {
namespace {

constexpr int kNegotiation_ms = 30'000, kRest_ms = 60'000, kBetweenLooks_ms = 200;

uint64_t now_ms() {
  using namespace std::chrono;
  return static_cast<uint64_t>(duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count());
}

}  // namespace

SocketChannel::SocketChannel(Fd socket) : socket_(std::move(socket)), begun_ms_(now_ms()) {
  // Neither is known to a Unix socket, which needs neither.
  const int on = 1;
  (void)::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  (void)::setsockopt(socket_.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

bool SocketChannel::give_up() {
  ::shutdown(socket_.get(), SHUT_RDWR);
  return false;
}

void SocketChannel::stop_reading() {
  stopped_.store(true);
  ::shutdown(socket_.get(), SHUT_RD);
}

int SocketChannel::patience_ms(Wait wait, bool begun) const {
  if (wait == Wait::kRequest && !begun) return -1;
  if (wait != Wait::kNegotiation) return kRest_ms;
  const uint64_t gone = now_ms() - begun_ms_;
  return gone >= kNegotiation_ms ? 0 : static_cast<int>(kNegotiation_ms - gone);
}

bool SocketChannel::wait_until_ready(short event, int timeout_ms) {
  pollfd entry{.fd = socket_.get(), .events = event, .revents = 0};
  int count = 0;
  do {
    count = ::poll(&entry, 1, timeout_ms);
  } while (count < 0 && errno == EINTR);
  return count > 0;
}

bool SocketChannel::read(MutableByteSpan bytes, Wait wait) {
  for (bool begun = false; !bytes.empty();) {
    if (stopped_.load() && !begun && wait != Wait::kRest) return false;
    const ssize_t count = ::recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (count > 0) {
      bytes = bytes.subspan(static_cast<size_t>(count));
      begun = true;
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR) ||
               (errno == EAGAIN && !wait_until_ready(POLLIN, patience_ms(wait, begun)))) {
      // Who has only ended what it says may still want its answers.
      return count == 0 ? false : give_up();
    }
  }
  return true;
}

bool SocketChannel::write(ByteSpan head, ByteSpan tail) {
  while (!head.empty() || !tail.empty()) {
    std::array<iovec, 2> pieces{};
    size_t used = 0;
    for (const ByteSpan piece : {head, tail}) {
      if (!piece.empty()) pieces[used++] = {.iov_base = const_cast<uint8_t*>(piece.data()), .iov_len = piece.size()};
    }
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = used;
    const ssize_t count = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno != EAGAIN || !wait_until_ready(POLLOUT, kRest_ms))) return give_up();
    if (count < 0) continue;
    const auto of_head = std::min(static_cast<size_t>(count), head.size());
    head = head.subspan(of_head);
    tail = tail.subspan(static_cast<size_t>(count) - of_head);
  }
  return true;
}

// False when the host has no room for another.
bool Server::accept() {
  Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket.valid()) return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
  auto client = std::make_unique<Client>(std::move(socket), export_);
  try {
    client->thread = Thread("nbd-client", [behind = client.get()] {
      try {
        behind->session.run();
      } catch (const std::system_error& error) {
        log::warning("NBD client: {}", error.what());
      }
      behind->ended.store(true);
    });
  } catch (const std::system_error& error) {
    log::warning("NBD client: {}", error.what());
    return false;
  }
  clients_.push_back(std::move(client));
  return true;
}

Result<> Server::run(int stop) {
  for (;;) {
    std::erase_if(clients_, [](const auto& client) { return client->ended.load(); });
    // A client that has ended is looked for now and then.
    const bool full = clients_.size() >= kMaximumClients;
    std::array<pollfd, 2> entries{{{.fd = stop, .events = POLLIN, .revents = 0},
                                   {.fd = full ? -1 : listener_.get(), .events = POLLIN, .revents = 0}}};
    const int count = ::poll(entries.data(), entries.size(), clients_.empty() ? -1 : kBetweenLooks_ms);
    if (count < 0 && errno != EINTR) return fail_errno(errno, "wait for clients");
    if (count > 0 && entries[0].revents != 0) break;
    if (count > 0 && entries[1].revents != 0 && !accept()) (void)::poll(entries.data(), 1, kBetweenLooks_ms);
  }
  for (const auto& client : clients_) client->channel.stop_reading();
  clients_.clear();
  return {};
}

}  // namespace bulkhead::block::nbd
