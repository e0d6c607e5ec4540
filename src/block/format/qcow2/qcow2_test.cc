#include <map>

#include <gtest/gtest.h>

#include "block/format/qcow2/qcow2_image.h"
#include "block/testing/many_threads.h"
#include "block/testing/shared_store.h"

namespace bulkhead::block::qcow2 {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

using Shared = block::testing::SharedStore;

std::unique_ptr<Image> reopen(MemoryStore& file) {
  auto image = qcow2::open(std::make_unique<Shared>(file), Access::kReadWrite, ImageOpener("/nonexistent"));
  EXPECT_TRUE(image) << image.error().message;
  return std::move(image).value();
}

std::string open_error(MemoryStore& file) {
  auto image = qcow2::open(std::make_unique<Shared>(file), Access::kReadWrite, ImageOpener("/nonexistent"));
  return image ? "" : image.error().message;
}

class Qcow2 : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(Qcow2, HoldsWhatWasWrittenAndStaysClean) {
  const auto [cluster_size, refcount_bits] = GetParam();
  MemoryStore file;
  ASSERT_TRUE(create(
      file, {.size = 4 * kMiB + 512, .settings = {{"cluster_size", cluster_size}, {"refcount_bits", refcount_bits}}}));
  std::vector<uint8_t> expected(4 * kMiB + 512);
  uint64_t state = 1;
  const auto next = [&](uint64_t limit) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % limit;
  };
  for (int round = 0; round < 3; ++round) {
    const auto image = reopen(file);
    for (int i = 0; i < 40; ++i) {
      const uint64_t at = next(expected.size() / 512) * 512;
      const uint64_t size = std::min<uint64_t>((1 + next(200)) * 512, expected.size() - at);
      const std::span<uint8_t> range(&expected[at], size);
      const uint64_t action = next(4);
      std::ranges::fill(range, static_cast<uint8_t>(action < 3 ? i + 1 : 0));
      ASSERT_EQ(action < 3 ? image->write(at, range) : image->write_zeroes(at, size, Unmap::kYes), Status::kOk);
      if (action == 0) {
        ASSERT_EQ(image->flush(), Status::kOk);
      }
    }
  }
  const auto image = reopen(file);
  std::vector<uint8_t> found(expected.size());
  ASSERT_EQ(image->read(0, found), Status::kOk);
  EXPECT_TRUE(found == expected);
  const CheckReport report = image->check(Repair::kNone).value();
  EXPECT_EQ(report.errors, 0u);
  EXPECT_EQ(report.leaks, 0u);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Qcow2,
                         ::testing::Values(std::pair("512", "16"), std::pair("512", "64"), std::pair("4096", "1"),
                                           std::pair("65536", "2"), std::pair("65536", "16"),
                                           std::pair("2097152", "8")));

TEST(Qcow2Discard, GivesTheClusterToTheNextWrite) {
  MemoryStore file;
  ASSERT_TRUE(create(file, {.size = kMiB}));
  const auto image = reopen(file);
  const std::vector<uint8_t> data(65536, 3);
  ASSERT_EQ(image->write(0, data), Status::kOk);
  const size_t size = file.bytes().size();
  ASSERT_EQ(image->discard(0, 65536), Status::kOk);
  ASSERT_EQ(image->flush(), Status::kOk);
  ASSERT_EQ(image->write(65536, data), Status::kOk);
  ASSERT_EQ(image->flush(), Status::kOk);
  EXPECT_EQ(file.bytes().size(), size);
}

TEST(Qcow2Header, RefusesUnknownIncompatibleFeaturesAndIgnoresCompatibleOnes) {
  MemoryStore file;
  ASSERT_TRUE(create(file, {.size = kMiB}));
  file.bytes()[80] = 0x80;
  EXPECT_EQ(open_error(file), "");
  file.bytes()[72] = 0x80;
  EXPECT_NE(open_error(file).find("0x8000000000000000 at byte 72"), std::string::npos);
}

TEST(Qcow2Header, ClearsAutoclearBitsWhenItMayWrite) {
  MemoryStore file;
  ASSERT_TRUE(create(file, {.size = kMiB}));
  file.bytes()[95] = 0xF0;
  reopen(file);
  EXPECT_EQ(file.bytes()[95], 0);
}

TEST(Qcow2LazyRefcounts, AreSaidAndStayWhenTheHeaderIsWrittenAnew) {
  MemoryStore file;
  EXPECT_FALSE(create(file, {.size = kMiB, .settings = {{"lazy_refcounts", "on"}, {"version", "2"}}}));
  ASSERT_TRUE(create(file, {.size = kMiB, .settings = {{"lazy_refcounts", "on"}}}));
  EXPECT_EQ(file.bytes()[87], 1);
  const auto image = reopen(file);
  ASSERT_TRUE(image->set_backing("", ""));
  EXPECT_EQ(file.bytes()[87], 1);
  const auto details = image->info().details;
  EXPECT_NE(std::ranges::find(details, std::pair<std::string, std::string>("lazy_refcounts", "on")), details.end());
}

TEST(Qcow2Dirty, IsRepairedWhenOpened) {
  MemoryStore file;
  ASSERT_TRUE(create(file, {.size = kMiB}));
  ASSERT_EQ(reopen(file)->write(0, std::vector<uint8_t>(65536, 1)), Status::kOk);
  file.bytes()[79] = 1;
  // The counts of the clusters behind the first tables, as if they had never been written.
  std::memset(&file.bytes()[2 * 65536 + 8], 0, 100);
  EXPECT_EQ(reopen(file)->check(Repair::kNone)->errors, 0u);
  EXPECT_EQ(file.bytes()[79], 0);
}

