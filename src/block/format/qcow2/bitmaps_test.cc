#include "block/format/qcow2/bitmaps.h"

#include <algorithm>
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "block/format/qcow2/qcow2_image.h"
#include "block/testing/crash_log.h"
#include "block/testing/shared_store.h"

namespace bulkhead::block::qcow2 {
namespace {

using testing::CrashLog, testing::RecordingStore, testing::SharedStore;
using Runs = std::vector<std::pair<uint64_t, uint64_t>>;

constexpr uint64_t kMiB = uint64_t{1} << 20;

class QcowBitmaps : public ::testing::Test {
 protected:
  QcowBitmaps() { EXPECT_TRUE(qcow2::create(file_, {.size = 64 * kMiB, .settings = {{"cluster_size", "4096"}}})); }

  static std::unique_ptr<Image> open(MemoryStore& file, Access access = Access::kReadWrite) {
    auto image = qcow2::open(std::make_unique<SharedStore>(file), access, ImageOpener("/nonexistent"));
    EXPECT_TRUE(image) << image.error().message;
    return std::move(image).value();
  }
  std::unique_ptr<Image> open(Access access = Access::kReadWrite) { return open(file_, access); }
  static Runs changed(Image& image, const std::string& name) {
    Runs runs;
    const auto done =
        image.bitmaps()->each_changed(name, [&](uint64_t offset, uint64_t size) { runs.emplace_back(offset, size); });
    EXPECT_TRUE(done) << done.error().message;
    return runs;
  }
  static void write(Image& image, uint64_t offset, uint64_t size) {
    ASSERT_EQ(image.write(offset, std::vector<uint8_t>(size, 7)), Status::kOk);
  }
  static void expect_clean(Image& image) {
    const auto report = image.check(Repair::kNone).value();
    EXPECT_EQ(report.errors, 0u) << report.messages.front();
    EXPECT_EQ(report.leaks, 0u) << report.messages.front();
  }
  // Where the bitmaps' directory lies.
  uint64_t directory() { return __builtin_bswap64(load<uint64_t>(&file_.bytes()[112 + 24])); }
  void make_two();

