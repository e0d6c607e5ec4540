#include "plant/run/agent_line.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <sys/socket.h>
#include <sys/un.h>

namespace bulkhead::plant {
namespace {

// Nobody is waited for, not even one with too many at its door (errno is EAGAIN then).
Fd connect_now(const std::string& path) {
  sockaddr_un address{};
  if (path.size() >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return {};
  }
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid() || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    return socket;
  }
  const int error = errno;
  socket.reset();
  errno = error;
  return {};
}

}  // namespace

std::string agent_socket_of(const std::string& directory, std::string_view machine) {
  return fmt::format("{}/{}.agent", directory, machine);
}

AgentLine::State AgentLine::state() const {
  switch (talk_.stage()) {
    case AgentTalk::Stage::kEnded:
      return State::kEnded;
    case AgentTalk::Stage::kRefused:
      return State::kRefused;
    case AgentTalk::Stage::kAsked:
    case AgentTalk::Stage::kRuns:
      return socket_.valid() ? State::kTalking : State::kLost;
    case AgentTalk::Stage::kCalling:
      break;
  }
  if (!somebody_listens_) return State::kNobody;
  return turned_away_ ? State::kBusy : State::kCalling;
}

void AgentLine::poll(uint64_t now_ns, bool quiet) {
  const bool may_connect = talk_.stage() == AgentTalk::Stage::kCalling &&
                           (connected_ns_ == 0 || now_ns - connected_ns_ >= AgentTalk::kAgain_ns);
  if (!socket_.valid() && may_connect) {
    connected_ns_ = now_ns;
    socket_ = connect_now(path_);
    // One with too many at its door is busy, not away; so is one that has turned us away, until it is heard.
    if (!socket_.valid()) turned_away_ = errno == EAGAIN;
    somebody_listens_ = socket_.valid() || turned_away_;
    if (socket_.valid()) {
      heard_here_ = false;
      unsent_.clear();
      talk_.call_again();
    }
  }
  if (!quiet && socket_.valid()) receive(now_ns);
  if (socket_.valid()) send(now_ns);
}

void AgentLine::receive(uint64_t now_ns) {
  std::array<char, 4096> bytes;
  const ssize_t count = ::recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) {
    // Who is not alone at the line is let in and sent away at once.
    turned_away_ = !heard_here_;
    return socket_.reset();
  }
  heard_here_ = true;
  turned_away_ = false;
  talk_.receive({bytes.data(), static_cast<size_t>(count)}, now_ns);
}

void AgentLine::send(uint64_t now_ns) {
  if (unsent_.empty()) unsent_ = talk_.to_send(now_ns);
  if (unsent_.empty()) return;
  const ssize_t count = ::send(socket_.get(), unsent_.data(), unsent_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (count > 0) {
    unsent_.erase(0, static_cast<size_t>(count));
  } else if (errno != EAGAIN && errno != EINTR) {
    unsent_.clear();  // receive() finds out
  }
}

}  // namespace bulkhead::plant
