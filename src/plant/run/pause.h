// How long a process that has ended rests before it is started again: the longer, the oftener it dies young. A function
// of the times that it is given.
#pragma once

#include <algorithm>
#include <chrono>

namespace bulkhead::plant {

class Pause {
 public:
  static constexpr std::chrono::milliseconds kShortest{100}, kLongest{10'000};
  // Who lived for so many pauses is young no more.
  static constexpr int kLives = 10;

  void ended_after(std::chrono::nanoseconds life) {
    if (is_first_ || life > kLives * pause_) {
      pause_ = kShortest;
    } else {
      pause_ = std::min(2 * pause_, kLongest);
    }
    is_first_ = false;
  }
  [[nodiscard]] std::chrono::milliseconds length() const { return pause_; }

 private:
  std::chrono::milliseconds pause_ = kShortest;
  bool is_first_ = true;
};

}  // namespace bulkhead::plant
