// Where the queues of one device are worked on: everything that touches a ring or a model's state happens there, one
// piece after another, so that neither needs a lock. A thread of its own in a running machine; driven by hand in tests.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "support/loop/event_loop.h"
#include "support/os/fd.h"
#include "support/os/mutex.h"
#include "support/os/thread.h"
#include "support/result.h"

namespace bulkhead::device::virtio {

class Worker {
 public:
  virtual ~Worker() = default;
  // Before start(): callback runs on the worker each time the event was signalled. The event outlives the worker.
  virtual Result<> watch(EventFd& event, std::function<void()> callback) = 0;
  virtual void start() = 0;
  // Runs work on the worker and returns when it is done. Not from the worker itself; hold no lock.
  virtual void run_and_wait(std::function<void()> work) = 0;
  // Runs work on the caller's thread while the worker stands still, and returns true; false when the worker is busy or
  // takes no help. Not from the worker itself; what the worker's callbacks lock must not be held.
  virtual bool try_run(const std::function<void()>& /*work*/) { return false; }
  // Returns when the condition, asked on the worker after each of its callbacks, has become true.
  virtual void wait_until(std::function<bool()> condition) = 0;
};

class ThreadWorker final : public Worker {
 public:
  // The name is the thread's.
  static Result<std::unique_ptr<ThreadWorker>> create(std::string name);
  ~ThreadWorker() override;

  Result<> watch(EventFd& event, std::function<void()> callback) override;
  void start() override;
  void run_and_wait(std::function<void()> work) override;
  bool try_run(const std::function<void()>& work) override;
  void wait_until(std::function<bool()> condition) override;

 private:
  struct Waiter {
    std::function<bool()> condition;
    bool* done;
  };
  ThreadWorker(std::string name, std::unique_ptr<EventLoop> loop) : name_(std::move(name)), loop_(std::move(loop)) {}
  void ask_waiters() REQUIRES(turn_);

  const std::string name_;
  std::unique_ptr<EventLoop> loop_;
  // Of who is at work: this thread, or one that helps it.
  Mutex turn_;
  std::vector<Waiter> waiters_ GUARDED_BY(turn_);
  Mutex mutex_;
  ConditionVariable done_;
  Thread thread_;
};

}  // namespace bulkhead::device::virtio
