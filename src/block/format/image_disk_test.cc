#include "block/format/image_disk.h"

#include <atomic>
#include <functional>
#include <future>
#include <thread>

#include <gtest/gtest.h>

namespace bulkhead::block {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kSize = 1 << 20;

// Holds nothing; what it does with each transfer is up to the test.
class FakeImage final : public Image {
 public:
  explicit FakeImage(std::function<void()> work) : work_(std::move(work)) {}
  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  [[nodiscard]] ImageInfo info() const override { return {.format = "fake", .virtual_size = kSize}; }
  Status read(uint64_t, MutableByteSpan) override { return work_(), Status::kOk; }
  Status write(uint64_t, ByteSpan) override { return work_(), Status::kOk; }
  Status write_zeroes(uint64_t, uint64_t, Unmap) override { return work_(), Status::kOk; }
  Status discard(uint64_t, uint64_t) override { return work_(), Status::kOk; }
  Status flush() override { return work_(), Status::kOk; }
  Result<Extent> map(uint64_t offset) override { return Extent{.size = kSize - offset, .kind = ExtentKind::kData}; }
  Result<CheckReport> check(Repair) override { return CheckReport{}; }
  Result<> grow(uint64_t) override { return {}; }

 private:
  const Geometry geometry_{.size = kSize};
  const std::function<void()> work_;
};

// The thread that carried the last one out.
class Fixture : public ::testing::Test {
 protected:
  ImageDisk make(std::function<void()> work = [] {}) {
    return ImageDisk(std::make_unique<FakeImage>([this, work = std::move(work)] {
      work();
      by_ = std::this_thread::get_id();
    }));
  }
  // Whether a request is carried out on this thread; returns when it has been answered.
  bool here(ImageDisk& disk, Request (*make)(MutableByteSpan, Request::Completion), uint64_t size) {
    std::vector<uint8_t> bytes(size);
    std::promise<void> answered;
    disk.submit(make(bytes, [&](Status status) {
      EXPECT_EQ(status, Status::kOk);
      answered.set_value();
    }));
    answered.get_future().wait();
    return by_.load() == std::this_thread::get_id();
  }
  static Request read(MutableByteSpan bytes, Request::Completion done) {
    return Request::read(0, {bytes}, std::move(done));
  }
  static Request write(MutableByteSpan bytes, Request::Completion done) {
    return Request::write(0, {bytes}, std::move(done));
  }
  static Request flush(MutableByteSpan, Request::Completion done) { return Request::flush(std::move(done)); }
  std::atomic<std::thread::id> by_;
};

using ImageDiskOnTheSpot = Fixture;

TEST_F(ImageDiskOnTheSpot, CarriesOutASmallTransferWhenNothingElseIsUnderWay) {
  ImageDisk for_read = make(), for_write = make();
  EXPECT_TRUE(here(for_read, read, 4096));
  EXPECT_TRUE(here(for_write, write, OnTheSpot::kLargest));
}

TEST_F(ImageDiskOnTheSpot, LeavesWhatMayTakeLongToTheThreads) {
  ImageDisk disk = make();
  EXPECT_FALSE(here(disk, read, OnTheSpot::kLargest + 512));
  EXPECT_FALSE(here(disk, flush, 0));
}

TEST_F(ImageDiskOnTheSpot, LeavesTheNextToTheThreadsAfterOneThatTookLong) {
  std::atomic<bool> slow = true;
  ImageDisk disk = make([&] {
    if (slow) std::this_thread::sleep_for(2 * OnTheSpot::kLong);
  });
  EXPECT_TRUE(here(disk, write, 4096));
  slow = false;
  for (unsigned i = 0; i < OnTheSpot::kLeftToThreads; ++i) ASSERT_FALSE(here(disk, write, 4096)) << i;
  // One that comes while a thread has not yet noted the end of the one before is not counted.
  unsigned more = 0;
  while (!here(disk, write, 4096)) ASSERT_LT(++more, 100000u);
}

TEST_F(ImageDiskOnTheSpot, NeverWaitsBehindAnotherRequest) {
  std::promise<void> go, begun;
  std::shared_future<void> gone = go.get_future().share();
  std::atomic<bool> first = true;
  ImageDisk disk = make([&] {
    if (!first.exchange(false)) return;
    begun.set_value();
    gone.wait();
  });
  std::vector<uint8_t> bytes(kSize);
  std::promise<void> answered;
  disk.submit(Request::read(0, {bytes}, [&](Status) { answered.set_value(); }));
  begun.get_future().wait();
  EXPECT_FALSE(here(disk, read, 4096));
  go.set_value();
  answered.get_future().wait();
}

// Each answer brings the next request: on one stack they would not all fit.
TEST_F(ImageDiskOnTheSpot, GoesNoDeeperWithRequestsThatAreMadeInAnswers) {
  ImageDisk disk = make();
  std::vector<uint8_t> bytes(512);
  constexpr int kCount = 200000;
  std::atomic<int> answers{0};
  std::promise<void> all;
  std::function<void()> next = [&] {
    disk.submit(Request::write(0, {bytes}, [&](Status) {
      if (++answers == kCount) return all.set_value();
      next();
    }));
  };
  next();
  all.get_future().wait();
  EXPECT_EQ(answers.load(), kCount);
}

}  // namespace
}  // namespace bulkhead::block
