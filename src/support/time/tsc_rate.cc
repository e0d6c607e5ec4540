#include "support/time/tsc_rate.h"

#include <cmath>

namespace bulkhead {
namespace {

constexpr uint64_t kFirstHalfNs = 5'000'000;
constexpr int kAttempts = 4;
constexpr double kTolerance = 100e-6;
constexpr double kLeastHz = 300e6;

double hz_between(const TscSample& from, const TscSample& to) {
  return to.ns > from.ns && to.tsc > from.tsc
             ? static_cast<double>(to.tsc - from.tsc) * 1e9 / static_cast<double>(to.ns - from.ns)
             : 0.0;
}

}  // namespace

TscRate measure_tsc_rate(const std::function<TscSample()>& sample, const std::function<void(uint64_t ns)>& wait) {
  TscRate rate;
  uint64_t half_ns = kFirstHalfNs;
  for (int attempt = 0; attempt < kAttempts && !rate.steady; ++attempt, half_ns *= 2) {
    const TscSample first = sample();
    wait(half_ns);
    const TscSample middle = sample();
    wait(half_ns);
    const TscSample last = sample();
    const double whole = hz_between(first, last);
    rate.hz = static_cast<uint64_t>(std::llround(whole / 1000)) * 1000;
    rate.steady =
        whole >= kLeastHz && std::abs(hz_between(first, middle) - hz_between(middle, last)) <= whole * kTolerance;
  }
  return rate;
}

}  // namespace bulkhead
