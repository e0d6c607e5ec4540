// Frames that wait, oldest first, bounded in number and bytes: what comes when it is full is lost, as on any network.
// Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <vector>

#include "net/frame/offload.h"
#include "support/bytes.h"

namespace bulkhead::net::link {

class FrameQueue {
 public:
  static constexpr size_t kMaximumFrames = 1024;
  static constexpr size_t kMaximumBytes = size_t{4} << 20;

  // False when there is no room.
  [[nodiscard]] bool push(ByteSpan frame, const frame::Offload& offload = {}) {
    return has_room(frame.size()) && push(std::vector<uint8_t>(frame.begin(), frame.end()), offload);
  }
  [[nodiscard]] bool push(std::vector<uint8_t>&& frame, const frame::Offload& offload) {
    if (!has_room(frame.size())) return false;
    bytes_ += frame.size();
    frames_.push_back({std::move(frame), offload});
    return true;
  }
  // Into out, skipping what does not fit; 0 when there is none.
  [[nodiscard]] size_t pop(MutableByteSpan out, frame::Offload& offload) {
    while (!frames_.empty()) {
      const Waiting next = std::move(frames_.front());
      frames_.pop_front();
      bytes_ -= next.bytes.size();
      if (next.bytes.size() > out.size()) continue;
      std::ranges::copy(next.bytes, out.begin());
      offload = next.offload;
      return next.bytes.size();
    }
    return 0;
  }
  [[nodiscard]] bool empty() const { return frames_.empty(); }
  [[nodiscard]] size_t size() const { return frames_.size(); }

 private:
  struct Waiting {
    std::vector<uint8_t> bytes;
    frame::Offload offload;
  };
  [[nodiscard]] bool has_room(size_t size) const {
    return frames_.size() < kMaximumFrames && size <= kMaximumBytes - bytes_;
  }
  std::deque<Waiting> frames_;
  size_t bytes_ = 0;
};

}  // namespace bulkhead::net::link
