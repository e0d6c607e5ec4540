#include <gtest/gtest.h>

#include "block/format/qcow2/qcow2_image.h"
#include "block/testing/crash_log.h"
#include "block/testing/shared_store.h"

namespace bulkhead::block::qcow2 {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::unique_ptr<Image> reopen(MemoryStore& file) {
  auto image =
      qcow2::open(std::make_unique<block::testing::SharedStore>(file), Access::kReadWrite, ImageOpener("/nonexistent"));
  EXPECT_TRUE(image) << image.error().message;
  return std::move(image).value();
}

using Settings = std::map<std::string, std::string>;

MemoryStore made(Settings settings = {}) {
  MemoryStore file;
  const auto done = create(file, {.size = 2 * kMiB, .settings = std::move(settings)});
  EXPECT_TRUE(done) << done.error().message;
  return file;
}

void fill(Image& image, uint8_t value) {
  ASSERT_EQ(image.write(0, std::vector<uint8_t>(kMiB, value)), Status::kOk);
}

uint8_t first_byte(Image& image) {
  std::vector<uint8_t> sector(512);
  EXPECT_EQ(image.read(0, sector), Status::kOk);
  return sector[0];
}

// With no repair that opening might have done.
CheckReport check_as_it_is(MemoryStore& file) {
  const auto image =
      qcow2::open(std::make_unique<block::testing::SharedStore>(file), Access::kReadOnly, ImageOpener("/nonexistent"));
  EXPECT_TRUE(image) << image.error().message;
  return (*image)->check(Repair::kNone).value();
}

void expect_clean(Image& image) {
  const CheckReport report = image.check(Repair::kNone).value();
  EXPECT_EQ(report.errors, 0u) << report.messages.front();
  EXPECT_EQ(report.leaks, 0u) << report.messages.front();
}

TEST(Qcow2Snapshot, KeepsAStateThatCanBeAppliedAndDeleted) {
  for (const auto& settings : {Settings{{"cluster_size", "4096"}}, Settings{{"cluster_size", "65536"}},
                               Settings{{"version", "2"}, {"cluster_size", "4096"}}}) {
    MemoryStore file = made(settings);
    {
      const auto image = reopen(file);
      fill(*image, 1);
      ASSERT_TRUE(image->snapshots()->create("one", 100));
      expect_clean(*image);
      fill(*image, 2);
      ASSERT_TRUE(image->snapshots()->create("two", 200));
      fill(*image, 3);
    }
    const auto image = reopen(file);
    EXPECT_EQ(first_byte(*image), 3);
    expect_clean(*image);
    const std::vector<Snapshot> found = image->snapshots()->list().value();
    ASSERT_EQ(found.size(), 2u);
    EXPECT_EQ(found[1].name + " " + found[1].id, "two 2");
    EXPECT_EQ(found[1].seconds, 200u);
    ASSERT_TRUE(image->snapshots()->apply("one"));
    EXPECT_EQ(first_byte(*image), 1);
    expect_clean(*image);
    fill(*image, 4);
    ASSERT_TRUE(image->snapshots()->apply("2"));
    EXPECT_EQ(first_byte(*image), 2);
    ASSERT_TRUE(image->snapshots()->remove("one"));
    ASSERT_TRUE(image->snapshots()->remove("two"));
    EXPECT_EQ(first_byte(*image), 2);
    EXPECT_TRUE(image->snapshots()->list()->empty());
    expect_clean(*image);
  }
}

TEST(Qcow2Snapshot, RestoresTheSizeOfTheDisk) {
  MemoryStore file = made();
  const auto image = reopen(file);
  ASSERT_TRUE(image->snapshots()->create("small", 0));
  ASSERT_TRUE(image->grow(5 * kMiB));
  ASSERT_TRUE(image->snapshots()->apply("small"));
  EXPECT_EQ(image->geometry().size, 2 * kMiB);
  expect_clean(*image);
}

TEST(Qcow2Snapshot, RefusesWhatCannotBeKept) {
  MemoryStore file = made();
  const auto image = reopen(file);
  EXPECT_FALSE(image->snapshots()->create("", 0));
  EXPECT_FALSE(image->snapshots()->apply("none"));
  EXPECT_FALSE(image->snapshots()->remove("none"));
  ASSERT_TRUE(image->snapshots()->create("one", 0));
  EXPECT_NE(image->snapshots()->create("one", 0).error().message.find("exists"), std::string::npos);
  MemoryStore narrow = made({{"refcount_bits", "1"}});
  const auto of_one_bit = reopen(narrow);
  EXPECT_NE(of_one_bit->snapshots()->create("one", 0).error().message.find("no more users"), std::string::npos);
  expect_clean(*of_one_bit);
}

// Four users are the most that two bits count: the disk and three snapshots would be one too many.
TEST(Qcow2Snapshot, CanBeDeletedWhereNoMoreCouldBeMade) {
  MemoryStore file = made({{"refcount_bits", "2"}});
  const auto image = reopen(file);
  fill(*image, 1);
  ASSERT_TRUE(image->snapshots()->create("one", 0));
  ASSERT_TRUE(image->snapshots()->create("two", 0));
  EXPECT_NE(image->snapshots()->create("three", 0).error().message.find("no more users"), std::string::npos);
  const auto removed = image->snapshots()->remove("one");
  ASSERT_TRUE(removed) << removed.error().message;
  ASSERT_TRUE(image->snapshots()->create("three", 0));
  expect_clean(*image);
}

// They are of the disk's contents, which a snapshot that is made or deleted does not change.
TEST(Qcow2Snapshot, KeepsTheBitmapsOfTheImage) {
  MemoryStore file = made();
  const auto changed = [](Image& image) {
    std::vector<std::pair<uint64_t, uint64_t>> runs;
    EXPECT_TRUE(image.bitmaps()->each_changed("b", [&](uint64_t at, uint64_t size) { runs.emplace_back(at, size); }));
    return runs;
  };
  {
    const auto image = reopen(file);
    ASSERT_TRUE(image->bitmaps()->add_bitmap("b", 65536));
    ASSERT_TRUE(image->snapshots()->create("one", 0));
    ASSERT_EQ(image->write(65536, std::vector<uint8_t>(512, 1)), Status::kOk);
  }
  {
    const auto image = reopen(file);
    expect_clean(*image);
    ASSERT_TRUE(image->snapshots()->create("two", 0));
    const auto applied = image->snapshots()->apply("one");
    ASSERT_FALSE(applied);
    EXPECT_NE(applied.error().message.find("bitmaps"), std::string::npos) << applied.error().message;
    ASSERT_TRUE(image->snapshots()->remove("one"));
    expect_clean(*image);
    EXPECT_EQ(changed(*image), (std::vector<std::pair<uint64_t, uint64_t>>{{65536, 65536}}));
  }
  const auto image = reopen(file);
  expect_clean(*image);
  EXPECT_EQ(changed(*image), (std::vector<std::pair<uint64_t, uint64_t>>{{65536, 65536}}));
  ASSERT_TRUE(image->bitmaps()->remove_bitmap("b"));
  ASSERT_TRUE(image->snapshots()->apply("two"));
  EXPECT_EQ(image->snapshots()->list().value().size(), 1u);
  expect_clean(*image);
}

// At any cut, the disk is as before or as after, and the image is clean once it has been opened.
class Qcow2Snapshots : public ::testing::TestWithParam<const char*> {};

TEST_P(Qcow2Snapshots, SurvivesAPowerCut) {
  MemoryStore file = made({{"cluster_size", "4096"}, {"version", GetParam()}});
  {
    const auto image = reopen(file);
    fill(*image, 1);
    ASSERT_TRUE(image->snapshots()->create("one", 0));
    fill(*image, 2);
  }
  const MemoryStore start = file;
  block::testing::CrashLog log;
  {
    auto image = qcow2::open(std::make_unique<block::testing::RecordingStore>(file, log), Access::kReadWrite,
                             ImageOpener("/nowhere"))
                     .value();
    ASSERT_TRUE(image->snapshots()->create("two", 0));
    ASSERT_TRUE(image->snapshots()->apply("one"));
    ASSERT_TRUE(image->snapshots()->remove("one"));
  }
  std::mt19937_64 random(1);
  MemoryStore flushed = start;
  size_t flush = 0;
  for (size_t end = 0; end <= log.size(); ++end) {
    if (end != 0 && log[end - 1].kind == block::testing::Change::Kind::kFlush) {
      for (; flush < end; ++flush) block::testing::apply(flushed, log[flush], [](uint64_t) { return true; });
    }
    for (int i = 0; i < 4; ++i) {
      SCOPED_TRACE(fmt::format("cut behind change {} of {}", end, log.size()));
      MemoryStore disk = block::testing::cut_state(flushed, log, flush, end, random);
      EXPECT_EQ(check_as_it_is(disk).errors, 0u);
      const auto image = reopen(disk);
      const uint8_t found = first_byte(*image);
      EXPECT_TRUE(found == 1 || found == 2) << unsigned{found};
      ASSERT_EQ(image->check(Repair::kNone)->errors, 0u);
      const std::vector<Snapshot> snapshots = image->snapshots()->list().value();
      for (const Snapshot& one : snapshots) {
        ASSERT_TRUE(image->snapshots()->apply(one.id));
        EXPECT_EQ(first_byte(*image), one.name == "one" ? 1 : 2);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Versions, Qcow2Snapshots, ::testing::Values("2", "3"));

TEST(Qcow2Shrink, GivesUpTheEndAndKeepsTheRest) {
  MemoryStore file = made({{"cluster_size", "4096"}});
  const auto image = reopen(file);
  ASSERT_EQ(image->write(0, std::vector<uint8_t>(2 * kMiB, 7)), Status::kOk);
  ASSERT_TRUE(image->shrink(kMiB + 512));
  EXPECT_EQ(image->geometry().size, kMiB + 512);
  EXPECT_EQ(first_byte(*image), 7);
  expect_clean(*image);
  // What comes back is zeroes.
  ASSERT_TRUE(image->grow(2 * kMiB));
  std::vector<uint8_t> bytes(kMiB - 512);
  ASSERT_EQ(image->read(kMiB + 512, bytes), Status::kOk);
  EXPECT_EQ(std::ranges::count(bytes, 0), static_cast<int64_t>(bytes.size()));
}

TEST(Qcow2Backing, IsRenamedByOneSector) {
  MemoryStore file = made();
  {
    const auto image = reopen(file);
    fill(*image, 1);
    ASSERT_TRUE(image->snapshots()->create("one", 0));
    const std::vector<uint8_t> before = file.bytes();
    ASSERT_TRUE(image->set_backing("other.raw", "raw"));
    EXPECT_EQ(image->info().backing_name, "other.raw");
    EXPECT_TRUE(std::equal(before.begin() + 512, before.end(), file.bytes().begin() + 512));
    EXPECT_FALSE(image->set_backing(std::string(600, 'x'), "raw"));
    ASSERT_TRUE(image->set_backing("", ""));
  }
  const auto image = reopen(file);
  EXPECT_EQ(image->info().backing_name, "");
  EXPECT_EQ(image->snapshots()->list()->size(), 1u);
  expect_clean(*image);
}

}  // namespace
}  // namespace bulkhead::block::qcow2
