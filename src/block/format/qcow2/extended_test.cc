#include <random>

#include <gtest/gtest.h>

#include "block/format/big_endian.h"
#include "block/format/qcow2/qcow2_image.h"
#include "block/testing/shared_store.h"

namespace bulkhead::block::qcow2 {
namespace {

using Shared = block::testing::SharedStore;

constexpr uint64_t kCluster = 65536, kUnit = kCluster / 32, kSize = 64 * kCluster + 1024;

class ExtendedL2 : public ::testing::TestWithParam<bool> {
 protected:
  ExtendedL2() {
    below_.bytes().assign(40 * kCluster + 512, 0xBB);
    EXPECT_TRUE(qcow2::create(file_, {.size = kSize,
                                      .backing_name = GetParam() ? "below" : "",
                                      .backing_format = "raw",
                                      .settings = {{"extended_l2", "on"}}}));
  }
  std::unique_ptr<Image> open(Access access = Access::kReadWrite) {
    ImageOpener opener("/m");
    opener.take_files_from([this](const std::string&, Access) { return std::make_unique<Shared>(below_); });
    auto image = qcow2::open(std::make_unique<Shared>(file_), access, opener);
    EXPECT_TRUE(image) << image.error().message;
    return std::move(image).value();
  }
  [[nodiscard]] uint8_t below_at(uint64_t offset) {
    return GetParam() && offset < below_.bytes().size() ? below_.bytes()[offset] : 0;
  }
  static void expect_clean(Image& image) {
    const CheckReport report = image.check(Repair::kNone).value();
    EXPECT_EQ(report.errors + report.leaks, 0u) << report.messages.front();
  }
  // The L2 entry of a cluster in the first table, which was the first cluster that was allocated.
  [[nodiscard]] uint8_t* slot(uint64_t cluster) { return &file_.bytes()[4 * kCluster + cluster * 16]; }
  MemoryStore file_, below_;
};

INSTANTIATE_TEST_SUITE_P(WithAndWithoutBackingFile, ExtendedL2, ::testing::Bool());

TEST_P(ExtendedL2, AWriteTakesTheSubclustersThatItTouches) {
  const auto image = open();
  ASSERT_EQ(image->write(3 * kUnit + 100, std::vector<uint8_t>(kUnit, 7)), Status::kOk);
  ASSERT_EQ(image->write_zeroes(10 * kUnit, 2 * kUnit + 100, Unmap::kYes), Status::kOk);
  ASSERT_EQ(image->flush(), Status::kOk);
  // Of the third, a part is zeroes, which are written.
  const uint64_t zeroes = GetParam() ? uint64_t{0xC00} << 32 : 0;
  EXPECT_EQ(load64(slot(0) + 8), zeroes | 0x1018);
  EXPECT_EQ(image->map(0)->kind, ExtentKind::kAbsent);
  EXPECT_EQ(image->map(0)->size, 3 * kUnit);
  EXPECT_EQ(image->map(3 * kUnit)->kind, ExtentKind::kData);
  EXPECT_EQ(image->map(3 * kUnit)->size, 2 * kUnit);
  EXPECT_EQ(image->map(10 * kUnit)->kind, GetParam() ? ExtentKind::kZero : ExtentKind::kAbsent);
  std::vector<uint8_t> found(kCluster);
  ASSERT_EQ(image->read(0, found), Status::kOk);
  for (uint64_t i = 0; i < kCluster; ++i) {
    const bool zero = i >= 10 * kUnit && i < 12 * kUnit + 100, written = i >= 3 * kUnit + 100 && i < 4 * kUnit + 100;
    ASSERT_EQ(found[i], written ? 7 : zero ? 0 : below_at(i)) << i;
  }
  expect_clean(*image);
}

TEST_P(ExtendedL2, ARandomGuestFindsWhatItWrote) {
  std::mt19937_64 random(GetParam());
  std::vector<uint8_t> expected(kSize);
  for (uint64_t i = 0; i < kSize; ++i) expected[i] = below_at(i);
  for (int round = 0; round < 6; ++round) {
    const auto image = open();
    for (int i = 0; i < 60; ++i) {
      const uint64_t at = random() % (kSize / 512) * 512, most = random() % 3 == 0 ? 400 : 6;
      const uint64_t size = std::min((1 + random() % most) * 512, kSize - at), action = random() % 8;
      const std::span<uint8_t> range(&expected[at], size);
      if (action < 4) {
        std::ranges::fill(range, static_cast<uint8_t>(random()));
        ASSERT_EQ(image->write(at, range), Status::kOk);
      } else if (action == 4) {
        // In whole clusters, some of which shrink.
        const uint64_t start = at / kCluster * kCluster, part = std::min(kCluster, kSize - start);
        const std::span<uint8_t> cluster(&expected[start], part);
        std::ranges::fill(cluster, static_cast<uint8_t>(random()));
        ASSERT_EQ(image->write_compressed(start, cluster), Status::kOk);
      } else if (action == 5) {
        std::ranges::fill(range, uint8_t{0});
        ASSERT_EQ(image->write_zeroes(at, size, Unmap::kYes), Status::kOk);
      } else if (action == 6) {
        ASSERT_EQ(image->discard(at, size), Status::kOk);
        std::vector<uint8_t> found(size);
        ASSERT_EQ(image->read(at, found), Status::kOk);
        for (uint64_t j = 0; j < size; ++j) ASSERT_TRUE(found[j] == range[j] || found[j] == 0);
        std::ranges::copy(found, range.begin());
      } else {
        ASSERT_EQ(image->flush(), Status::kOk);
      }
    }
    std::vector<uint8_t> found(kSize);
    ASSERT_EQ(image->read(0, found), Status::kOk);
    ASSERT_TRUE(found == expected) << "round " << round;
    if (round == 1) {
      ASSERT_TRUE(image->snapshots()->create("then", 0));
    }
    expect_clean(*image);
  }
  const auto image = open();
  ASSERT_TRUE(image->snapshots()->apply("then"));
  expect_clean(*image);
  ASSERT_TRUE(image->snapshots()->remove("then"));
  expect_clean(*image);
}

TEST_P(ExtendedL2, ASharedClusterBringsAlongWhatElseItHolds) {
  const auto image = open();
  ASSERT_EQ(image->write(4 * kUnit, std::vector<uint8_t>(4 * kUnit, 1)), Status::kOk);
  ASSERT_TRUE(image->snapshots()->create("then", 0));
  ASSERT_EQ(image->write(7 * kUnit + 512, std::vector<uint8_t>(kUnit, 2)), Status::kOk);
  std::vector<uint8_t> found(10 * kUnit);
  const auto expect_holds = [&](uint8_t inserted, uint8_t behind) {
    ASSERT_EQ(image->read(0, found), Status::kOk);
    for (uint64_t i = 0; i < found.size(); ++i) {
      const bool first = i >= 4 * kUnit && i < 8 * kUnit, second = i >= 7 * kUnit + 512 && i < 8 * kUnit + 512;
      ASSERT_EQ(found[i], second ? (i < 8 * kUnit ? inserted : behind) : first ? 1 : below_at(i)) << i;
    }
  };
  expect_holds(2, 2);
  EXPECT_EQ(image->map(4 * kUnit)->size, 5 * kUnit);
  ASSERT_TRUE(image->snapshots()->apply("then"));
  expect_holds(1, below_at(0));
  expect_clean(*image);
}

TEST_P(ExtendedL2, BitsThatMakeNoSenseAreFoundAndNotFollowed) {
  {
    const auto image = open();
    ASSERT_EQ(image->write(0, std::vector<uint8_t>(3 * kCluster, 1)), Status::kOk);
  }
  store64(slot(0) + 8, uint64_t{1} << 32 | 0xFFFFFFFF);  // data and zeroes at once
  store64(slot(1), load64(slot(1)) | kZeroFlag);         // a flag that is reserved here
  store64(slot(5) + 8, 1);                               // data of no cluster
  const auto image = open(Access::kReadOnly);
  std::vector<uint8_t> found(512);
  EXPECT_EQ(image->read(0, found), Status::kIoError);
  EXPECT_EQ(image->read(kCluster, found), Status::kIoError);
  EXPECT_EQ(image->read(2 * kCluster, found), Status::kOk);
  EXPECT_EQ(image->read(5 * kCluster, found), Status::kIoError);
  EXPECT_EQ(image->check(Repair::kNone)->errors, 3u);
}

TEST(ExtendedL2Settings, NeedLargeClustersAndVersion3) {
  MemoryStore file;
  EXPECT_FALSE(create(file, {.size = kSize, .settings = {{"extended_l2", "on"}, {"cluster_size", "8192"}}}));
  EXPECT_FALSE(create(file, {.size = kSize, .settings = {{"extended_l2", "on"}, {"version", "2"}}}));
  ASSERT_TRUE(create(file, {.size = kSize, .settings = {{"extended_l2", "on"}, {"cluster_size", "16384"}}}));
  file.bytes()[23] = 13;
  const auto image = qcow2::open(std::make_unique<Shared>(file), Access::kReadOnly, ImageOpener("/nonexistent"));
  EXPECT_NE(image.error().message.find("cluster bits 13"), std::string::npos);
}

}  // namespace
}  // namespace bulkhead::block::qcow2
