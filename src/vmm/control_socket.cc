#include "vmm/control_socket.h"

#include <charconv>

#include <sys/socket.h>
#include <unistd.h>

#include "net/server/listen.h"
#include "vmm/vm.h"

namespace bulkhead::vmm {

Result<std::unique_ptr<ControlSocket>> ControlSocket::create(const std::string& path, Vm& vm) {
  Fd listener = TRY(net::server::listen_at(path));
  std::unique_ptr<ControlSocket> made(new ControlSocket(path, std::move(listener), vm));
  TRY(vm.loop().watch(made->listener_.get(), EPOLLIN, [socket = made.get()](uint32_t) { socket->accept(); }));
  return made;
}

ControlSocket::~ControlSocket() {
  for (const auto& [fd, client] : clients_) vm_.loop().unwatch(fd);
  vm_.loop().unwatch(listener_.get());
  ::unlink(path_.c_str());
}

void ControlSocket::accept() {
  Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket.valid() || clients_.size() >= kMaximumClients) return;
  const int fd = socket.get();
  if (!vm_.loop().watch(fd, EPOLLIN, [this, fd](uint32_t) { on_client(fd); })) return;
  clients_.emplace(fd, std::pair(std::move(socket), std::string()));
}

// Line after line, until the client goes or says too much.
void ControlSocket::on_client(int fd) {
  std::string& text = clients_.at(fd).second;
  char bytes[512];
  const ssize_t count = ::recv(fd, bytes, sizeof bytes, 0);
  if (count < 0 && errno == EAGAIN) return;
  bool goes_on = count > 0 && text.size() + static_cast<size_t>(count) <= kMaximumQuestion;
  if (goes_on) text.append(bytes, static_cast<size_t>(count));
  for (size_t end = 0; goes_on && (end = text.find('\n')) != std::string::npos; text.erase(0, end + 1)) {
    const std::string reply = answer(std::string_view(text).substr(0, end)) + "\n";
    // A client that does not read its answers has no use for more of them.
    goes_on = ::send(fd, reply.data(), reply.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(reply.size());
  }
  if (goes_on) return;
  vm_.loop().unwatch(fd);
  clients_.erase(fd);
}

std::string ControlSocket::answer(std::string_view line) {
  if (line == "status") return vm_.status();
  if (line.starts_with("disk ")) return vm_.disk_jobs().answer(line.substr(5));
  if (line == "pause") {
    vm_.driver().pause();
  } else if (line == "resume") {
    vm_.driver().resume();
  } else if (line == "power-button") {
    vm_.driver().press_power_button();
  } else if (line == "quit") {
    vm_.driver().quit();
  } else if (line.starts_with("link ")) {
    return plug(line.substr(5));
  } else {
    return fmt::format(
        "error: '{}'; allowed: status, disk, pause, resume, power-button, quit, link CARD up or link CARD down", line);
  }
  return "done";
}

// "0 down"
std::string ControlSocket::plug(std::string_view words) {
  size_t card = 0;
  const auto [end, error] = std::from_chars(words.data(), words.data() + words.size(), card);
  const std::string_view state(end, static_cast<size_t>(words.data() + words.size() - end));
  if (error != std::errc() || (state != " up" && state != " down")) {
    return fmt::format("error: link '{}'; a card's number, then up or down", words);
  }
  return vm_.plug_card(card, state == " up") ? "done" : fmt::format("error: no network card {}", card);
}

}  // namespace bulkhead::vmm
