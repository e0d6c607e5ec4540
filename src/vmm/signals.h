// The signals that mean something to a VM process, as events of its loop: SIGTERM, SIGINT and SIGHUP press the guest's
// power button and, the second time, end the VM; SIGCONT makes the terminal raw again.
#pragma once

#include <functional>
#include <memory>

#include "support/loop/event_loop.h"
#include "support/os/fd.h"
#include "support/result.h"

namespace bulkhead::vmm {

// Keeps these signals from the threads made afterwards and ignores SIGPIPE: first thing in main().
void block_signals();

class Signals {
 public:
  // Both are called on the loop's thread.
  static Result<std::unique_ptr<Signals>> create(EventLoop& loop, std::function<void()> on_shut_down,
                                                 std::function<void()> on_continued);
  // When the loop does not run, or on its thread.
  ~Signals();

 private:
  Signals(EventLoop& loop, Fd fd, std::function<void()> on_shut_down, std::function<void()> on_continued)
      : loop_(loop), fd_(std::move(fd)), on_shut_down_(std::move(on_shut_down)), on_continued_(std::move(on_continued)) {}
  void receive();

  EventLoop& loop_;
  Fd fd_;
  std::function<void()> on_shut_down_;
  std::function<void()> on_continued_;
};

}  // namespace bulkhead::vmm
