// One thread's event loop over epoll: descriptors, one-shot timers in host time, and work posted by other threads. A
// callback must never block: console back ends, the debugger's socket and signals all live in the same loop.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>

#include <sys/epoll.h>

#include "support/os/fd.h"
#include "support/os/mutex.h"
#include "support/result.h"

namespace bulkhead {

class EventLoop {
 public:
  // Work posted and not yet run; post() refuses more, so a producer that the loop cannot follow notices.
  static constexpr size_t kMaximumPosted = 65536;
  using TimePoint = std::chrono::steady_clock::time_point;

  static Result<std::unique_ptr<EventLoop>> create();
  ~EventLoop();

  // Runs callbacks on the calling thread until stop(), which may come first and from any thread.
  void run();
  void stop();
  // Before run(): its thread asks for events for at most so long before it sleeps (support/os/busy_poll.h).
  void set_busy_poll(std::chrono::nanoseconds longest) { busy_poll_ = longest; }

  // From any thread: runs once on the loop's thread, in the order of posting. False when kMaximumPosted wait already.
  [[nodiscard]] bool post(std::function<void()> work);

  // The following only on the loop's thread, or before run().

  // events as in epoll (EPOLLIN, EPOLLOUT, level-triggered). A descriptor is watched once; it must stay open meanwhile.
  Result<> watch(int fd, uint32_t events, std::function<void(uint32_t events)> on_ready);
  void set_events(int fd, uint32_t events);
  // No callback of this descriptor runs after unwatch() returns, even one already reported by the kernel.
  void unwatch(int fd);

  using TimerId = uint64_t;
  TimerId call_at(TimePoint when, std::function<void()> callback);
  TimerId call_after(std::chrono::nanoseconds delay, std::function<void()> callback);
  void cancel(TimerId id);

 private:
  struct Watch {
    uint64_t generation;
    std::function<void(uint32_t)> on_ready;
  };
  EventLoop(Fd epoll, EventFd wake) : epoll_(std::move(epoll)), wake_(std::move(wake)) {}
  void run_posted();
  void run_timers();
  [[nodiscard]] int timeout_ms() const;

  Fd epoll_;
  EventFd wake_;
  std::atomic<bool> stopping_{false};
  std::chrono::nanoseconds busy_poll_{0};

  Mutex mutex_;
  std::deque<std::function<void()>> posted_ GUARDED_BY(mutex_);

  std::unordered_map<int, std::shared_ptr<Watch>> watches_;
  uint64_t next_generation_ = 1;
  std::map<std::pair<TimePoint, TimerId>, std::function<void()>> timers_;
  std::unordered_map<TimerId, TimePoint> timer_times_;
  TimerId next_timer_ = 1;
};

}  // namespace bulkhead
