#include "block/filter/metered_disk.h"

#include <vector>

#include <gtest/gtest.h>

namespace bulkhead::block {
namespace {

// Keeps what it is given until the test answers it.
class HeldDisk final : public Disk {
 public:
  explicit HeldDisk(std::vector<Request>& held) : held_(held) {}
  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  void submit(Request request) override { held_.push_back(std::move(request)); }

 private:
  std::vector<Request>& held_;
  Geometry geometry_{.size = 1 << 20};
};

uint64_t now_ns = 0;
uint64_t test_now() {
  return now_ns;
}

uint64_t of(const std::array<uint64_t, MeteredDisk::kOperations>& counts, Operation operation) {
  return counts[static_cast<size_t>(operation)];
}

TEST(MeteredDisk, CountsRequestsWhenTheyComeAndBytesAndErrorsWhenTheyAreAnswered) {
  std::vector<Request> held;
  MeteredDisk disk(std::make_unique<HeldDisk>(held), nullptr);
  EXPECT_EQ(disk.geometry().size, uint64_t{1} << 20);
  std::vector<Status> told;
  const auto tell = [&](Status status) { told.push_back(status); };
  std::array<uint8_t, 1024> buffer{};
  disk.submit(Request::read(512, {MutableByteSpan(buffer)}, tell));
  disk.submit(Request::write(0, {MutableByteSpan(buffer).first(512)}, tell));
  disk.submit(Request::discard(4096, 8192, tell));
  disk.submit(Request::flush(tell));

  MeteredDisk::Counts counts = disk.counts();
  EXPECT_EQ(of(counts.requests, Operation::kRead), 1u);
  EXPECT_EQ(of(counts.bytes, Operation::kRead), 0u);
  EXPECT_EQ(counts.in_flight, 4u);

  held[0].complete(Status::kOk);
  held[1].complete(Status::kNoSpace);
  held[2].complete(Status::kOk);
  held[3].complete(Status::kOk);
  counts = disk.counts();
  EXPECT_EQ(of(counts.bytes, Operation::kRead), 1024u);
  EXPECT_EQ(of(counts.requests, Operation::kWrite), 1u);
  EXPECT_EQ(of(counts.bytes, Operation::kWrite), 0u);
  EXPECT_EQ(of(counts.bytes, Operation::kDiscard), 8192u);
  EXPECT_EQ(of(counts.requests, Operation::kFlush), 1u);
  EXPECT_EQ(counts.errors, 1u);
  EXPECT_EQ(counts.in_flight, 0u);
  EXPECT_EQ(told, (std::vector<Status>{Status::kOk, Status::kNoSpace, Status::kOk, Status::kOk}));
  EXPECT_EQ(counts.latency[0].count, 0u) << "no clock, no latency";
}

TEST(MeteredDisk, SaysHowLongEachKindOfRequestTook) {
  std::vector<Request> held;
  MeteredDisk disk(std::make_unique<HeldDisk>(held), test_now);
  std::array<uint8_t, 512> buffer{};
  now_ns = 1000;
  disk.submit(Request::read(0, {MutableByteSpan(buffer)}, [](Status) {}));
  disk.submit(Request::flush([](Status) {}));
  now_ns = 6000;
  held[0].complete(Status::kIoError);
  now_ns = 2'001'000;
  held[1].complete(Status::kOk);
  const MeteredDisk::Counts counts = disk.counts();
  EXPECT_EQ(counts.latency[static_cast<size_t>(Operation::kRead)].max_ns, 5000u);
  EXPECT_EQ(counts.latency[static_cast<size_t>(Operation::kRead)].count, 1u);
  EXPECT_EQ(counts.latency[static_cast<size_t>(Operation::kFlush)].p50_ns, 2'000'000u);
  EXPECT_EQ(counts.latency[static_cast<size_t>(Operation::kWrite)].count, 0u);
}

TEST(MeteredDisk, ARequestThatIsPutOffIsNoError) {
  std::vector<Request> held;
  MeteredDisk disk(std::make_unique<HeldDisk>(held), test_now);
  std::array<uint8_t, 512> buffer{};
  std::vector<Status> told;
  for (const Status status : {Status::kRetry, Status::kRetry, Status::kOk}) {
    disk.submit(Request::write(0, {MutableByteSpan(buffer)}, [&](Status status) { told.push_back(status); }));
    now_ns += 1'000'000'000;
    held.back().complete(status);
  }
  const MeteredDisk::Counts counts = disk.counts();
  EXPECT_EQ(told, (std::vector<Status>{Status::kRetry, Status::kRetry, Status::kOk}));
  EXPECT_EQ(counts.errors, 0u);
  EXPECT_EQ(counts.put_off, 2u);
  EXPECT_EQ(counts.in_flight, 0u);
  EXPECT_EQ(of(counts.requests, Operation::kWrite), 3u);
  EXPECT_EQ(of(counts.bytes, Operation::kWrite), 512u);
  EXPECT_EQ(counts.latency[static_cast<size_t>(Operation::kWrite)].count, 1u);
}

}  // namespace
}  // namespace bulkhead::block
