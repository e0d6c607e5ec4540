// A mutex that clang's -Wthread-safety understands. Nobody calls out of a module while holding one.
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define BULKHEAD_THREAD(x) __attribute__((x))
#else
#define BULKHEAD_THREAD(x)
#endif
#define GUARDED_BY(x) BULKHEAD_THREAD(guarded_by(x))
#define REQUIRES(...) BULKHEAD_THREAD(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) BULKHEAD_THREAD(locks_excluded(__VA_ARGS__))

namespace bulkhead {

class BULKHEAD_THREAD(capability("mutex")) Mutex {
 public:
  void lock() BULKHEAD_THREAD(acquire_capability()) { mutex_.lock(); }
  void unlock() BULKHEAD_THREAD(release_capability()) { mutex_.unlock(); }
  bool try_lock() BULKHEAD_THREAD(try_acquire_capability(true)) { return mutex_.try_lock(); }
  // For std::condition_variable only.
  std::mutex& native() { return mutex_; }

 private:
  std::mutex mutex_;
};

class BULKHEAD_THREAD(scoped_lockable) LockGuard {
 public:
  explicit LockGuard(Mutex& mutex) BULKHEAD_THREAD(acquire_capability(mutex)) : mutex_(mutex) { mutex_.lock(); }
  ~LockGuard() BULKHEAD_THREAD(release_capability()) { mutex_.unlock(); }
  LockGuard(const LockGuard&) = delete;
  LockGuard& operator=(const LockGuard&) = delete;

 private:
  Mutex& mutex_;
};

// Waits on a held Mutex; as std::condition_variable, spurious wake-ups included, so always wait for a condition.
class ConditionVariable {
 public:
  void wait(Mutex& mutex) REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.native(), std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // False when the time ran out.
  template <typename Duration>
  bool wait_for(Mutex& mutex, Duration duration) REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.native(), std::adopt_lock);
    const bool in_time = condition_.wait_for(lock, duration) == std::cv_status::no_timeout;
    lock.release();
    return in_time;
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace bulkhead
