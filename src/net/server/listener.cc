#include "net/server/listener.h"

#include <cerrno>
#include <cstring>

#include <sys/socket.h>
#include <unistd.h>

#include "net/server/listen.h"

namespace bulkhead::net::server {

Result<std::unique_ptr<Listener>> Listener::create(const std::string& path, EventLoop& loop,
                                                   std::function<void(Fd)> on_socket) {
  Fd socket = TRY(listen_at(path));
  std::unique_ptr<Listener> made(new Listener(path, std::move(socket), loop, std::move(on_socket)));
  TRY(loop.watch(made->socket_.get(), EPOLLIN, [raw = made.get()](uint32_t) { raw->accept(); }));
  return made;
}

Listener::~Listener() {
  if (resting_ != 0) loop_.cancel(resting_);
  loop_.unwatch(socket_.get());
  ::unlink(path_.c_str());
}

void Listener::rest(std::chrono::nanoseconds duration) {
  if (resting_ != 0) loop_.cancel(resting_);
  loop_.set_events(socket_.get(), 0);
  resting_ = loop_.call_after(duration, [this] {
    resting_ = 0;
    loop_.set_events(socket_.get(), EPOLLIN);
  });
}

void Listener::accept() {
  Fd taken(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (taken.valid()) return on_socket_(std::move(taken));
  const int error = errno;
  // Whoever came has gone again.
  if (error == EAGAIN || error == ECONNABORTED || error == EINTR) return;
  ++failures_;
  if (limit_.allow()) log::warning("'{}': nobody can be let in: {}", path_, std::strerror(error));
  rest(kRest);
}

}  // namespace bulkhead::net::server
