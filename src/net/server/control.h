// A control socket: a line asks, text answers, the connection ends. Whoever says nothing is not waited for, and when
// there is no place the one that came first gives way, so that nobody can keep the others out.
#pragma once

#include <chrono>
#include <list>
#include <string_view>

#include "net/server/listener.h"

namespace bulkhead::net::server {

class Control {
 public:
  static constexpr size_t kMaximumQuestions = 16;
  static constexpr size_t kMaximumLine = 1024;
  // Bytes that a socket takes at once wherever this runs (net.core.wmem_default is 208 KiB); of more the end is cut
  // off.
  static constexpr size_t kMaximumAnswer = size_t{128} << 10;
  static constexpr std::chrono::seconds kPatience{5};

  // reply from the loop: the answer to a line, which comes without its end.
  static Result<std::unique_ptr<Control>> create(const std::string& path, EventLoop& loop,
                                                 std::function<std::string(std::string_view line)> reply,
                                                 std::chrono::nanoseconds patience = kPatience);

  // Asked before reply, from the loop: takes the connection over with what came behind the line, and answers itself; or
  // leaves the socket where it is.
  std::function<void(std::string_view line, std::string_view behind, Fd& socket)> on_take_over;

  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

 private:
  struct Question {
    Fd socket;
    std::string line;
    EventLoop::TimerId timer = 0;
  };
  using Place = std::list<Question>::iterator;

  Control(EventLoop& loop, std::function<std::string(std::string_view)> reply, std::chrono::nanoseconds patience)
      : loop_(loop), reply_(std::move(reply)), patience_(patience) {}
  void take(Fd socket);
  void hear(Place question);
  void end(Place question);

  EventLoop& loop_;
  const std::function<std::string(std::string_view)> reply_;
  const std::chrono::nanoseconds patience_;
  std::list<Question> questions_;  // the oldest first
  std::unique_ptr<Listener> listener_;
};

}  // namespace bulkhead::net::server
