#include "block/job/job.h"

#include <algorithm>
#include <chrono>

namespace bulkhead::block {
namespace {

// How long a single wait for the speed may be: a change of the speed is felt soon.
constexpr double kLongestNap_s = 60;

}  // namespace

void Job::start() {
  thread_ = Thread("disk-job", [this] { body(); });
}

void Job::body() {
  auto result = work();
  const LockGuard lock(mutex_);
  ended_ = true;
  if (obeyed_) {
    progress_.state = State::kCancelled;
    progress_.message = result ? "" : result.error().message;
  } else {
    progress_.state = result ? State::kDone : State::kFailed;
    progress_.message = result ? *result : result.error().message;
  }
}

bool Job::go_on(uint64_t bytes) {
  const LockGuard lock(mutex_);
  progress_.done_bytes += bytes;
  const auto begun = std::chrono::steady_clock::now();
  while (!cancelled_) {
    const auto waited = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    const double left_s =
        speed_ == 0 ? 0 : std::min(static_cast<double>(bytes) / static_cast<double>(speed_) - waited, kLongestNap_s);
    if (paused_) {
      changed_.wait(mutex_);
    } else if (left_s > 0) {
      (void)changed_.wait_for(mutex_, std::chrono::duration<double>(left_s));
    } else {
      return true;
    }
  }
  obeyed_ = true;
  return false;
}

bool Job::cancelled() {
  const LockGuard lock(mutex_);
  obeyed_ = obeyed_ || cancelled_;
  return cancelled_;
}

bool Job::held_up() {
  const LockGuard lock(mutex_);
  return paused_ || cancelled_;
}

void Job::say(std::string message) {
  const LockGuard lock(mutex_);
  progress_.message = std::move(message);
}

void Job::add_done(uint64_t bytes) {
  const LockGuard lock(mutex_);
  progress_.done_bytes += bytes;
}

void Job::set_total(uint64_t bytes) {
  const LockGuard lock(mutex_);
  progress_.total_bytes = bytes;
}

void Job::cancel() {
  const LockGuard lock(mutex_);
  cancelled_ = true;
  changed_.notify_all();
}

void Job::pause() {
  const LockGuard lock(mutex_);
  paused_ = true;
}

void Job::resume() {
  const LockGuard lock(mutex_);
  paused_ = false;
  changed_.notify_all();
}

void Job::set_speed(uint64_t bytes_a_second) {
  const LockGuard lock(mutex_);
  speed_ = bytes_a_second;
  changed_.notify_all();
}

Job::Progress Job::progress() {
  const LockGuard lock(mutex_);
  Progress progress = progress_;
  progress.speed = speed_;
  if (!ended_ && paused_) progress.state = State::kPaused;
  return progress;
}

void Job::stop() {
  cancel();
  thread_.join();
}

std::string_view to_string(Job::State state) {
  switch (state) {
    case Job::State::kRunning:
      return "running";
    case Job::State::kPaused:
      return "paused";
    case Job::State::kDone:
      return "done";
    case Job::State::kFailed:
      return "failed";
    case Job::State::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

}  // namespace bulkhead::block
