#include "block/store/file/two_ways.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/store/file/plain_file.h"

namespace bulkhead::block {
namespace {

constexpr uint64_t kChunk = 1 << 20, kChunks = 24;

class NewFile : public testing::Test {
 protected:
  ~NewFile() override {
    file_.reset();
    ::unlink(path_.c_str());
  }
  [[nodiscard]] uint64_t size_on_host() const {
    struct stat status{};
    EXPECT_EQ(::stat(path_.c_str(), &status), 0);
    return static_cast<uint64_t>(status.st_size);
  }

  // A filesystem may hold a few more than was written, for its own lists.
  [[nodiscard]] uint64_t blocks_on_host() const {
    struct stat status{};
    EXPECT_EQ(::stat(path_.c_str(), &status), 0);
    return static_cast<uint64_t>(status.st_blocks) * 512;
  }

  std::string path_ = testing::TempDir() + "two-ways-" + std::to_string(::getpid());
  std::unique_ptr<PlainFile> file_ = [&] {
    (void)PlainFile::create(path_).value();
    return PlainFile::open(path_, Access::kReadWrite, HostCache::kTrusted).value();
  }();
};

uint8_t byte_of(uint64_t offset) {
  return static_cast<uint8_t>(offset / 4096 * 31 + offset / kChunk);
}

// Several threads, so that some of them find the way through the cache taken; between the chunks an odd write each.
TEST_F(NewFile, HoldsWhatSeveralThreadsWroteEitherWay) {
  std::atomic<uint64_t> next{0};
  const auto work = [&] {
    const std::unique_ptr<uint8_t, void (*)(void*)> memory(static_cast<uint8_t*>(std::aligned_alloc(4096, kChunk)),
                                                           &std::free);
    for (uint64_t chunk; (chunk = next.fetch_add(1)) < kChunks;) {
      for (uint64_t i = 0; i < kChunk; ++i) memory.get()[i] = byte_of(chunk * 2 * kChunk + i);
      EXPECT_EQ(file_->write(chunk * 2 * kChunk, {memory.get(), kChunk}), Status::kOk);
      EXPECT_EQ(file_->write(chunk * 2 * kChunk + kChunk + 1, {memory.get(), 5}), Status::kOk);
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back(work);
  }
  constexpr uint64_t kEnd = (kChunks - 1) * 2 * kChunk + kChunk + 6;
  EXPECT_EQ(file_->size().value(), kEnd);
  EXPECT_EQ(file_->flush(), Status::kOk);
  std::vector<uint8_t> seen(2 * kChunk), expected(2 * kChunk);
  for (uint64_t chunk = 0; chunk < kChunks; ++chunk) {
    std::ranges::fill(expected, uint8_t{0});
    for (uint64_t i = 0; i < kChunk; ++i) expected[i] = byte_of(chunk * 2 * kChunk + i);
    std::copy_n(expected.begin(), 5, expected.begin() + kChunk + 1);
    ASSERT_EQ(file_->read(chunk * 2 * kChunk, seen), Status::kOk);
    ASSERT_EQ(seen, expected) << chunk;
  }
  // The room that was made ahead of the writes is gone with the file's closing.
  file_.reset();
  EXPECT_EQ(size_on_host(), kEnd);
}

// What shares a page of the cache with another write goes the ordinary way, or one of them would be lost.
TEST_F(NewFile, TakesWholePagesOnly) {
  file_.reset();
  const Fd file(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  const auto ways = TwoWays::open(file.get(), path_);
  if (ways == nullptr) GTEST_SKIP() << "no way past the cache here";
  const std::unique_ptr<uint8_t, void (*)(void*)> memory(static_cast<uint8_t*>(std::aligned_alloc(4096, kChunk)),
                                                         &std::free);
  std::fill_n(memory.get(), kChunk, uint8_t{7});
  EXPECT_TRUE(ways->write(0, {memory.get(), kChunk}));
  EXPECT_FALSE(ways->write(kChunk + 512, {memory.get(), kChunk}));
  EXPECT_FALSE(ways->write(kChunk, {memory.get(), kChunk - 512}));
  EXPECT_FALSE(ways->write(kChunk, {memory.get(), 4096}));
  EXPECT_EQ(ways->size(), kChunk);
}

TEST_F(NewFile, KeepsTheHolesBetweenItsWrites) {
  const std::unique_ptr<uint8_t, void (*)(void*)> memory(static_cast<uint8_t*>(std::aligned_alloc(4096, kChunk)),
                                                         &std::free);
  std::fill_n(memory.get(), kChunk, uint8_t{7});
  ASSERT_EQ(file_->write(0, {memory.get(), kChunk}), Status::kOk);
  ASSERT_EQ(file_->write(kChunk, {memory.get(), kChunk}), Status::kOk);
  ASSERT_EQ(file_->write(uint64_t{1} << 30, {memory.get(), kChunk}), Status::kOk);
  // By the ordinary way, beyond what is made ahead; then one that follows what was made.
  ASSERT_EQ(file_->write(uint64_t{3} << 30, {memory.get(), 3}), Status::kOk);
  ASSERT_EQ(file_->write((uint64_t{1} << 30) + (uint64_t{256} << 20), {memory.get(), kChunk}), Status::kOk);
  file_.reset();
  EXPECT_EQ(size_on_host(), (uint64_t{3} << 30) + 3);
  EXPECT_LT(blocks_on_host(), 5 * kChunk);
}

TEST_F(NewFile, IsAsLongAsItWasMadeAndNeverShorterThanItsData) {
  ASSERT_EQ(file_->truncate(100 << 20), Status::kOk);
  EXPECT_EQ(file_->size().value(), 100u << 20);
  const std::unique_ptr<uint8_t, void (*)(void*)> memory(static_cast<uint8_t*>(std::aligned_alloc(4096, kChunk)),
                                                         &std::free);
  std::fill_n(memory.get(), kChunk, uint8_t{7});
  // Far beyond what is made ahead, by either kind of write; then a large one in front of it.
  ASSERT_EQ(file_->write(uint64_t{1} << 30, {memory.get(), 3}), Status::kOk);
  ASSERT_EQ(file_->write(uint64_t{200} << 20, {memory.get(), kChunk}), Status::kOk);
  EXPECT_EQ(file_->size().value(), (uint64_t{1} << 30) + 3);
  std::vector<uint8_t> seen(3);
  ASSERT_EQ(file_->read(uint64_t{1} << 30, seen), Status::kOk);
  EXPECT_EQ(seen, std::vector<uint8_t>(3, 7));
  ASSERT_EQ(file_->truncate(4096), Status::kOk);
  file_.reset();
  EXPECT_EQ(size_on_host(), 4096u);
}

}  // namespace
}  // namespace bulkhead::block
