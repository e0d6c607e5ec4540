#include "block/filter/throttle/throttle_disk.h"

#include <vector>

#include <gtest/gtest.h>

#include "support/time/fake_clock.h"

namespace bulkhead::block {
namespace {

constexpr uint64_t kMillisecond = 1'000'000, kSecond = 1'000'000'000;

// Answers at once, and remembers where the requests were for.
class CountingDisk final : public Disk {
 public:
  explicit CountingDisk(std::vector<uint64_t>& offsets) : offsets_(offsets) {}
  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  void submit(Request request) override {
    offsets_.push_back(request.offset());
    request.complete(Status::kOk);
  }

 private:
  std::vector<uint64_t>& offsets_;
  Geometry geometry_{.size = uint64_t{1} << 40};
};

class Throttle : public ::testing::Test {
 protected:
  std::unique_ptr<ThrottleDisk> make(const ThrottleLimits& limits) {
    return join(std::make_shared<ThrottleGroup>(limits, clock_));
  }
  std::unique_ptr<ThrottleDisk> join(std::shared_ptr<ThrottleGroup> group) {
    return std::make_unique<ThrottleDisk>(std::make_unique<CountingDisk>(passed_), std::move(group));
  }
  void write(Disk& disk, size_t size = 512, uint64_t offset = 0) {
    bytes_.resize(std::max(bytes_.size(), size));
    disk.submit(Request::write(offset, {MutableByteSpan(bytes_).first(size)}, [this](Status status) {
      EXPECT_EQ(status, Status::kOk);
      ++answered_;
    }));
  }

  FakeClock clock_;
  std::vector<uint64_t> passed_;
  std::vector<uint8_t> bytes_ = std::vector<uint8_t>(1 << 20);
  unsigned answered_ = 0;
};

TEST_F(Throttle, LetsABurstPassAndThenTheRate) {
  const auto disk = make({.requests_a_second = 100, .request_burst = 20});
  for (int i = 0; i < 200; ++i) write(*disk);
  EXPECT_EQ(answered_, 20u);
  clock_.advance(9 * kMillisecond);
  EXPECT_EQ(answered_, 20u);
  clock_.advance(kMillisecond);
  EXPECT_EQ(answered_, 21u);
  clock_.advance(kSecond);
  EXPECT_EQ(answered_, 121u);
  clock_.advance(kSecond);
  EXPECT_EQ(answered_, 200u);
  EXPECT_EQ(clock_.armed_count(), 0u);
}

TEST_F(Throttle, ARestFillsTheBucketAgainAndNoFurther) {
  const auto disk = make({.requests_a_second = 10, .request_burst = 5});
  for (int i = 0; i < 5; ++i) write(*disk);
  EXPECT_EQ(answered_, 5u);
  clock_.advance(100 * kSecond);
  for (int i = 0; i < 20; ++i) write(*disk);
  EXPECT_EQ(answered_, 10u);
}

TEST_F(Throttle, LimitsBytesAndPassesWhatIsLargerThanTheBurst) {
  const auto disk = make({.bytes_a_second = 1 << 20, .byte_burst = 65536});
  write(*disk, 1 << 20);
  EXPECT_EQ(answered_, 1u);
  write(*disk, 65536);
  clock_.advance(kSecond - kMillisecond);
  EXPECT_EQ(answered_, 1u);
  clock_.advance(kMillisecond);
  EXPECT_EQ(answered_, 2u);
}

TEST_F(Throttle, HoldsBothLimitsAtOnce) {
  const auto disk = make({.requests_a_second = 1000, .request_burst = 1, .bytes_a_second = 512'000, .byte_burst = 512});
  for (int i = 0; i < 100; ++i) write(*disk, 1024);
  clock_.advance(10 * kMillisecond);
  EXPECT_LE(answered_, 6u);
  EXPECT_GE(answered_, 5u);
}

TEST_F(Throttle, KeepsTheOrderOfADisk) {
  const auto disk = make({.requests_a_second = 1});
  for (uint64_t i = 0; i < 5; ++i) write(*disk, 512, i * 512);
  clock_.advance(10 * kSecond);
  EXPECT_EQ(passed_, (std::vector<uint64_t>{0, 512, 1024, 1536, 2048}));
}

TEST_F(Throttle, FlushesAndDiscardsPassByThoseThatWait) {
  const auto disk = make({.requests_a_second = 1});
  write(*disk);
  write(*disk);
  unsigned others = 0;
  disk->submit(Request::flush([&](Status) { ++others; }));
  disk->submit(Request::discard(0, 4096, [&](Status) { ++others; }));
  EXPECT_EQ(answered_, 1u);
  EXPECT_EQ(others, 2u);
  clock_.advance(kSecond);
  EXPECT_EQ(answered_, 2u);
}

TEST_F(Throttle, DisksOfAGroupShareItsLimitInTurns) {
  const auto group =
      std::make_shared<ThrottleGroup>(ThrottleLimits{.requests_a_second = 10, .request_burst = 1}, clock_);
  const auto greedy = join(group), modest = join(group);
  for (int i = 0; i < 100; ++i) write(*greedy, 512, 0);
  for (int i = 0; i < 3; ++i) write(*modest, 512, 4096);
  clock_.advance(6 * kSecond / 10);
  EXPECT_EQ(passed_.size(), 7u);
  EXPECT_EQ(std::ranges::count(passed_, 4096), 3);
}

TEST_F(Throttle, ADiskThatGoesAnswersWhatWaitsAndLeavesTheOthersWaiting) {
  const auto group = std::make_shared<ThrottleGroup>(ThrottleLimits{.requests_a_second = 1}, clock_);
  auto gone = join(group);
  const auto stays = join(group);
  write(*gone);
  for (int i = 0; i < 3; ++i) write(*gone);
  write(*stays, 512, 512);
  EXPECT_EQ(answered_, 1u);
  gone.reset();
  EXPECT_EQ(answered_, 4u);
  clock_.advance(kSecond);
  EXPECT_EQ(answered_, 5u);
}

TEST_F(Throttle, HoldsExtremeLimitsWithoutOverflow) {
  const auto slow = make({.requests_a_second = 1, .request_burst = UINT64_MAX, .bytes_a_second = 1});
  write(*slow, 1 << 20);
  write(*slow, 1 << 20);
  EXPECT_EQ(answered_, 1u);
  clock_.advance(uint64_t{1 << 20} * kSecond);
  EXPECT_EQ(answered_, 2u);
  const auto fast = make({.requests_a_second = UINT64_MAX, .bytes_a_second = UINT64_MAX});
  for (int i = 0; i < 1000; ++i) write(*fast, 1 << 20);
  EXPECT_EQ(answered_, 1002u);
}

}  // namespace
}  // namespace bulkhead::block
