#include "block/filter/latency_histogram.h"

#include <algorithm>

namespace bulkhead::block {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

}  // namespace

void LatencyHistogram::record(uint64_t ns) {
  buckets_[bucket_of(std::min(ns, kMost_ns))].fetch_add(1, kRelaxed);
  total_ns_.fetch_add(ns, kRelaxed);
  uint64_t max = max_ns_.load(kRelaxed);
  while (ns > max && !max_ns_.compare_exchange_weak(max, ns, kRelaxed)) {
  }
}

LatencyHistogram::Summary LatencyHistogram::summary() const {
  Summary summary;
  std::array<uint64_t, std::tuple_size_v<decltype(buckets_)>> counts{};
  for (size_t i = 0; i < counts.size(); ++i) {
    counts[i] = buckets_[i].load(kRelaxed);
    summary.count += counts[i];
    summary.octaves[static_cast<size_t>(std::bit_width(last_ns_of(i)))] += counts[i];
  }
  summary.total_ns = total_ns_.load(kRelaxed);
  summary.max_ns = max_ns_.load(kRelaxed);
  // Where as many as the share have been seen, rounded up.
  const auto percentile = [&](uint64_t of_a_thousand) {
    const uint64_t wanted = (summary.count * of_a_thousand + 999) / 1000;
    uint64_t seen = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      seen += counts[i];
      if (seen >= wanted && seen != 0)
        return i + 1 == counts.size() ? summary.max_ns : std::min(last_ns_of(i), summary.max_ns);
    }
    return uint64_t{0};
  };
  summary.p50_ns = percentile(500);
  summary.p99_ns = percentile(990);
  summary.p999_ns = percentile(999);
  return summary;
}

}  // namespace bulkhead::block
