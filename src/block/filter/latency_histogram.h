// How long requests took: counts by time, fine enough for percentiles, cheap enough for every request. From any thread,
// without a lock and without memory of its own beside the table.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace bulkhead::block {

class LatencyHistogram {
 public:
  static constexpr unsigned kOctaves = 41;  // of nanoseconds: the last one is everything from 2^40, 18 minutes, on
  // Percentiles are at most an eighth too large, never too small. All 0 while nothing was counted.
  struct Summary {
    uint64_t count = 0, total_ns = 0;
    uint64_t p50_ns = 0, p99_ns = 0, p999_ns = 0, max_ns = 0;
    // [i]: how many took from 2^(i-1) up to, not including, 2^i ns; [0]: none at all.
    std::array<uint64_t, kOctaves> octaves{};
  };

  void record(uint64_t ns);
  // The figures are of about the same moment.
  [[nodiscard]] Summary summary() const;

 private:
  // Each octave has 8 buckets of the same width, below 8 ns one a nanosecond.
  static constexpr unsigned kFineBits = 3;
  static constexpr size_t kFine = size_t{1} << kFineBits;
  static constexpr uint64_t kMost_ns = (uint64_t{1} << (kOctaves - 1)) - 1;
  static constexpr size_t bucket_of(uint64_t ns) {
    if (ns < kFine) return ns;
    const auto shift = static_cast<unsigned>(std::bit_width(ns)) - kFineBits - 1;
    return (shift + 1) * kFine + static_cast<size_t>((ns >> shift) - kFine);
  }
  // The largest that falls into it.
  static constexpr uint64_t last_ns_of(size_t bucket) {
    if (bucket < kFine) return bucket;
    return ((bucket % kFine + kFine + 1) << (bucket / kFine - 1)) - 1;
  }

  std::array<std::atomic<uint64_t>, (kOctaves - kFineBits) * kFine> buckets_{};
  std::atomic<uint64_t> total_ns_{0}, max_ns_{0};
};

}  // namespace bulkhead::block
