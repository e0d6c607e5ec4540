#include <cerrno>
#include <cstring>

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "console/backends.h"
#include "support/log.h"

namespace bulkhead::console {
namespace {

class SocketBackend final : public Backend {
 public:
  SocketBackend(EventLoop& loop, Fd listener, std::string path)
      : Backend(loop, Absence::kKeepLatest), listener_(std::move(listener)), path_(std::move(path)) {}
  ~SocketBackend() override {
    loop_.unwatch(listener_.get());
    detach();
    ::unlink(path_.c_str());
  }
  Result<> listen() {
    return loop_.watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept_client(); });
  }
  [[nodiscard]] std::string notice() const override { return fmt::format("a serial line listens on {}", path_); }

 private:
  void accept_client() {
    Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    // A second client is closed at once: input from two would be mixed.
    if (!client.valid() || client_.valid()) return;
    client_ = std::move(client);
    attach(client_.get(), client_.get());
  }
  void on_hangup() override { client_.reset(); }

  Fd listener_, client_;
  std::string path_;
};

Result<sockaddr_un> socket_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail("socket '{}': the path has {} bytes, a socket's may have {}", path, path.size(),
                sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  return address;
}

// After a crash the socket's file stays behind and refuses connections.
bool nobody_listens(const sockaddr_un& address) {
  const Fd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
         errno == ECONNREFUSED;
}

}  // namespace

Result<std::unique_ptr<Backend>> open_socket_backend(const std::string& path, EventLoop& loop) {
  const sockaddr_un address = TRY(socket_address(path));
  Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!listener.valid()) return fail_errno(errno, "create a socket");
  const auto bind = [&] { return ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address); };
  int result = bind();
  if (result != 0 && errno == EADDRINUSE && nobody_listens(address)) {
    ::unlink(path.c_str());
    result = bind();
  }
  if (result != 0) return fail_errno(errno, "listen on socket '{}'", path);
  if (::listen(listener.get(), 4) != 0) return fail_errno(errno, "listen on socket '{}'", path);
  auto made = std::make_unique<SocketBackend>(loop, std::move(listener), path);
  TRY(made->listen());
  return made;
}

}  // namespace bulkhead::console
