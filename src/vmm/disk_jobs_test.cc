#include "vmm/disk_jobs.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <future>

#include <gtest/gtest.h>
#include <unistd.h>

namespace bulkhead::vmm {
namespace {

class DiskJobsTest : public testing::Test {
 protected:
  DiskJobsTest() : path_(testing::TempDir() + "bulkhead_disk_jobs_" + std::to_string(::getpid())) {
    std::ofstream(path_).close();
    std::filesystem::resize_file(path_, 1 << 20);
    DiskConfig disk;
    disk.path = path_;
    disk.format = "raw";
    config_.disks.push_back({disk, "test"});
  }
  ~DiskJobsTest() override { std::filesystem::remove(path_); }
  void open() {
    auto disks = Disks::open(config_, [](const std::string&) {});
    ASSERT_TRUE(disks) << disks.error().message;
    disks_ = std::move(*disks);
    jobs_ = std::make_unique<DiskJobs>(config_, *disks_, [](size_t) {});
  }
  block::Status write(uint64_t offset) {
    std::promise<block::Status> answer;
    (*disks_)[0].submit(
        block::Request::write(offset, {buffer_}, [&](block::Status status) { answer.set_value(status); }));
    return answer.get_future().get();
  }

  std::string path_;
  std::array<uint8_t, 4096> buffer_{};
  VmConfig config_;
  std::unique_ptr<Disks> disks_;
  std::unique_ptr<DiskJobs> jobs_;
};

TEST_F(DiskJobsTest, TellsADisksCounters) {
  open();
  EXPECT_EQ(write(4096), block::Status::kOk);
  EXPECT_EQ(write(1 << 20), block::Status::kOutOfRange);
  const std::string stats = jobs_->answer("0 stats");
  EXPECT_NE(stats.find("\twrite_requests=2\twrite_bytes=4096\twrite_total_ns="), std::string::npos) << stats;
  EXPECT_EQ(stats.find("write_histogram=\t"), std::string::npos) << stats;
  EXPECT_NE(stats.find("read_histogram=\t"), std::string::npos) << stats;
  EXPECT_TRUE(stats.ends_with("\terrors=1\tput_off=0\tin_flight=0")) << stats;
}

TEST_F(DiskJobsTest, MeasuresNoTimesInADeterministicRun) {
  config_.deterministic = {true, "test"};
  open();
  EXPECT_EQ(write(0), block::Status::kOk);
  const std::string stats = jobs_->answer("0 stats");
  EXPECT_NE(stats.find("\twrite_requests=1\twrite_bytes=4096\twrite_total_ns=0\t"), std::string::npos) << stats;
  EXPECT_NE(stats.find("write_histogram=\t"), std::string::npos) << stats;
}

}  // namespace
}  // namespace bulkhead::vmm
