#include "cli/image/compare.h"

#include <atomic>
#include <set>

#include <gtest/gtest.h>

#include "block/store/memory/memory_store.h"
#include "cli/image/chunks.h"
#include "cli/image/copy.h"
#include "cli/image/runs.h"
#include "support/os/mutex.h"

namespace bulkhead::cli {
namespace {

constexpr uint64_t kSize = 5 * kChunk + 512;

// A raw disk that counts what is read of it.
class CountedImage final : public block::Image {
 public:
  explicit CountedImage(uint64_t size, std::string format = "raw") : format_(std::move(format)) {
    geometry_.size = size;
  }
  [[nodiscard]] const block::Geometry& geometry() const override { return geometry_; }
  [[nodiscard]] block::ImageInfo info() const override { return {.format = format_}; }
  [[nodiscard]] block::Status read(uint64_t offset, MutableByteSpan bytes) override {
    read_ += bytes.size();
    return store_.read(offset, bytes);
  }
  // The store grows, which it does for one thread at a time.
  [[nodiscard]] block::Status write(uint64_t offset, ByteSpan bytes) override {
    const LockGuard lock(mutex_);
    return store_.write(offset, bytes);
  }
  [[nodiscard]] block::Status write_compressed(uint64_t offset, ByteSpan bytes) override {
    const LockGuard lock(mutex_);
    EXPECT_EQ(offset % compression_unit(), 0u);
    return store_.write(offset, bytes);
  }
  [[nodiscard]] uint64_t compression_unit() const override { return 65536; }
  // Takes storage in grains, too.
  [[nodiscard]] block::Status reserve(uint64_t offset, uint64_t size) override {
    for (uint64_t at = offset; at < offset + size; at += 4096) reserved_.insert(at / 4096);
    return block::Status::kOk;
  }
  [[nodiscard]] block::Status write_zeroes(uint64_t offset, uint64_t size, block::Unmap unmap) override {
    if (unmap == block::Unmap::kNo) return block::Status::kUnsupported;
    const LockGuard lock(mutex_);
    for (uint64_t at = offset; at < offset + size; at += 4096) reserved_.erase(at / 4096);
    return block::Status::kOk;
  }
  [[nodiscard]] block::Status discard(uint64_t, uint64_t) override { return block::Status::kOk; }
  [[nodiscard]] block::Status flush() override { return block::Status::kOk; }
  // Data in the named grains of 4096 bytes, and a hole everywhere else.
  [[nodiscard]] Result<block::Extent> map(uint64_t offset) override {
    ++maps_;
    const auto next = data_.lower_bound(offset / 4096);
    if (next != data_.end() && *next == offset / 4096) {
      uint64_t grain = *next;
      while (data_.contains(grain)) ++grain;
      return block::Extent{grain * 4096 - offset, block::ExtentKind::kData};
    }
    const uint64_t end = next == data_.end() ? geometry_.size : std::min(geometry_.size, *next * 4096);
    return block::Extent{end - offset, block::ExtentKind::kAbsent};
  }
  [[nodiscard]] Result<block::CheckReport> check(block::Repair) override { return fail("raw"); }
  [[nodiscard]] Result<> grow(uint64_t) override { return fail("raw"); }
  [[nodiscard]] block::Image* backing() override { return below_; }

  void stand_on(block::Image& below) { below_ = &below; }

  void put(uint64_t offset, uint8_t value) {
    data_.insert(offset / 4096);
    EXPECT_EQ(store_.write(offset, std::vector<uint8_t>{value}), block::Status::kOk);
  }
  // All of it is data by the format's word, whatever it holds.
  void fill(uint64_t offset, uint64_t size) {
    for (uint64_t at = offset; at < offset + size; at += 4096) data_.insert(at / 4096);
  }
  [[nodiscard]] const std::set<uint64_t>& reserved() const { return reserved_; }
  [[nodiscard]] uint64_t bytes_read() const { return read_; }
  [[nodiscard]] uint64_t times_mapped() const { return maps_; }
  block::Store& store() { return store_; }

