// A listening Unix socket in an event loop, until it is destroyed, which takes its path away too. When the process or
// the host is out of descriptors it rests instead of asking again at once: whoever waits is taken later.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "support/log.h"
#include "support/loop/event_loop.h"

namespace bulkhead::net::server {

class Listener {
 public:
  static constexpr std::chrono::milliseconds kRest{100};

  // on_socket from the loop, once for each who comes.
  static Result<std::unique_ptr<Listener>> create(const std::string& path, EventLoop& loop,
                                                  std::function<void(Fd socket)> on_socket);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // Takes nobody for so long.
  void rest(std::chrono::nanoseconds duration);
  // How often there was no descriptor for who came.
  [[nodiscard]] uint64_t failures() const { return failures_; }

 private:
  Listener(std::string path, Fd socket, EventLoop& loop, std::function<void(Fd)> on_socket)
      : path_(std::move(path)), socket_(std::move(socket)), loop_(loop), on_socket_(std::move(on_socket)) {}
  void accept();

  const std::string path_;
  const Fd socket_;
  EventLoop& loop_;
  const std::function<void(Fd)> on_socket_;
  EventLoop::TimerId resting_ = 0;
  uint64_t failures_ = 0;
  log::RateLimit limit_;
};

}  // namespace bulkhead::net::server
