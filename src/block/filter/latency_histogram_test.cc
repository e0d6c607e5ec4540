#include "block/filter/latency_histogram.h"

#include <numeric>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace bulkhead::block {
namespace {

TEST(LatencyHistogram, IsAllZeroWhileNothingWasCounted) {
  const LatencyHistogram::Summary summary = LatencyHistogram().summary();
  EXPECT_EQ(summary.count, 0u);
  EXPECT_EQ(summary.p50_ns + summary.p99_ns + summary.p999_ns + summary.max_ns + summary.total_ns, 0u);
}

TEST(LatencyHistogram, GivesPercentilesThatAreAtMostAnEighthTooLarge) {
  LatencyHistogram histogram;
  for (uint64_t i = 1; i <= 10'000; ++i) histogram.record(i * 1000);
  const LatencyHistogram::Summary summary = histogram.summary();
  EXPECT_EQ(summary.count, 10'000u);
  EXPECT_EQ(summary.total_ns, 50'005'000'000u);
  EXPECT_EQ(summary.max_ns, 10'000'000u);
  const auto expect_near = [](uint64_t value, uint64_t exact) {
    EXPECT_GE(value, exact);
    EXPECT_LE(value, exact + exact / 8);
  };
  expect_near(summary.p50_ns, 5'000'000);
  expect_near(summary.p99_ns, 9'900'000);
  expect_near(summary.p999_ns, 9'990'000);
  EXPECT_LE(summary.p999_ns, summary.max_ns);
}

TEST(LatencyHistogram, OneSlowRequestOfAThousandIsTheMaximumAndNoPercentile) {
  LatencyHistogram histogram;
  for (int i = 0; i < 999; ++i) histogram.record(7);
  histogram.record(1'000'000);
  LatencyHistogram::Summary summary = histogram.summary();
  EXPECT_EQ(summary.p50_ns, 7u);
  EXPECT_EQ(summary.p999_ns, 7u);
  EXPECT_EQ(summary.max_ns, 1'000'000u);
  histogram.record(1'000'000);
  EXPECT_EQ(histogram.summary().p999_ns, 1'000'000u);
}

TEST(LatencyHistogram, CountsByPowersOfTwo) {
  LatencyHistogram histogram;
  for (const uint64_t ns : {0ull, 1ull, 2ull, 3ull, 1023ull, 1024ull, 2047ull, 1ull << 39, 1ull << 40, ~0ull}) {
    histogram.record(ns);
  }
  const LatencyHistogram::Summary summary = histogram.summary();
  EXPECT_EQ(summary.octaves[0], 1u);
  EXPECT_EQ(summary.octaves[1], 1u);
  EXPECT_EQ(summary.octaves[2], 2u);
  EXPECT_EQ(summary.octaves[10], 1u);
  EXPECT_EQ(summary.octaves[11], 2u);
  EXPECT_EQ(summary.octaves[40], 3u);
  EXPECT_EQ(std::accumulate(summary.octaves.begin(), summary.octaves.end(), uint64_t{0}), summary.count);
  EXPECT_EQ(summary.max_ns, ~0ull);
  EXPECT_EQ(summary.p999_ns, ~0ull);  // past the last bucket, only the maximum is known
}

TEST(LatencyHistogram, LosesNothingBetweenThreads) {
  LatencyHistogram histogram;
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&histogram, thread] {
      for (uint64_t i = 0; i < 5000; ++i) histogram.record(thread * 5000 + i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(histogram.summary().count, 20'000u);
  EXPECT_EQ(histogram.summary().max_ns, 19'999u);
  EXPECT_EQ(histogram.summary().total_ns, uint64_t{19'999} * 20'000 / 2);
}

}  // namespace
}  // namespace bulkhead::block