 private:
  Mutex mutex_;
  block::Geometry geometry_{};
  block::MemoryStore store_;
  const std::string format_;
  std::set<uint64_t> data_, reserved_;
  block::Image* below_ = nullptr;
  std::atomic<uint64_t> read_{0}, maps_{0};
};

TEST(Compare, AsksForALongHoleOnceAndNotForEachChunkOfIt) {
  CountedImage a(uint64_t{1} << 40), b(uint64_t{1} << 40);
  a.put(0, 1);
  b.put(0, 1);
  const auto found = first_difference(a, b, true);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(*found, std::nullopt);
  // There are half a million chunks, and threads that ask at the same moment.
  EXPECT_LE(a.times_mapped(), 1000u);
}

TEST(Runs, OfAChainAreWhatAReaderFinds) {
  CountedImage top(kSize), middle(3 * kChunk), bottom(kSize);
  top.stand_on(middle);
  middle.stand_on(bottom);
  top.put(8 * 4096, 1);
  middle.put(4 * 4096, 2);
  bottom.put(0, 3);
  bottom.put(4 * kChunk, 4);  // the middle one does not reach it
  Runs runs(top);
  std::vector<std::pair<uint64_t, bool>> seen;
  for (uint64_t offset = 0; offset < kSize; offset += seen.back().first) {
    const auto run = runs.at(offset);
    ASSERT_TRUE(run);
    seen.emplace_back(run->size, run->zero);
  }
  const std::vector<std::pair<uint64_t, bool>> expected = {{4096, false},
                                                           {3 * 4096, true},
                                                           {4096, false},
                                                           {3 * 4096, true},
                                                           {4096, false},
                                                           {3 * kChunk - 9 * 4096, true},
                                                           {kSize - 3 * kChunk, true}};
  EXPECT_EQ(seen, expected);
}

TEST(Compare, FindsTheFirstDifferenceWhicheverThreadMeetsItFirst) {
  for (const uint64_t at : {uint64_t{0}, kChunk - 1, kChunk, 3 * kChunk + 777, kSize - 1}) {
    CountedImage a(kSize), b(kSize);
    a.put(at, 7);
    a.put(kSize - 1, 9);
    const auto found = first_difference(a, b, true);
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(*found, at);
  }
}

TEST(Compare, WhatIsAHoleInBothIsNotRead) {
  CountedImage b(uint64_t{1} << 34), c(uint64_t{1} << 34);
  b.put(12345, 1);
  c.put(12345, 1);
  EXPECT_EQ(first_difference(b, c, true).value(), std::nullopt);
  EXPECT_EQ(b.bytes_read(), 4096u);
}

TEST(Copy, WhatIsAHoleIsNotReadToBeCompressedAndUnitsComeWhole) {
  CountedImage from(kSize), to(kSize);
  for (const uint64_t at : {uint64_t{70000}, 2 * kChunk, 3 * kChunk - 1, kSize - 1}) from.put(at, 5);
  ASSERT_TRUE(copy_image(from, to, CopyMode::kCompressed, true));
  EXPECT_LE(from.bytes_read(), 4u * 65536);
  std::vector<uint8_t> expected(kSize), found(kSize);
  ASSERT_EQ(from.store().read(0, expected), block::Status::kOk);
  ASSERT_EQ(to.store().read(0, found), block::Status::kOk);
  EXPECT_TRUE(expected == found);
}

TEST(Copy, LongRunsHaveTheirStorageAheadAndGiveBackWhatIsZero) {
  for (const std::string format : {"qcow2", "raw"}) {
    CountedImage from(kSize, format), to(kSize);
    from.fill(kChunk, 2 * kChunk);      // long
    from.fill(4 * kChunk, kChunk / 4);  // short
    for (uint64_t at = kChunk; at < 2 * kChunk; at += 65536) from.put(at, 1);
    from.put(4 * kChunk, 2);
    ASSERT_TRUE(copy_image(from, to, CopyMode::kPlain, true));
    const std::set<uint64_t>& left = to.reserved();
    // Of a raw image nobody knows what lies in its blocks. Of the other, the second half of the run is zeroes.
    EXPECT_EQ(left.size(), format == "raw" ? 0 : kChunk / 4096) << format;
    if (!left.empty()) {
      EXPECT_EQ(*left.begin(), kChunk / 4096);
      EXPECT_EQ(*left.rbegin(), 2 * kChunk / 4096 - 1);
    }
    std::vector<uint8_t> expected(kSize), found(kSize);
    ASSERT_EQ(from.store().read(0, expected), block::Status::kOk);
    ASSERT_EQ(to.store().read(0, found), block::Status::kOk);
    EXPECT_TRUE(expected == found);
  }
}

}  // namespace
}  // namespace bulkhead::cli