  MemoryStore file_;
};

TEST_F(QcowBitmaps, KnowAfterTheImageWasClosedWhatWasWritten) {
  {
    const auto image = open();
    write(*image, 0, 4096);
    ASSERT_TRUE(image->bitmaps()->add_bitmap("one", 65536));
    write(*image, kMiB + 100, 65536);
    ASSERT_EQ(image->write_zeroes(3 * kMiB, 4096, Unmap::kYes), Status::kOk);
  }
  {
    const auto image = open();
    EXPECT_EQ(changed(*image, "one"), (Runs{{kMiB, 131072}, {3 * kMiB, 65536}}));
    ASSERT_TRUE(image->bitmaps()->add_bitmap("two", 512));
    ASSERT_EQ(image->discard(64 * kMiB - 4096, 4096), Status::kOk);
  }
  const auto image = open(Access::kReadOnly);
  EXPECT_EQ(changed(*image, "one"), (Runs{{kMiB, 131072}, {3 * kMiB, 65536}, {64 * kMiB - 65536, 65536}}));
  EXPECT_EQ(changed(*image, "two"), (Runs{{64 * kMiB - 4096, 4096}}));
  EXPECT_EQ(image->bitmaps()->list_bitmaps().value().size(), 2u);
  EXPECT_FALSE(image->bitmaps()->each_changed("three", [](uint64_t, uint64_t) {}));
  expect_clean(*image);
}

TEST_F(QcowBitmaps, AreLostWhenTheImageWasNotClosed) {
  {
    const auto image = open();
    ASSERT_TRUE(image->bitmaps()->add_bitmap("one", 65536));
  }
  const auto image = open();
  write(*image, 0, 4096);
  ASSERT_EQ(image->flush(), Status::kOk);
  MemoryStore left = file_;  // as a crash leaves it
  const auto after = open(left);
  const Bitmap found = after->bitmaps()->list_bitmaps().value().at(0);
  EXPECT_EQ(found.name, "one");
  EXPECT_FALSE(found.known);
  EXPECT_FALSE(after->bitmaps()->each_changed("one", [](uint64_t, uint64_t) {}));
  expect_clean(*after);
  // It can still be removed, and gives its space back.
  ASSERT_TRUE(after->bitmaps()->remove_bitmap("one"));
  expect_clean(*after);
  EXPECT_TRUE(after->bitmaps()->list_bitmaps().value().empty());
}

TEST_F(QcowBitmaps, SurviveEveryPowerCutOrAreLost) {
  {
    const auto image = open();
    ASSERT_TRUE(image->bitmaps()->add_bitmap("one", 65536));
    write(*image, 5 * kMiB, 4096);
  }
  MemoryStore start = file_;
  CrashLog log;
  {
    auto image =
        qcow2::open(std::make_unique<RecordingStore>(file_, log), Access::kReadWrite, ImageOpener("/nonexistent"));
    ASSERT_TRUE(image);
    for (uint64_t i = 0; i < 10; ++i) write(**image, i * kMiB, 8192);
    ASSERT_EQ((*image)->flush(), Status::kOk);
    ASSERT_TRUE((*image)->bitmaps()->add_bitmap("two", 4096));
    write(**image, 20 * kMiB, 4096);
  }
  std::mt19937_64 random(1);
  size_t flush = 0, known = 0;
  MemoryStore flushed = start;
  for (size_t end = 0; end <= log.size(); ++end) {
    if (end != 0 && log[end - 1].kind == testing::Change::Kind::kFlush) {
      for (; flush < end; ++flush) testing::apply(flushed, log[flush], [](uint64_t) { return true; });
    }
    MemoryStore left = testing::cut_state(flushed, log, flush, end, random);
    const auto image = open(left);
    const auto report = image->check(Repair::kNone).value();
    ASSERT_EQ(report.errors, 0u) << report.messages.front();
    const auto listed = image->bitmaps()->list_bitmaps().value();
    for (const Bitmap& one : listed) {
      if (!one.known || one.name != "one") continue;
      ++known;
      // Before the first write, or all of them: nothing that was written is missing.
      std::vector<uint8_t> data(4096);
      ASSERT_EQ(image->read(kMiB, data), Status::kOk);
      const Runs runs = changed(*image, "one");
      if (data[0] == 7) {
        EXPECT_NE(std::ranges::find(runs, std::pair(kMiB, uint64_t{65536})), runs.end()) << end;
      }
    }
  }
  EXPECT_GT(known, 1u);
  EXPECT_LT(known, log.size());
}

TEST_F(QcowBitmaps, SettingAnotherBackingFileKeepsThem) {
  {
    const auto image = open();
    ASSERT_TRUE(image->bitmaps()->add_bitmap("one", 65536));
  }
  {
    const auto image = open();
    ASSERT_TRUE(image->set_backing("", ""));
  }
  EXPECT_TRUE(open(Access::kReadOnly)->bitmaps()->list_bitmaps().value().at(0).known);
}

// "followed" notes every write, "kept" (whose table has several clusters) stays as it is; both know of two places.
void QcowBitmaps::make_two() {
  {
    const auto image = open();
    ASSERT_TRUE(image->bitmaps()->add_bitmap("kept", 512));
    ASSERT_TRUE(image->bitmaps()->add_bitmap("followed", 65536));
    write(*image, 5 * kMiB, 4096);
    write(*image, 64 * kMiB - 4096, 4096);
  }
  // The first entry's flags, as QEMU disables a bitmap.
  file_.bytes()[directory() + 15] = 0;
  const auto image = open(Access::kReadOnly);
  const auto listed = image->bitmaps()->list_bitmaps().value();
  ASSERT_FALSE(listed.at(0).automatic);
  ASSERT_TRUE(listed.at(0).known && listed.at(1).known && listed.at(1).automatic);
}

TEST_F(QcowBitmaps, GrowAndShrinkWithTheDisk) {
  ASSERT_NO_FATAL_FAILURE(make_two());
  {
    const auto image = open();
    ASSERT_TRUE(image->grow(80 * kMiB + 512));
    EXPECT_EQ(changed(*image, "followed"), (Runs{{5 * kMiB, 65536}, {64 * kMiB - 65536, 65536}}));
    write(*image, 80 * kMiB, 512);
  }
  {
    const auto image = open(Access::kReadOnly);
    EXPECT_EQ(changed(*image, "followed"), (Runs{{5 * kMiB, 65536}, {64 * kMiB - 65536, 65536}, {80 * kMiB, 512}}));
    EXPECT_EQ(changed(*image, "kept"), (Runs{{5 * kMiB, 4096}, {64 * kMiB - 4096, 4096}}));
    expect_clean(*image);
  }
  {
    const auto image = open();
    ASSERT_TRUE(image->shrink(5 * kMiB + 1024));
    EXPECT_EQ(changed(*image, "followed"), (Runs{{5 * kMiB, 1024}}));
    EXPECT_EQ(changed(*image, "kept"), (Runs{{5 * kMiB, 1024}}));
    expect_clean(*image);
    // What was cut off is not there again, in one life of the program or in two.
    ASSERT_TRUE(image->grow(64 * kMiB));
    EXPECT_EQ(changed(*image, "followed"), (Runs{{5 * kMiB, 65536}}));
    EXPECT_EQ(changed(*image, "kept"), (Runs{{5 * kMiB, 1024}}));
  }
  const auto image = open(Access::kReadOnly);
  EXPECT_EQ(changed(*image, "followed"), (Runs{{5 * kMiB, 65536}}));
  EXPECT_EQ(changed(*image, "kept"), (Runs{{5 * kMiB, 1024}}));
  expect_clean(*image);
}

TEST_F(QcowBitmaps, FitTheSizeAtEveryPowerCut) {
  ASSERT_NO_FATAL_FAILURE(make_two());
  const MemoryStore start = file_;
  CrashLog log;
  {
    auto image =
        qcow2::open(std::make_unique<RecordingStore>(file_, log), Access::kReadWrite, ImageOpener("/nonexistent"));
    ASSERT_TRUE(image);
    ASSERT_TRUE((*image)->grow(300 * kMiB));
    ASSERT_TRUE((*image)->shrink(5 * kMiB + 1024));
  }
  const std::map<uint64_t, Runs> kept = {{64 * kMiB, {{5 * kMiB, 4096}, {64 * kMiB - 4096, 4096}}},
                                         {300 * kMiB, {{5 * kMiB, 4096}, {64 * kMiB - 4096, 4096}}},
                                         {5 * kMiB + 1024, {{5 * kMiB, 1024}}}};
  std::map<uint64_t, unsigned> seen;
  std::mt19937_64 random(3);
  for (unsigned round = 0; round < 8; ++round) {
    size_t flush = 0;
    MemoryStore flushed = start;
    for (size_t end = 0; end <= log.size(); ++end) {
      if (end != 0 && log[end - 1].kind == testing::Change::Kind::kFlush) {
        for (; flush < end; ++flush) testing::apply(flushed, log[flush], [](uint64_t) { return true; });
      }
      MemoryStore left = testing::cut_state(flushed, log, flush, end, random);
      const auto image = open(left, Access::kReadOnly);
      const uint64_t size = image->geometry().size;
      ++seen[size];
      ASSERT_TRUE(kept.contains(size)) << size;
      ASSERT_EQ(image->check(Repair::kNone).value().errors, 0u) << end;
      ASSERT_EQ(changed(*image, "kept"), kept.at(size)) << end;
      const auto listed = image->bitmaps()->list_bitmaps().value();
      ASSERT_EQ(listed.size(), 2u);
      if (!listed[1].known) continue;
      ASSERT_EQ(changed(*image, "followed").size(), kept.at(size).size()) << end;
    }
  }
  EXPECT_EQ(seen.size(), 3u);
}

TEST_F(QcowBitmaps, OnesThatWouldBeTooLargeKeepTheDiskFromGrowing) {
  ASSERT_NO_FATAL_FAILURE(make_two());
  {
    const auto image = open();
    const auto grown = image->grow(65536 * kMiB);
    ASSERT_FALSE(grown);
    EXPECT_NE(grown.error().message.find("more than 16777216 bytes"), std::string::npos) << grown.error().message;
    EXPECT_EQ(image->geometry().size, 64 * kMiB);
    ASSERT_TRUE(image->bitmaps()->remove_bitmap("kept"));
    ASSERT_TRUE(image->grow(65536 * kMiB));
  }
  const auto image = open(Access::kReadOnly);
  EXPECT_EQ(changed(*image, "followed"), (Runs{{5 * kMiB, 65536}, {64 * kMiB - 65536, 65536}}));
  expect_clean(*image);
}

// A table may have more entries than there are bytes of memory for what they name.
TEST_F(QcowBitmaps, OneThatIsTooLargeIsNotRead) {
  ASSERT_NO_FATAL_FAILURE(make_two());
  {
    const auto image = open();
    ASSERT_TRUE(image->bitmaps()->remove_bitmap("kept"));
    ASSERT_TRUE(image->grow(uint64_t{1} << 40));
  }
  // Of 64 KiB a bit, and now of 512 bytes a bit: 256 MiB of bits.
  const uint64_t at = directory();
  file_.bytes()[at + 15] = 0;
  file_.bytes()[at + 17] = 9;
  const uint32_t entries = (256u << 20) / 4096;
  for (int i = 0; i < 4; ++i) file_.bytes()[at + 8 + i] = static_cast<uint8_t>(entries >> 8 * (3 - i));
  std::vector<uint8_t>& bytes = file_.bytes();
  const uint64_t table = align_up(bytes.size(), 4096);
  bytes.resize(table + uint64_t{entries} * 8);
  for (int i = 0; i < 8; ++i) bytes[at + i] = static_cast<uint8_t>(table >> 8 * (7 - i));
  const auto image = open(Access::kReadOnly);
  const auto read = image->bitmaps()->each_changed("followed", [](uint64_t, uint64_t) {});
  ASSERT_FALSE(read);
  EXPECT_NE(read.error().message.find("268435456 bytes, 16777216 is the most"), std::string::npos)
      << read.error().message;
}

// The clusters of a directory are given back when a new one is written: not those of one that is none.
TEST_F(QcowBitmaps, DirectoryOfNoneIsNotGivenBack) {
  {
    const auto image = open();
    ASSERT_TRUE(image->bitmaps()->add_bitmap("one", 65536));
  }
  file_.bytes()[112 + 8 + 3] = 0;    // the count
  file_.bytes()[112 + 16 + 4] = 64;  // 1 GiB of directory
  {
    const auto image = open();
    write(*image, 0, 4 * kMiB);
    ASSERT_TRUE(image->bitmaps()->add_bitmap("two", 65536));
  }
  const auto image = open();
  EXPECT_EQ(image->bitmaps()->list_bitmaps().value().size(), 1u);
  const auto report = image->check(Repair::kNone).value();
  EXPECT_EQ(report.errors, 0u) << report.messages.front();
}

TEST_F(QcowBitmaps, RefuseWhatMakesNoSense) {
  const auto image = open();
  Bitmaps& bitmaps = *image->bitmaps();
  ASSERT_TRUE(bitmaps.add_bitmap("one", 65536));
  EXPECT_FALSE(bitmaps.add_bitmap("one", 65536));
  EXPECT_FALSE(bitmaps.add_bitmap("", 65536));
  EXPECT_FALSE(bitmaps.add_bitmap(std::string(1024, 'x'), 65536));
  EXPECT_FALSE(bitmaps.add_bitmap("two", 65537));
  EXPECT_FALSE(bitmaps.add_bitmap("two", 256));
  EXPECT_FALSE(bitmaps.remove_bitmap("two"));
  EXPECT_TRUE(image->snapshots()->create("state", 0));
  EXPECT_FALSE(image->snapshots()->apply("state"));
}

// Whatever the directory and the tables say: the disk opens, and its bitmaps are lost at worst.
TEST_F(QcowBitmaps, HostileDirectoriesDoNotKeepTheDiskFromOpening) {
  {
    const auto image = open();
    ASSERT_TRUE(image->bitmaps()->add_bitmap("one", 65536));
    write(*image, 0, 4096);
  }
  const uint64_t at = directory();
  ASSERT_LT(at, file_.bytes().size());
  std::mt19937_64 random(7);
  for (int round = 0; round < 300; ++round) {
    MemoryStore damaged = file_;
    for (int i = 0; i < 3; ++i) damaged.bytes()[at + random() % 32] = static_cast<uint8_t>(random());
    auto image = open(damaged);
    (void)image->bitmaps()->list_bitmaps();
    (void)image->bitmaps()->each_changed("one", [](uint64_t, uint64_t) {});
    write(*image, kMiB, 4096);
    (void)image->check(Repair::kNone);
    image.reset();
    (void)open(damaged);
  }
}

}  // namespace
}  // namespace bulkhead::block::qcow2
