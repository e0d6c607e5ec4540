// A queue of bytes with a fixed bound, without a lock of its own.
#pragma once

#include <algorithm>
#include <vector>

#include "support/bytes.h"

namespace bulkhead::console {

class ByteRing {
 public:
  explicit ByteRing(size_t capacity) : bytes_(capacity) {}

  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] size_t room() const { return bytes_.size() - size_; }

  // Takes as many leading bytes as fit.
  size_t push(ByteSpan in) {
    const size_t count = std::min(in.size(), room());
    const size_t end = (begin_ + size_) % bytes_.size();
    const size_t first = std::min(count, bytes_.size() - end);
    std::copy_n(in.begin(), first, bytes_.begin() + static_cast<ptrdiff_t>(end));
    std::copy_n(in.begin() + static_cast<ptrdiff_t>(first), count - first, bytes_.begin());
    size_ += count;
    return count;
  }
  // Takes all, giving up the oldest bytes where there is no room; returns how many were lost.
  size_t push_latest(ByteSpan in) {
    const size_t not_kept = in.size() - std::min(in.size(), bytes_.size());
    in = in.subspan(not_kept);
    const size_t evicted = in.size() - std::min(in.size(), room());
    drop(evicted);
    push(in);
    return not_kept + evicted;
  }
  // The oldest bytes that lie together.
  [[nodiscard]] ByteSpan front() const {
    return ByteSpan(bytes_).subspan(begin_, std::min(size_, bytes_.size() - begin_));
  }
  void drop(size_t count) {
    begin_ = (begin_ + count) % bytes_.size();
    size_ -= count;
  }
  size_t pop(MutableByteSpan out) {
    size_t count = 0;
    while (count < out.size() && size_ != 0) {
      const ByteSpan piece = front().first(std::min(front().size(), out.size() - count));
      std::copy(piece.begin(), piece.end(), out.begin() + static_cast<ptrdiff_t>(count));
      count += piece.size();
      drop(piece.size());
    }
    return count;
  }

 private:
  std::vector<uint8_t> bytes_;
  size_t begin_ = 0;
  size_t size_ = 0;
};

}  // namespace bulkhead::console
