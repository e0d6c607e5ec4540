#include "net/server/control.h"

#include <algorithm>
#include <cerrno>

#include <sys/socket.h>

namespace bulkhead::net::server {

Result<std::unique_ptr<Control>> Control::create(const std::string& path, EventLoop& loop,
                                                 std::function<std::string(std::string_view)> reply,
                                                 std::chrono::nanoseconds patience) {
  std::unique_ptr<Control> made(new Control(loop, std::move(reply), patience));
  made->listener_ = TRY(Listener::create(path, loop, [raw = made.get()](Fd socket) { raw->take(std::move(socket)); }));
  return made;
}

Control::~Control() {
  listener_.reset();
  while (!questions_.empty()) end(questions_.begin());
}

void Control::take(Fd socket) {
  if (questions_.size() >= kMaximumQuestions) end(questions_.begin());
  const Place question = questions_.insert(questions_.end(), {.socket = std::move(socket), .line = {}});
  if (!loop_.watch(question->socket.get(), EPOLLIN, [this, question](uint32_t) { hear(question); })) {
    questions_.erase(question);
    return;
  }
  question->timer = loop_.call_after(patience_, [this, question] { end(question); });
}

void Control::hear(Place question) {
  const int fd = question->socket.get();
  std::string& line = question->line;
  char bytes[256];
  const ssize_t count = ::recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
  if (count < 0 && errno == EAGAIN) return;
  if (count > 0) {
    line.append(bytes, static_cast<size_t>(count));
    if (line.find('\n') == std::string::npos && line.size() < kMaximumLine) return;
    const size_t size = std::min(line.find('\n'), line.size());
    const std::string_view asked = std::string_view(line).substr(0, size);
    if (on_take_over) {
      // Whoever takes it over watches it.
      loop_.unwatch(fd);
      on_take_over(asked, std::string_view(line).substr(std::min(size + 1, line.size())), question->socket);
      if (!question->socket.valid()) return end(question);
    }
    const std::string answer = reply_(asked);
    // What the socket does not take at once is cut off; its buffer holds a few hundred kilobytes.
    const int buffer_bytes = 1 << 20;
    (void)::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof buffer_bytes);
    (void)!::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  end(question);
}

void Control::end(Place question) {
  loop_.cancel(question->timer);
  if (question->socket.valid()) loop_.unwatch(question->socket.get());
  questions_.erase(question);
}

}  // namespace bulkhead::net::server
