// Frames that wait, oldest first, bounded in number and bytes: what comes when it is full is lost, as on any network.
// Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <vector>

#include "support/bytes.h"

namespace bulkhead::net::link {

class FrameQueue {
 public:
  static constexpr size_t kMaximumFrames = 1024;
  static constexpr size_t kMaximumBytes = size_t{4} << 20;

  // False when there is no room.
  [[nodiscard]] bool push(ByteSpan frame) {
    if (frames_.size() >= kMaximumFrames || frame.size() > kMaximumBytes - bytes_) return false;
    frames_.emplace_back(frame.begin(), frame.end());
    bytes_ += frame.size();
    return true;
  }
  // Into out, skipping what does not fit; 0 when there is none.
  [[nodiscard]] size_t pop(MutableByteSpan out) {
    while (!frames_.empty()) {
      const std::vector<uint8_t> frame = std::move(frames_.front());
      frames_.pop_front();
      bytes_ -= frame.size();
      if (frame.size() > out.size()) continue;
      std::ranges::copy(frame, out.begin());
      return frame.size();
    }
    return 0;
  }
  [[nodiscard]] bool empty() const { return frames_.empty(); }
  [[nodiscard]] size_t size() const { return frames_.size(); }

 private:
  std::deque<std::vector<uint8_t>> frames_;
  size_t bytes_ = 0;
};

}  // namespace bulkhead::net::link
