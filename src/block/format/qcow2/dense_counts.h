// A count for each of many things, of which few are large: a byte each, two or four when one needs them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace bulkhead::block::qcow2 {

class DenseCounts {
 public:
  // All counts 0. They never take more than limit bytes, nor while they become wider.
  DenseCounts(uint64_t size, uint64_t limit) : size_(size), limit_(limit), bytes_(size) {}
  DenseCounts() = default;

  [[nodiscard]] uint64_t size() const { return size_; }
  // Some count was too large for the memory there is, and is smaller here than it should be.
  [[nodiscard]] bool overflowed() const { return overflowed_; }
  [[nodiscard]] uint64_t operator[](uint64_t i) const {
    uint32_t value = 0;
    std::memcpy(&value, &bytes_[i * width_], width_);
    return value;
  }
  void set(uint64_t i, uint64_t value) {
    while (width_ < 4 && value >> (8 * width_) != 0) {
      if (!widen()) {
        overflowed_ = true;
        return;
      }
    }
    const auto fits = static_cast<uint32_t>(std::min<uint64_t>(value, UINT32_MAX));
    std::memcpy(&bytes_[i * width_], &fits, width_);
  }
  // Makes it longer; the new counts have a value.
  void resize(uint64_t size, uint8_t value) {
    bytes_.resize(size * width_);
    for (uint64_t i = std::exchange(size_, size); i < size; ++i) set(i, value);
  }

 private:
  bool widen() {
    if (size_ * width_ * 3 > limit_) return false;
    std::vector<uint8_t> wide(size_ * width_ * 2);
    // From little-endian to little-endian.
    for (uint64_t i = 0; i < size_; ++i) std::memcpy(&wide[i * width_ * 2], &bytes_[i * width_], width_);
    bytes_ = std::move(wide);
    width_ *= 2;
    return true;
  }

  uint64_t size_ = 0, limit_ = 0;
  unsigned width_ = 1;
  bool overflowed_ = false;
  std::vector<uint8_t> bytes_;
};

}  // namespace bulkhead::block::qcow2
