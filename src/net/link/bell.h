// Tells a card that its port has news: a listener that may be rung from any thread and taken away at any time.
#pragma once

#include <functional>
#include <utility>

#include "support/os/mutex.h"

namespace bulkhead::net::link {

class Bell {
 public:
  // Returns when the former listener is not running any more; not from a listener.
  void set_listener(std::function<void()> listener) {
    mutex_.lock();
    listener_ = std::move(listener);
    while (ringing_ != 0) quiet_.wait(mutex_);
    mutex_.unlock();
  }
  // Hold no lock that the listener could want.
  void ring() {
    std::function<void()> listener;
    {
      const LockGuard lock(mutex_);
      if (!listener_) return;
      listener = listener_;
      ++ringing_;
    }
    listener();
    const LockGuard lock(mutex_);
    if (--ringing_ == 0) quiet_.notify_all();
  }

 private:
  Mutex mutex_;
  ConditionVariable quiet_;
  std::function<void()> listener_ GUARDED_BY(mutex_);
  size_t ringing_ GUARDED_BY(mutex_) = 0;
};

}  // namespace bulkhead::net::link
