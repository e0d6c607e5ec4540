#include "cpu/model.h"

#include <gtest/gtest.h>

namespace bulkhead::cpu {
namespace {

FeatureSet everything() {
  FeatureSet set;
  for (const Feature& feature : feature_table()) set.add(feature.name);
  return set;
}

TEST(CpuModel, ShowsTheLevelsOfThePsabi) {
  const FeatureSet all = everything();
  const auto v1 = CpuModel::create("x86-64-v1", all).value();
  const auto v2 = CpuModel::create("x86-64-v2", all).value();
  const auto v3 = CpuModel::create("x86-64-v3", all).value();
  EXPECT_FALSE(v1.features().has("sse4_2"));
  EXPECT_TRUE(v2.features().has("sse4_2"));
  EXPECT_FALSE(v2.features().has("avx2"));
  EXPECT_TRUE(v3.features().has("avx2"));
  EXPECT_TRUE(v3.features().missing_from(all).empty());
}

TEST(CpuModel, NeverShowsWhatTheEngineLacks) {
  FeatureSet available = everything();
  available.remove("sha_ni");
  const auto model = CpuModel::create("x86-64-v3", available).value();
  EXPECT_FALSE(model.features().has("sha_ni"));
  const auto leaves = model.leaves(0, {}, 2'000'000'000);
  EXPECT_EQ(look_up(leaves, 7, 0).ebx >> 29 & 1, 0u);
}

TEST(CpuModel, NamesWhatIsMissingWhenALevelCannotBeGiven) {
  FeatureSet available = everything();
  available.remove("avx2");
  EXPECT_EQ(CpuModel::create("x86-64-v3", available).error().message,
            "cpu-model 'x86-64-v3': this engine on this host lacks avx2");
  EXPECT_EQ(CpuModel::create("pentium", available).error().message,
            "cpu-model 'pentium': not one of x86-64-v1, x86-64-v2, x86-64-v3, host");
}

TEST(CpuModel, TellsEveryVcpuItsPlace) {
  const auto model = CpuModel::create("x86-64-v3", everything()).value();
  const auto leaves = model.leaves(3, {.vcpu_count = 4}, 2'000'000'000);
  EXPECT_EQ(look_up(leaves, 1, 0).ebx >> 24, 3u);
  EXPECT_EQ(look_up(leaves, 0xB, 1).edx, 3u);
  EXPECT_EQ(look_up(leaves, 0xB, 1).eax, 2u);
  EXPECT_EQ(look_up(leaves, 0xB, 7).edx, 3u);
  EXPECT_EQ(look_up(leaves, 0x15, 0).ecx, kApicTimerHz);
  EXPECT_EQ(look_up(leaves, 0x12345, 0).eax, 0u);
}

TEST(CpuModel, TellsTheTscFrequencyInNumbersThatLinuxCanMultiply) {
  const auto model = CpuModel::create("x86-64-v3", everything()).value();
  for (const uint64_t tsc_hz : {1'000'000'000u, 1'996'249'000u, 2'000'000'000u, 2'400'000'000u, 3'600'000'000u}) {
    const auto leaves = model.leaves(0, {.vcpu_count = 1}, tsc_hz);
    const CpuidLeaf crystal = look_up(leaves, 0x15, 0);
    const double shown_hz = static_cast<double>(crystal.ecx) * crystal.ebx / crystal.eax;
    EXPECT_NEAR(shown_hz / static_cast<double>(tsc_hz), 1.0, 1e-6) << tsc_hz;
    EXPECT_LE(uint64_t{crystal.ecx / 1000} * crystal.ebx, UINT32_MAX);
  }
  EXPECT_EQ(look_up(model.leaves(0, {.vcpu_count = 1}, 2'799'927'000), 0x15, 0).ebx, 0u)
      << "rather none than a wrong one";
}

}  // namespace
}  // namespace bulkhead::cpu
