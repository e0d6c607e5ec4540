#include "block/filter/error_policy_disk.h"

#include <array>
#include <vector>

#include <gtest/gtest.h>

namespace bulkhead::block {
namespace {

class Failing final : public Disk {
 public:
  explicit Failing(const Status& answer) : answer_(answer) {}
  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  void submit(Request request) override { request.complete(answer_); }

 private:
  const Status& answer_;
  const Geometry geometry_{.size = 1 << 20};
};

struct ErrorPolicy : testing::Test {
  Status host = Status::kOk;
  std::vector<std::string> told;
  std::array<uint8_t, 512> bytes{};
  std::unique_ptr<ErrorPolicyDisk> disk(OnError policy) {
    return std::make_unique<ErrorPolicyDisk>(std::make_unique<Failing>(host), "/pool/a.img", policy,
                                             [this](const std::string& message) { told.push_back(message); });
  }
  Status run(ErrorPolicyDisk& disk, Status of_host) {
    host = of_host;
    Status answer{};
    disk.submit(Request::write(4096, {bytes}, [&](Status status) { answer = status; }));
    return answer;
  }
  Status flush(ErrorPolicyDisk& disk, Status of_host) {
    host = of_host;
    Status answer{};
    disk.submit(Request::flush([&](Status status) { answer = status; }));
    return answer;
  }
};

TEST_F(ErrorPolicy, AFullHostStopsTheMachineAndOtherErrorsAreTheGuests) {
  const auto made = disk(OnError::kEnospc);
  EXPECT_EQ(run(*made, Status::kOk), Status::kOk);
  EXPECT_EQ(run(*made, Status::kIoError), Status::kIoError);
  EXPECT_EQ(run(*made, Status::kOutOfRange), Status::kOutOfRange);
  EXPECT_TRUE(told.empty());
  EXPECT_EQ(run(*made, Status::kNoSpace), Status::kRetry);
  EXPECT_EQ(told, std::vector<std::string>{"disk '/pool/a.img': write of 512 bytes at byte 4096: no space"});
}

TEST_F(ErrorPolicy, PauseStopsItOnEveryErrorOfTheHost) {
  const auto made = disk(OnError::kPause);
  EXPECT_EQ(run(*made, Status::kIoError), Status::kRetry);
  EXPECT_EQ(run(*made, Status::kNoSpace), Status::kRetry);
  EXPECT_EQ(run(*made, Status::kReadOnly), Status::kReadOnly);
  EXPECT_EQ(told.size(), 2u);
}

TEST_F(ErrorPolicy, ReportTellsTheGuestEverything) {
  const auto made = disk(OnError::kReport);
  EXPECT_EQ(run(*made, Status::kNoSpace), Status::kNoSpace);
  EXPECT_TRUE(told.empty());
}

TEST_F(ErrorPolicy, AFlushThatFailedIsNeverRepeated) {
  const auto made = disk(OnError::kPause);
  EXPECT_EQ(flush(*made, Status::kLost), Status::kLost);
  EXPECT_EQ(told.size(), 1u);
  // The machine was stopped once; from then on the guest hears it, and no resume is followed by a pause for ever.
  EXPECT_EQ(flush(*made, Status::kLost), Status::kLost);
  EXPECT_EQ(told.size(), 1u);
}

}  // namespace
}  // namespace bulkhead::block
