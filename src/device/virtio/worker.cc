#include "device/virtio/worker.h"

#include "support/check.h"
#include "support/os/busy_poll.h"

namespace bulkhead::device::virtio {

Result<std::unique_ptr<ThreadWorker>> ThreadWorker::create(std::string name) {
  auto loop = TRY_IN(name, EventLoop::create());
  loop->set_busy_poll(BusyPoll::kLongest);
  return std::unique_ptr<ThreadWorker>(new ThreadWorker(std::move(name), std::move(loop)));
}

ThreadWorker::~ThreadWorker() {
  loop_->stop();
  thread_.join();
}

Result<> ThreadWorker::watch(EventFd& event, std::function<void()> callback) {
  return loop_->watch(event.fd(), EPOLLIN, [this, &event, callback = std::move(callback)](uint32_t) {
    const LockGuard turn(turn_);
    if (event.take() != 0) callback();
    ask_waiters();
  });
}

void ThreadWorker::start() {
  thread_ = Thread(name_, [this] { loop_->run(); });
}

void ThreadWorker::run_and_wait(std::function<void()> work) {
  wait_until([work = std::move(work), ran = false]() mutable {
    if (!ran) work();
    ran = true;
    return true;
  });
}

bool ThreadWorker::try_run(const std::function<void()>& work) {
  if (!turn_.try_lock()) return false;
  work();
  ask_waiters();
  turn_.unlock();
  return true;
}

void ThreadWorker::wait_until(std::function<bool()> condition) {
  bool done = false;
  const bool posted = loop_->post([this, &done, condition = std::move(condition)]() mutable {
    const LockGuard turn(turn_);
    waiters_.push_back({std::move(condition), &done});
    ask_waiters();
  });
  CHECK(posted, "more threads wait for a device than a loop takes");
  mutex_.lock();
  while (!done) done_.wait(mutex_);
  mutex_.unlock();
}

void ThreadWorker::ask_waiters() {
  for (size_t i = 0; i < waiters_.size();) {
    if (!waiters_[i].condition()) {
      ++i;
      continue;
    }
    bool* done = waiters_[i].done;
    waiters_.erase(waiters_.begin() + static_cast<ptrdiff_t>(i));
    {
      const LockGuard lock(mutex_);
      *done = true;
    }
    done_.notify_all();
  }
}

}  // namespace bulkhead::device::virtio
