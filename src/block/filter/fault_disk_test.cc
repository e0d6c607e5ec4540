#include "block/filter/fault_disk.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <optional>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/time/fake_clock.h"

namespace bulkhead::block {
namespace {

constexpr uint64_t kSize = 1 << 20;

// Bytes in memory; it notes what comes.
class Below final : public Disk {
 public:
  explicit Below(std::string& log) : log_(log) {}
  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  void submit(Request request) override {
    log_ += fmt::format("{} {} {};", to_string(request.operation()), request.offset(), request.size());
    if (const Status status = check_against(geometry_, request); status != Status::kOk) {
      return request.complete(status);
    }
    uint8_t* at = bytes.data() + request.offset();
    for (const MutableByteSpan& buffer : request.buffers()) {
      if (request.operation() == Operation::kRead) std::memcpy(buffer.data(), at, buffer.size());
      if (request.operation() == Operation::kWrite) std::memcpy(at, buffer.data(), buffer.size());
      at += buffer.size();
    }
    request.complete(Status::kOk);
  }
  std::vector<uint8_t> bytes = std::vector<uint8_t>(kSize);

 private:
  std::string& log_;
  const Geometry geometry_{.size = kSize};
};

struct FaultDiskTest : testing::Test {
  std::string log;
  FakeClock clock;
  Below* below = nullptr;
  std::unique_ptr<FaultDisk> disk;
  std::vector<uint8_t> buffer = std::vector<uint8_t>(8192, 0xAB);
  std::optional<Status> answer;

