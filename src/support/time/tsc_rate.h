// How fast a counter runs, measured against a clock, and whether it is steady enough to tell the time by. It reads no
// counter itself.
#pragma once

#include <cstdint>
#include <functional>

namespace bulkhead {

// A counter and the clock at one moment.
struct TscSample {
  uint64_t tsc;
  uint64_t ns;
};

struct TscRate {
  uint64_t hz = 0;
  // Two measurements in a row agree within 100 ppm, so that a host which steps or slows its counter is found out.
  bool steady = false;
};

// Measures over 2 x 5 ms. When the two halves disagree, which a busy host's late answers do to a steady counter too, it
// measures again over twice the time, up to 2 x 40 ms: an error of the samples weighs less and less, a counter that
// really changes its rate stays found out.
TscRate measure_tsc_rate(const std::function<TscSample()>& sample, const std::function<void(uint64_t ns)>& wait);

}  // namespace bulkhead
