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

uint64_t of(const std::array<uint64_t, MeteredDisk::kOperations>& counts, Operation operation) {
  return counts[static_cast<size_t>(operation)];
}

TEST(MeteredDisk, CountsRequestsWhenTheyComeAndBytesAndErrorsWhenTheyAreAnswered) {
  std::vector<Request> held;
  MeteredDisk disk(std::make_unique<HeldDisk>(held));
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
}

}  // namespace
}  // namespace bulkhead::block
