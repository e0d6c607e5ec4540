// The signals that mean something to a VM process, as events of its loop: SIGTERM, SIGINT and SIGHUP press the guest's
// power button and, the second time, end the VM; SIGCONT makes the terminal raw again; SIGUSR1 asks for a checkpoint.
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
  // Called on the loop's thread.
  struct Handlers {
    std::function<void()> on_shut_down, on_continued, on_checkpoint;
  };
  static Result<std::unique_ptr<Signals>> create(EventLoop& loop, Handlers handlers);
  // When the loop does not run, or on its thread.
  ~Signals();

 private:
  Signals(EventLoop& loop, Fd fd, Handlers handlers)
      : loop_(loop), fd_(std::move(fd)), handlers_(std::move(handlers)) {}
  void receive();

  EventLoop& loop_;
  Fd fd_;
  const Handlers handlers_;
};

}  // namespace bulkhead::vmm
