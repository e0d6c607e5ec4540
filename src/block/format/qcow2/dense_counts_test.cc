#include "block/format/qcow2/dense_counts.h"

#include <map>
#include <random>

#include <gtest/gtest.h>

namespace bulkhead::block::qcow2 {
namespace {

TEST(DenseCounts, HoldWhatWasSet) {
  DenseCounts counts(1000, 1 << 20);
  std::map<uint64_t, uint64_t> expected;
  std::mt19937_64 random(1);
  for (int i = 0; i < 5000; ++i) {
    // First of one byte, then of two, then of four; and larger ones stay at the largest.
    const uint64_t at = random() % counts.size(), value = random() >> (i < 2000 ? 56 : i < 3000 ? 48 : 30);
    counts.set(at, value);
    expected[at] = std::min<uint64_t>(value, UINT32_MAX);
    if (i == 2500) counts.resize(1200, 1);
  }
  for (uint64_t i = 0; i < counts.size(); ++i) {
    const auto found = expected.find(i);
    ASSERT_EQ(counts[i], found != expected.end() ? found->second : i < 1000 ? 0 : 1) << i;
  }
  EXPECT_FALSE(counts.overflowed());
}

TEST(DenseCounts, SayWhenTheyNeedMoreMemoryThanThereIs) {
  DenseCounts counts(1000, 3000);
  counts.set(7, 65535);
  EXPECT_FALSE(counts.overflowed());
  counts.set(8, 65536);
  EXPECT_TRUE(counts.overflowed());
  EXPECT_EQ(counts[7], 65535u);
}

}  // namespace
}  // namespace bulkhead::block::qcow2
