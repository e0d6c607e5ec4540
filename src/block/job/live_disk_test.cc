#include "block/job/live_disk.h"

#include <future>

#include <gtest/gtest.h>

#include "support/os/thread.h"

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

class LiveDiskTest : public ::testing::Test {
 protected:
  LiveDiskTest() : disk_({"/a", "raw", {std::make_unique<HeldDisk>(below_)}}) {}
  void write(uint64_t offset, uint64_t size = 4096) {
    disk_.submit(Request::write(offset, {MutableByteSpan(bytes_).first(size)}, [this](Status) { ++answered_; }));
  }
  void answer_all(std::vector<Request>& held) {
    std::vector<Request> now;
    now.swap(held);
    for (Request& request : now) request.complete(Status::kOk);
  }

  std::vector<uint8_t> bytes_ = std::vector<uint8_t>(65536);
  std::vector<Request> below_, other_;
  unsigned answered_ = 0;
  LiveDisk disk_;
};

// Answers at once.
class ReadyDisk final : public Disk {
 public:
  explicit ReadyDisk(std::vector<Operation>& done) : done_(done) {}
  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  void submit(Request request) override {
    done_.push_back(request.operation());
    request.complete(Status::kOk);
  }

 private:
  std::vector<Operation>& done_;
  Geometry geometry_{.size = 1 << 20};
};

TEST(LiveDiskCredit, WritesWaitAtTheFenceUntilTheyArePaidFor) {
  std::vector<uint8_t> bytes(131072);
  std::vector<Operation> done;
  LiveDisk disk({"/a", "raw", {std::make_unique<ReadyDisk>(done)}});
  const auto write = [&](uint64_t offset, uint64_t size) {
    disk.submit(Request::write(offset, {MutableByteSpan(bytes).first(size)}, [](Status) {}));
  };
  uint64_t credit = 65536;
  {
    const auto fence = disk.fence_all();
    write(0, 4096);
    write(131072, 65536 + 512);  // two blocks
    write(0, 512);               // not before that one
    disk.submit(Request::read(0, {MutableByteSpan(bytes).first(512)}, [](Status) {}));
    disk.submit(Request::flush([](Status) {}));
    disk.pass_held(credit, 65536);
    EXPECT_EQ(done, (std::vector{Operation::kWrite, Operation::kRead, Operation::kFlush}));
    EXPECT_EQ(credit, 0u);
    credit = 2 * 65536 + 100;
    disk.pass_held(credit, 65536);
    EXPECT_EQ(done.size(), 4u);
    EXPECT_EQ(credit, 100u);
  }
  EXPECT_EQ(done.size(), 5u);
}

TEST_F(LiveDiskTest, AFenceHoldsWhatTouchesItAndPassesTheRest) {
  {
    const auto fence = disk_.fence(8192, 4096);
    write(4096);        // ends where it begins
    write(12288);       // begins where it ends
    write(4096, 8192);  // reaches into it
    write(0, 65536);    // around it
    disk_.submit(Request::read(8192, {MutableByteSpan(bytes_).first(512)}, [this](Status) { ++answered_; }));
    disk_.submit(Request::flush([this](Status) { ++answered_; }));
    EXPECT_EQ(below_.size(), 3u);
  }
  EXPECT_EQ(below_.size(), 6u);
  answer_all(below_);
  EXPECT_EQ(answered_, 6u);
}

TEST_F(LiveDiskTest, AFenceWaitsForWhatIsUnderWay) {
  write(0);
  write(65536);
  std::promise<void> fenced;
  const Thread waiter("fence", [&] {
    const auto fence = disk_.fence(4000, 100);
    fenced.set_value();
  });
  auto when = fenced.get_future();
  EXPECT_EQ(when.wait_for(std::chrono::milliseconds(0)), std::future_status::timeout);
  Request first = std::move(below_[0]);
  first.complete(Status::kOk);
  when.get();
  Request second = std::move(below_[1]);
  second.complete(Status::kOk);
  EXPECT_EQ(answered_, 2u);
}

TEST_F(LiveDiskTest, WhatWasHeldGoesToTheStorageThatIsThereThen) {
  {
    const auto fence = disk_.fence_all();
    write(0);
    disk_.submit(Request::flush([this](Status) { ++answered_; }));
    const Storage old = disk_.exchange({"/b", "qcow2", {std::make_unique<HeldDisk>(other_)}});
    EXPECT_EQ(old.path, "/a");
  }
  EXPECT_TRUE(below_.empty());
  EXPECT_EQ(other_.size(), 2u);
  EXPECT_EQ(disk_.path_and_format(), std::pair(std::string("/b"), std::string("qcow2")));
  answer_all(other_);
  EXPECT_EQ(answered_, 2u);
}

TEST_F(LiveDiskTest, AChangeIsNotedWhenItIsOverWhateverBecameOfIt) {
  ChangedBlocks changes(1 << 20);
  write(0);
  disk_.watch(changes);
  EXPECT_EQ(changes.bytes(), 0u);
  Request request = std::move(below_[0]);
  request.complete(Status::kIoError);
  EXPECT_EQ(changes.bytes(), 65536u);
  below_.clear();
  disk_.submit(Request::read(131072, {MutableByteSpan(bytes_)}, [](Status) {}));
  disk_.submit(Request::discard(131072, 65536, [](Status) {}));
  disk_.submit(Request::write_zeroes(262144, 65536, Unmap::kYes, [](Status) {}));
  answer_all(below_);
  EXPECT_EQ(changes.bytes(), 3 * 65536u);
  disk_.unwatch(changes);
  write(524288);
  answer_all(below_);
  EXPECT_EQ(changes.bytes(), 3 * 65536u);
}

TEST_F(LiveDiskTest, RefusesWhatDoesNotFitTheDiskWhileItIsFenced) {
  const auto fence = disk_.fence_all();
  Status told{};
  disk_.submit(Request::discard(1 << 20, 512, [&](Status status) { told = status; }));
  EXPECT_EQ(told, Status::kOutOfRange);
}

}  // namespace
}  // namespace bulkhead::block
