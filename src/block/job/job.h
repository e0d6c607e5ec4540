// Something that takes its time on a disk while a guest works on it: a thread that tells how far it is, keeps to a
// speed, pauses and can be cancelled. Its last state is kept until it is asked for. It never makes a guest's request
// fail.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "support/os/mutex.h"
#include "support/os/thread.h"
#include "support/result.h"

namespace bulkhead::block {

class Job {
 public:
  enum class State : uint8_t { kRunning, kPaused, kDone, kFailed, kCancelled };
  struct Progress {
    State state = State::kRunning;
    uint64_t done_bytes = 0, total_bytes = 0, speed = 0;  // bytes a second at most; 0: as fast as it goes
    std::string message;                                  // why it failed, how it goes, or what is now so
  };

  explicit Job(std::string kind, uint64_t speed = 0) : kind_(std::move(kind)), speed_(speed) {}
  // The subclass's destructor has called stop().
  virtual ~Job() = default;

  [[nodiscard]] const std::string& kind() const { return kind_; }
  void start();
  // From any thread; none waits. A job that has come to its end stays what it is.
  void cancel();
  void pause();
  void resume();
  void set_speed(uint64_t bytes_a_second);
  [[nodiscard]] Progress progress();
  // Cancels, and waits for the end.
  void stop();
  // Waits for the end.
  void wait() { thread_.join(); }

 protected:
  // On the job's thread; the message is for whoever asks afterwards. When go_on() has said no, what it returns does not
  // count.
  virtual Result<std::string> work() = 0;
  // After bytes of work: waits as the speed and a pause demand; false when the job is cancelled.
  [[nodiscard]] bool go_on(uint64_t bytes);
  // The same without waiting, where a guest does.
  [[nodiscard]] bool cancelled();
  // Whether go_on() would wait or say no: where a guest waits, which goes on first.
  [[nodiscard]] bool held_up();
  // How it is going, for whoever asks before the end.
  void say(std::string message);
  void add_done(uint64_t bytes);
  void set_total(uint64_t bytes);

 private:
  void body();

  const std::string kind_;
  Mutex mutex_;
  ConditionVariable changed_;
  bool cancelled_ GUARDED_BY(mutex_) = false, paused_ GUARDED_BY(mutex_) = false, ended_ GUARDED_BY(mutex_) = false;
  bool obeyed_ GUARDED_BY(mutex_) = false;  // the job has been told that it is cancelled
  uint64_t speed_ GUARDED_BY(mutex_);
  Progress progress_ GUARDED_BY(mutex_);
  Thread thread_;
};

[[nodiscard]] std::string_view to_string(Job::State state);

}  // namespace bulkhead::block