  void make(const DiskFaults& faults) {
    ASSERT_TRUE(check_faults(faults));
    auto made = std::make_unique<Below>(log);
    below = made.get();
    disk = std::make_unique<FaultDisk>(std::move(made), "test", faults, &clock);
  }
  Request::Completion keep() {
    answer.reset();
    return [this](Status status) { answer = status; };
  }
  // In two buffers, the border within a sector.
  Status write(uint64_t offset, uint64_t size) {
    const MutableByteSpan all(buffer.data(), size);
    disk->submit(Request::write(offset, {all.first(size / 2 + 100), all.subspan(size / 2 + 100)}, keep()));
    return *answer;
  }
  Status read(uint64_t offset, uint64_t size) {
    disk->submit(Request::read(offset, {MutableByteSpan(buffer.data(), size)}, keep()));
    return *answer;
  }
  Status flush() {
    disk->submit(Request::flush(keep()));
    return *answer;
  }
  [[nodiscard]] uint64_t written() const { return static_cast<uint64_t>(std::ranges::count(below->bytes, 0xAB)); }
};

TEST_F(FaultDiskTest, LetsEverythingPassWithoutFaults) {
  make({.seed = 7});
  EXPECT_EQ(write(512, 1024), Status::kOk);
  EXPECT_EQ(read(512, 1024), Status::kOk);
  EXPECT_EQ(flush(), Status::kOk);
  EXPECT_EQ(log, "write 512 1024;read 512 1024;flush 0 0;");
  EXPECT_EQ(written(), 1024u);
}

TEST_F(FaultDiskTest, ErrorsHitTheirKindAloneAndNothingIsDone) {
  make({.read_error = DiskFaults::kAlways});
  EXPECT_EQ(read(0, 512), Status::kIoError);
  EXPECT_EQ(write(0, 512), Status::kOk);
  make({.write_error = DiskFaults::kAlways});
  log.clear();
  EXPECT_EQ(write(0, 512), Status::kIoError);
  disk->submit(Request::write_zeroes(0, 512, Unmap::kNo, keep()));
  EXPECT_EQ(answer, Status::kIoError);
  disk->submit(Request::discard(0, 512, keep()));
  EXPECT_EQ(answer, Status::kIoError);
  EXPECT_EQ(read(0, 512), Status::kOk);
  EXPECT_EQ(flush(), Status::kOk);
  EXPECT_EQ(log, "read 0 512;flush 0 0;");
  make({.no_space = DiskFaults::kAlways});
  EXPECT_EQ(write(0, 512), Status::kNoSpace);
}

TEST_F(FaultDiskTest, HitsAsManyAsItIsTold) {
  make({.seed = 3, .read_error = 100'000});
  int errors = 0;
  for (int i = 0; i < 10'000; ++i) errors += read(0, 512) == Status::kIoError ? 1 : 0;
  EXPECT_GT(errors, 850);
  EXPECT_LT(errors, 1150);
}

TEST_F(FaultDiskTest, OneSeedGivesTheSameFaultsAndAnotherOneOthers) {
  const auto run = [&](uint64_t seed) {
    make({.seed = seed, .write_error = 100'000, .torn = 200'000, .torn_silent = 100'000, .misdirected = 200'000});
    log.clear();
    for (uint64_t i = 0; i < 200; ++i) (void)write(i * 4096, 4096);
    return log;
  };
  const std::string first = run(7);
  EXPECT_EQ(run(7), first);
  EXPECT_NE(run(8), first);
}

TEST_F(FaultDiskTest, AFlushThatFailedNeverSucceedsLater) {
  make({.seed = 1, .flush_error = 200'000});
  int good = 0;
  while (flush() == Status::kOk) ASSERT_LT(++good, 1000);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(flush(), Status::kLost);
  EXPECT_EQ(write(0, 512), Status::kOk);
}

TEST_F(FaultDiskTest, ATornWriteLeavesItsFirstSectors) {
  for (const bool silent : {false, true}) {
    std::array<bool, 8> seen{};
    for (uint64_t seed = 0; seed < 100; ++seed) {
      make({.seed = seed, .torn = silent ? 0 : DiskFaults::kAlways, .torn_silent = silent ? DiskFaults::kAlways : 0});
      EXPECT_EQ(write(4096, 4096), silent ? Status::kOk : Status::kIoError);
      const uint64_t kept = written();
      ASSERT_EQ(kept % 512, 0u);
      ASSERT_LT(kept, 4096u);
      EXPECT_EQ(
          std::ranges::count(below->bytes.begin() + 4096, below->bytes.begin() + 4096 + static_cast<long>(kept), 0xAB),
          static_cast<long>(kept));
      seen[kept / 512] = true;
    }
    EXPECT_EQ(std::ranges::count(seen, true), 8);
  }
}

TEST_F(FaultDiskTest, AMisdirectedWriteLandsSomewhereElse) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    make({.seed = seed, .misdirected = DiskFaults::kAlways});
    EXPECT_EQ(write(4096, 1024), Status::kOk);
    EXPECT_EQ(written(), 1024u);
    EXPECT_LT(std::ranges::count(below->bytes.begin() + 4096, below->bytes.begin() + 5120, 0xAB), 1024);
  }
}

TEST_F(FaultDiskTest, RangesFailWhateverTouchesThem) {
  make({.bad = {{8192, 512}}, .full = {{65536, 65536}}});
  EXPECT_EQ(read(8192, 512), Status::kIoError);
  EXPECT_EQ(read(7680, 1024), Status::kIoError);
  EXPECT_EQ(write(4096, 8192), Status::kIoError);
  EXPECT_EQ(read(7680, 512), Status::kOk);
  EXPECT_EQ(read(8704, 512), Status::kOk);
  EXPECT_EQ(write(131072 - 512, 1024), Status::kNoSpace);
  EXPECT_EQ(read(65536, 512), Status::kOk);
  EXPECT_EQ(write(131072, 512), Status::kOk);
  EXPECT_EQ(flush(), Status::kOk);
}

TEST_F(FaultDiskTest, WhatTheDiskRefusesItRefuses) {
  make({.misdirected = DiskFaults::kAlways});
  EXPECT_EQ(write(kSize, 512), Status::kOutOfRange);
  EXPECT_EQ(write(100, 512), Status::kOutOfRange);
}

TEST_F(FaultDiskTest, ADelayHoldsEachRequestAndItsErrorBack) {
  make({.delay_ns = 5'000'000, .bad = {{0, 512}}});
  std::vector<Status> answers;
  const auto note = [&](Status status) { answers.push_back(status); };
  disk->submit(Request::write(4096, {MutableByteSpan(buffer.data(), 512)}, note));
  clock.advance(2'000'000);
  disk->submit(Request::read(0, {MutableByteSpan(buffer.data(), 512)}, note));
  clock.advance(2'999'999);
  EXPECT_EQ(answers.size(), 0u);
  EXPECT_EQ(log, "");
  clock.advance(1);
  EXPECT_EQ(answers, (std::vector<Status>{Status::kOk}));
  clock.advance(2'000'000);
  EXPECT_EQ(answers, (std::vector<Status>{Status::kOk, Status::kIoError}));
}

TEST_F(FaultDiskTest, JitterLetsRequestsOvertakeEachOther) {
  make({.seed = 1, .delay_ns = 1'000'000, .jitter_ns = 10'000'000});
  std::vector<int> order;
  for (int i = 0; i < 50; ++i) {
    disk->submit(Request::read(0, {MutableByteSpan(buffer.data(), 512)}, [&order, i](Status) { order.push_back(i); }));
  }
  clock.advance(999'999);
  EXPECT_EQ(order.size(), 0u);
  clock.advance(10'000'001);
  EXPECT_EQ(order.size(), 50u);
  EXPECT_FALSE(std::ranges::is_sorted(order));
}

TEST_F(FaultDiskTest, WhatWaitsIsCarriedOutWhenTheDiskGoes) {
  make({.delay_ns = 1'000'000'000});
  disk->submit(Request::write(0, {MutableByteSpan(buffer.data(), 512)}, keep()));
  disk.reset();
  EXPECT_EQ(answer, Status::kOk);
  EXPECT_EQ(log, "write 0 512;");
}

TEST(DiskFaults, AreChecked) {
  EXPECT_TRUE(check_faults({.write_error = 500'000, .torn = 500'000}));
  EXPECT_FALSE(check_faults({.write_error = 500'000, .torn = 500'001}));
  EXPECT_FALSE(check_faults({.read_error = 1'000'001}));
  EXPECT_FALSE(check_faults({.delay_ns = DiskFaults::kMostDelay_ns + 1}));
  EXPECT_FALSE(check_faults({.bad = {{0, 0}}}));
  EXPECT_FALSE(check_faults({.full = {{~0ull, 2}}}));
  EXPECT_FALSE(check_faults({.bad = std::vector<DiskFaults::Range>(65, {0, 512})}));
  EXPECT_FALSE(DiskFaults{.seed = 7}.any());
  EXPECT_TRUE((DiskFaults{.torn = 1}).any());
}

}  // namespace
}  // namespace bulkhead::block