std::unique_ptr<Image> open_for_repair(MemoryStore& file) {
  return qcow2::open(std::make_unique<Shared>(file), Access::kRepair, ImageOpener("/nonexistent")).value();
}

TEST(Qcow2Repair, BuildsRefcountsAnewAndClearsTheMarkOfCorruption) {
  MemoryStore file;
  ASSERT_TRUE(create(file, {.size = kMiB}));
  const std::vector<uint8_t> data(3 * 65536, 7);
  ASSERT_EQ(reopen(file)->write(65536, data), Status::kOk);
  // The refcount table names no block any more, and the image says that it is corrupt.
  std::memset(&file.bytes()[65536], 0, 8);
  file.bytes()[79] = 2;
  EXPECT_NE(open_error(file).find("marked as corrupt"), std::string::npos);
  const CheckReport report = open_for_repair(file)->check(Repair::kAll).value();
  EXPECT_GT(report.errors, 0u);
  EXPECT_EQ(report.left, 0u);
  EXPECT_EQ(report.repaired, report.errors + report.leaks);
  EXPECT_EQ(file.bytes()[79], 0);
  const auto image = reopen(file);
  const CheckReport after = image->check(Repair::kNone).value();
  EXPECT_EQ(after.errors + after.leaks, 0u);
  std::vector<uint8_t> found(data.size());
  ASSERT_EQ(image->read(65536, found), Status::kOk);
  EXPECT_TRUE(found == data);
}

TEST(Qcow2Repair, SetsTheCopiedFlagRight) {
  MemoryStore file;
  ASSERT_TRUE(create(file, {.size = kMiB}));
  ASSERT_EQ(reopen(file)->write(0, std::vector<uint8_t>(65536, 7)), Status::kOk);
  file.bytes()[3 * 65536] &= 0x7F;  // of the first L1 entry
  const CheckReport report = open_for_repair(file)->check(Repair::kAll).value();
  EXPECT_EQ(report.errors, 1u);
  EXPECT_EQ(report.left, 0u);
  EXPECT_EQ(file.bytes()[3 * 65536] & 0x80, 0x80);
}

TEST(Qcow2Repair, TellsOfDataThatIsLost) {
  MemoryStore file;
  ASSERT_TRUE(create(file, {.size = kMiB}));
  ASSERT_EQ(reopen(file)->write(0, std::vector<uint8_t>(65536, 7)), Status::kOk);
  file.bytes()[3 * 65536 + 4] = 0x70;  // the L2 table lies far outside the file
  const CheckReport report = open_for_repair(file)->check(Repair::kAll).value();
  EXPECT_EQ(report.left, 1u);
}

// Every entry of the L1 table names one L2 table, whose entries name one cluster: 2^35 uses if each were followed.
TEST(Qcow2Check, ReadsATableOnceHoweverOftenItIsNamed) {
  MemoryStore file;
  ASSERT_TRUE(create(file, {.size = uint64_t{1} << 50, .settings = {{"cluster_size", "2097152"}}}));
  ASSERT_EQ(reopen(file)->write(0, std::vector<uint8_t>(512, 7)), Status::kOk);
  std::vector<uint8_t>& bytes = file.bytes();
  const size_t l1 = 3 << 21, l2 = 4 << 21, entries = (size_t{1} << 50) >> 39;
  for (size_t i = 1; i < entries; ++i) std::memcpy(&bytes[l1 + i * 8], &bytes[l1], 8);
  for (size_t i = 1; i < (1 << 18); ++i) std::memcpy(&bytes[l2 + i * 8], &bytes[l2], 8);
  const auto image = qcow2::open(std::make_unique<Shared>(file), Access::kReadOnly, ImageOpener("/nonexistent"));
  const CheckReport report = (*image)->check(Repair::kNone).value();
  EXPECT_GT(report.errors, 0u);
  EXPECT_LE(report.messages.size(), CheckReport::kMessageLimit);
}

TEST(Qcow2Write, GivesUpWhenRefcountsClaimMoreThanTheFileHolds) {
  MemoryStore file;
  ASSERT_TRUE(create(file, {.size = kMiB, .settings = {{"refcount_bits", "1"}, {"cluster_size", "2097152"}}}));
  std::vector<uint8_t>& bytes = file.bytes();
  // All entries name the one block, and that says that everything is in use.
  for (size_t i = 1; i < 1000; ++i) std::memcpy(&bytes[(1 << 21) + i * 8], &bytes[1 << 21], 8);
  std::memset(&bytes[2 << 21], 0xFF, 1 << 21);
  EXPECT_EQ(reopen(file)->write(0, std::vector<uint8_t>(512, 7)), Status::kIoError);
}

class Qcow2Threads : public ::testing::TestWithParam<std::map<std::string, std::string>> {};

TEST_P(Qcow2Threads, KeepTheirSectorsApart) {
  MemoryStore file;
  ASSERT_TRUE(create(file, {.size = 8 * kMiB, .settings = GetParam()}));
  const auto image =
      qcow2::open(std::make_unique<Shared>(file), Access::kReadWrite, ImageOpener("/nonexistent")).value();
  EXPECT_EQ(block::testing::write_from_four_threads(*image, 8 * kMiB, 3000), 0u);
  const CheckReport report = image->check(Repair::kNone).value();
  EXPECT_EQ(report.errors + report.leaks, 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Qcow2Threads,
    ::testing::Values(std::map<std::string, std::string>{{"cluster_size", "4096"}},
                      std::map<std::string, std::string>{{"extended_l2", "on"}, {"cluster_size", "16384"}},
                      std::map<std::string, std::string>{{"extended_l2", "on"}, {"cluster_size", "65536"}}));

}  // namespace
}  // namespace bulkhead::block::qcow2
