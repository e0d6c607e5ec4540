#include "cli/progress_line.h"

#include <algorithm>
#include <cstdio>

#include <unistd.h>

#include <fmt/format.h>

namespace bulkhead::cli {
namespace {

constexpr std::chrono::milliseconds kBetween{200};

}  // namespace

std::string progress_text(double done, double total, double rate) {
  const double part = total > 0 ? std::min(done / total, 1.0) : 1;
  std::string text = fmt::format("{:5.1f} %", part * 100);
  if (rate > 0)
    text += fmt::format("  {:7.1f} MiB/s  {:5.0f} s left", rate / 1048576, std::max(total - done, 0.0) / rate);
  return text;
}

ProgressLine::ProgressLine(uint64_t total_bytes, bool quiet)
    : shown_(!quiet && ::isatty(STDERR_FILENO) != 0), total_(static_cast<double>(total_bytes)) {}

ProgressLine::~ProgressLine() {
  if (shown_ && next_ != start_) std::fputc('\n', stderr);
}

void ProgressLine::set(uint64_t done_bytes) {
  done_ = done_bytes;
  if (!shown_ || Clock::now() < next_) return;
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  next_ = Clock::now() + kBetween;
  const auto done = static_cast<double>(done_);
  fmt::print(stderr, "\r{} ", progress_text(done, total_, done / std::max(seconds, 0.001)));
}

}  // namespace bulkhead::cli
