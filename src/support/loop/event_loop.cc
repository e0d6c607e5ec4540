#include "support/loop/event_loop.h"

#include <algorithm>
#include <array>

#include "support/check.h"
#include "support/os/busy_poll.h"

namespace bulkhead {
namespace {

// The upper half of epoll's user data guards against an event of a closed descriptor whose number was used again.
uint64_t pack(int fd, uint64_t generation) {
  return static_cast<uint32_t>(fd) | (generation << 32);
}

}  // namespace

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return fail_errno(errno, "create an epoll instance");
  EventFd wake = TRY(EventFd::create());
  epoll_event event{.events = EPOLLIN, .data = {.u64 = pack(wake.fd(), 0)}};
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.fd(), &event) != 0) return fail_errno(errno, "watch an eventfd");
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll), std::move(wake)));
}

EventLoop::~EventLoop() = default;

void EventLoop::stop() {
  stopping_.store(true);
  wake_.signal();
}

bool EventLoop::post(std::function<void()> work) {
  {
    LockGuard guard(mutex_);
    if (posted_.size() >= kMaximumPosted) return false;
    posted_.push_back(std::move(work));
  }
  wake_.signal();
  return true;
}

Result<> EventLoop::watch(int fd, uint32_t events, std::function<void(uint32_t)> on_ready) {
  CHECK(!watches_.contains(fd), "a descriptor is watched twice");
  const uint64_t generation = next_generation_;
  next_generation_ = (next_generation_ + 1) & UINT32_MAX;
  if (next_generation_ == 0) next_generation_ = 1;
  epoll_event event{.events = events, .data = {.u64 = pack(fd, generation)}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return fail_errno(errno, "watch descriptor {}", fd);
  watches_.emplace(fd, std::make_shared<Watch>(Watch{generation, std::move(on_ready)}));
  return {};
}

void EventLoop::set_events(int fd, uint32_t events) {
  const auto found = watches_.find(fd);
  CHECK(found != watches_.end(), "a descriptor that is not watched");
  epoll_event event{.events = events, .data = {.u64 = pack(fd, found->second->generation)}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void EventLoop::unwatch(int fd) {
  if (watches_.erase(fd) != 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

EventLoop::TimerId EventLoop::call_at(TimePoint when, std::function<void()> callback) {
  const TimerId id = next_timer_++;
  timers_.emplace(std::pair(when, id), std::move(callback));
  timer_times_.emplace(id, when);
  return id;
}

EventLoop::TimerId EventLoop::call_after(std::chrono::nanoseconds delay, std::function<void()> callback) {
  return call_at(std::chrono::steady_clock::now() + delay, std::move(callback));
}

void EventLoop::cancel(TimerId id) {
  const auto found = timer_times_.find(id);
  if (found == timer_times_.end()) return;
  timers_.erase({found->second, id});
  timer_times_.erase(found);
}

int EventLoop::timeout_ms() const {
  if (timers_.empty()) return -1;
  const auto left = timers_.begin()->first.first - std::chrono::steady_clock::now();
  // Rounded up, or the loop would spin through the last millisecond.
  const auto left_ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return static_cast<int>(std::clamp<int64_t>(left_ms, 0, 3'600'000));
}

// Only what was due and posted at the start of the round runs in it, so that work which adds work cannot starve the
// rest.
void EventLoop::run_timers() {
  const auto now = std::chrono::steady_clock::now();
  const TimerId first_new = next_timer_;
  while (!timers_.empty() && !stopping_.load()) {
    const auto [when, id] = timers_.begin()->first;
    if (when > now || id >= first_new) return;
    auto callback = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    timer_times_.erase(id);
    callback();
  }
}

void EventLoop::run_posted() {
  std::deque<std::function<void()>> work;
  {
    LockGuard guard(mutex_);
    work.swap(posted_);
  }
  for (auto& item : work) item();
}

void EventLoop::run() {
  std::array<epoll_event, 32> events;
  int count = 0;
  const auto ask = [&](int timeout) {
    count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
    CHECK(count >= 0 || errno == EINTR, "epoll_wait failed");
    return count > 0;
  };
  BusyPoll poll(busy_poll_);
  while (!stopping_.load()) {
    poll.wait([&] { return ask(0); }, [&] { ask(timeout_ms()); });
    for (int i = 0; i < count && !stopping_.load(); ++i) {
      const int fd = static_cast<int>(static_cast<uint32_t>(events[i].data.u64));
      if (fd == wake_.fd()) {
        wake_.take();
        continue;
      }
      const auto found = watches_.find(fd);
      if (found == watches_.end() || found->second->generation != events[i].data.u64 >> 32) continue;
      // Held, because the callback may unwatch itself.
      const std::shared_ptr<Watch> watch = found->second;
      watch->on_ready(events[i].events);
    }
    run_posted();
    run_timers();
  }
  // What was posted before the end still runs: callers wait for its effect.
  run_posted();
}

}  // namespace bulkhead
