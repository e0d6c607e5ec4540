#include "support/time/tsc_rate.h"

#include <vector>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

// A host whose time passes only by waiting. Each sample shows the counter and the clock apart by what the host's other
// work took in between.
class FakeHost {
 public:
  TscRate measure() {
    return measure_tsc_rate([this] { return sample(); }, [this](uint64_t ns) { wait(ns); });
  }

  double ticks_a_ns = 2.5;
  double growth = 1;                      // of the rate, at each wait
  std::vector<uint64_t> disturbances_ns;  // of the first samples
  std::vector<uint64_t> waits_ns;

 private:
  TscSample sample() {
    const uint64_t late_ns = taken_ < disturbances_ns.size() ? disturbances_ns[taken_] : 0;
    ++taken_;
    return {.tsc = static_cast<uint64_t>(tsc_), .ns = ns_ + late_ns};
  }
  void wait(uint64_t ns) {
    waits_ns.push_back(ns);
    ns_ += ns;
    tsc_ += static_cast<double>(ns) * ticks_a_ns;
    ticks_a_ns *= growth;
  }

  size_t taken_ = 0;
  uint64_t ns_ = 1'000'000'000;
  double tsc_ = 7e12;
};

TEST(TscRate, ASteadyCounterIsMeasuredOnce) {
  FakeHost host;
  const TscRate rate = host.measure();
  EXPECT_TRUE(rate.steady);
  EXPECT_EQ(rate.hz, 2'500'000'000u);
  EXPECT_EQ(host.waits_ns.size(), 2u);
}

TEST(TscRate, ASteadyCounterOfABusyHostIsMeasuredAgainForLonger) {
  FakeHost host;
  host.disturbances_ns = {0, 5'000, 0, 0, 5'000, 0};
  const TscRate rate = host.measure();
  EXPECT_TRUE(rate.steady);
  EXPECT_EQ(rate.hz, 2'500'000'000u);
  EXPECT_EQ(host.waits_ns,
            (std::vector<uint64_t>{5'000'000, 5'000'000, 10'000'000, 10'000'000, 20'000'000, 20'000'000}));
}

TEST(TscRate, ACounterThatChangesItsRateIsNeverSteady) {
  FakeHost host;
  host.growth = 1.001;
  EXPECT_FALSE(host.measure().steady);
  EXPECT_EQ(host.waits_ns.size(), 8u);
}

TEST(TscRate, ACounterThatStandsStillOrIsTooSlowIsNotSteady) {
  FakeHost host;
  host.ticks_a_ns = 0;
  EXPECT_FALSE(host.measure().steady);
  host.ticks_a_ns = 0.1;
  EXPECT_FALSE(host.measure().steady);
}

}  // namespace
}  // namespace bulkhead
