// A line on a terminal that says how far something is, how fast it goes, and how long it will take. Where standard
// error is no terminal, there is nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace bulkhead::cli {

// done and total are bytes, rate is bytes a second; without a rate (0) there is no time left to be told.
[[nodiscard]] std::string progress_text(double done, double total, double rate);

class ProgressLine {
 public:
  explicit ProgressLine(uint64_t total_bytes, bool quiet = false);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // From one thread: so much is done by now. Draws a few times a second.
  void set(uint64_t done_bytes);
  void add(uint64_t bytes) { set(done_ + bytes); }

 private:
  using Clock = std::chrono::steady_clock;

  const bool shown_;
  const double total_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point next_ = start_;
  uint64_t done_ = 0;
};

}  // namespace bulkhead::cli
