#include "vmm/gdb/server.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/loop/event_loop.h"
#include "support/os/fd.h"
#include "support/os/thread.h"
#include "vmm/gdb/packet.h"
#include "vmm/gdb/session.h"
#include "vmm/gdb/vm_target.h"
#include "vmm/vm.h"

namespace bulkhead::vmm::gdb {
namespace {

Result<Fd> listen_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail("the path has {} bytes, a socket's may have {}", path.size(), sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd.get(), 1) != 0) {
    return fail_errno(errno, "listen");
  }
  return fd;
}

Result<Fd> listen_tcp(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return fail("allowed: HOST:PORT, or a socket's path with a '/' in it");
  const std::string host = text.substr(0, colon);
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  // No host means this machine only: a debugger owns the guest.
  const int error = ::getaddrinfo(host.empty() ? "localhost" : host.c_str(), text.c_str() + colon + 1, &hints, &found);
  if (error != 0) return fail("{}", ::gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
  Fd fd(::socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, found->ai_protocol));
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0 || ::listen(fd.get(), 1) != 0) {
    return fail_errno(errno, "listen");
  }
  return fd;
}

}  // namespace

class Server::Connection {
 public:
  Connection(Fd fd, Vm& vm) : fd_(std::move(fd)), target_(vm), session_(target_) {}
  ~Connection() { target_.let_go(); }

  [[nodiscard]] int fd() const { return fd_.get(); }

  // False when the debugger has left.
  bool receive() {
    std::array<uint8_t, 4096> buffer;
    const ssize_t count = ::read(fd_.get(), buffer.data(), buffer.size());
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (count <= 0) return false;
    for (const Input& input : reader_.feed(ByteSpan(buffer).first(static_cast<size_t>(count)))) {
      if (!answer(input)) return false;
    }
    return true;
  }
  void stopped(uint32_t vcpu) {
    if (const auto reply = session_.stopped(vcpu)) send(frame(*reply));
  }
  void exited(int status) { send(frame(fmt::format("W{:02x}", status & 0xFF))); }

 private:
  bool answer(const Input& input) {
    if (input.kind == Input::Kind::kInterrupt) {
      if (const auto reply = session_.interrupt()) send(frame(*reply));
      return true;
    }
    if (session_.acknowledges()) send(input.kind == Input::Kind::kBadPacket ? "-" : "+");
    if (input.kind == Input::Kind::kBadPacket) return true;
    const Session::Reply reply = session_.handle(input.data);
    if (reply.packet) send(frame(*reply.packet));
    return !reply.close;
  }
  // The socket blocks for writing: answers are short, and this thread serves nobody else.
  void send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t count = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return;
      text.remove_prefix(static_cast<size_t>(count));
    }
  }

  Fd fd_;
  VmTarget target_;
  Session session_;
  PacketReader reader_;
};

class Server::Listener {
 public:
  Listener(std::unique_ptr<EventLoop> loop, Fd fd, std::string path, Vm& vm)
      : loop_(std::move(loop)), fd_(std::move(fd)), path_(std::move(path)), vm_(vm) {}
  ~Listener() {
    vm_.driver().set_debug_listener({});
    loop_->stop();
    thread_.join();
    connection_.reset();
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  Result<> start() {
    TRY(loop_->watch(fd_.get(), EPOLLIN, [this](uint32_t) { accept(); }));
    vm_.driver().hold(StateDriver::Holder::kDebugger);
    vm_.driver().set_debug_listener([this](uint32_t vcpu) {
      [[maybe_unused]] const bool posted = loop_->post([this, vcpu] {
        if (connection_) connection_->stopped(vcpu);
      });
    });
    thread_ = Thread("gdb", [this] { loop_->run(); });
    return {};
  }
  void finish(int status) {
    [[maybe_unused]] const bool posted = loop_->post([this, status] {
      if (connection_) connection_->exited(status);
    });
  }

 private:
  void accept() {
    Fd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd.valid() || connection_) return;
    const int on = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    vm_.driver().hold(StateDriver::Holder::kDebugger);
    connection_ = std::make_unique<Connection>(std::move(fd), vm_);
    const int number = connection_->fd();
    const auto watched = loop_->watch(number, EPOLLIN, [this, number](uint32_t) {
      if (connection_->receive()) return;
      loop_->unwatch(number);
      connection_.reset();
    });
    if (!watched) connection_.reset();
  }

  std::unique_ptr<EventLoop> loop_;
  Fd fd_;
  std::string path_;
  Vm& vm_;
  std::unique_ptr<Connection> connection_;
  Thread thread_;
};

Server::Server(std::unique_ptr<Listener> listener) : listener_(std::move(listener)) {}
Server::~Server() = default;

void Server::finish(const Outcome& outcome) {
  listener_->finish(outcome.exit_status());
}

Result<std::unique_ptr<Server>> Server::create(const std::string& address, Vm& vm) {
  const bool is_path = address.find('/') != std::string::npos;
  Fd fd = TRY(is_path ? listen_unix(address) : listen_tcp(address));
  auto listener =
      std::make_unique<Listener>(TRY(EventLoop::create()), std::move(fd), is_path ? address : std::string(), vm);
  TRY(listener->start());
  return std::unique_ptr<Server>(new Server(std::move(listener)));
}

}  // namespace bulkhead::vmm::gdb
