// Disks whose filters stand in the order that their user has stated.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include <gtest/gtest.h>
#include <unistd.h>

#include "block/format/image.h"
#include "block/format/new_files.h"
#include "block/wait.h"
#include "vmm/config/disk_filters.h"
#include "vmm/disk_jobs.h"

namespace bulkhead::vmm {
namespace {

using namespace std::chrono_literals;
using block::Status;

constexpr uint64_t kSize = uint64_t{8} << 20;
constexpr std::string_view kSecret = "secret of a test";
// Far more than anything here takes, on whatever host.
constexpr auto kPatience = 60s;

class DiskFilters : public testing::Test {
 protected:
  DiskFilters() : folder_(testing::TempDir() + "bulkhead-filters-" + std::to_string(::getpid())) {
    std::filesystem::create_directories(folder_);
    std::ofstream(path("key")) << kSecret;
    block::NewFiles files;
    const auto made = block::create_files(files, path("disk"), "luks",
                                          {.size = kSize,
                                           .settings = {{"version", "1"}, {"iterations", "1000"}},
                                           .key = block::DiskKey::read(path("key")).value()});
    EXPECT_TRUE(made) << made.error().message;
    files.keep();
    disk_.path = path("disk");
    disk_.secret = path("key");
    disk_.on_error = block::OnError::kReport;
  }
  ~DiskFilters() override {
    close();
    std::filesystem::remove_all(folder_);
  }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ + "/" + name; }

  // With filters like "fault+changes+encrypt".
  void open(std::string_view filters) {
    disk_.filters = parse_disk_filters(filters).value();
    config_.disks = {{disk_, "test"}};
    const auto checked = check_disk_filters(disk_, config_.deterministic.value);
    ASSERT_TRUE(checked) << checked.error().message;
    auto disks = Disks::open(config_, [](const std::string&) {});
    ASSERT_TRUE(disks) << disks.error().message;
    disks_ = std::move(*disks);
    jobs_ = std::make_unique<DiskJobs>(config_, *disks_, [](size_t) {});
  }
  void close() {
    jobs_.reset();
    disks_.reset();
  }
  Status write(uint64_t offset, uint8_t value, size_t size = 4096) {
    return block::write_now((*disks_)[0], offset, std::vector<uint8_t>(size, value));
  }
  uint8_t byte_at(uint64_t offset) {
    std::vector<uint8_t> bytes(512);
    EXPECT_EQ(block::read_now((*disks_)[0], offset, bytes), Status::kOk);
    return std::ranges::count(bytes, bytes[0]) == 512 ? bytes[0] : 0;
  }
  std::string end_of_job() {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    std::string status;
    do {
      std::this_thread::sleep_for(5ms);
      status = jobs_->answer("0 status");
    } while (status.find("state=running") != std::string::npos && std::chrono::steady_clock::now() < end);
    return status;
  }
  std::string bytes_of(const std::string& name) {
    std::ifstream file(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  const std::string folder_;
  DiskConfig disk_;
  VmConfig config_;
  std::unique_ptr<Disks> disks_;
  std::unique_ptr<DiskJobs> jobs_;
};

// How many sectors of the disk hold nothing but this value.
unsigned sectors_of(const std::string& path, const std::string& key, uint8_t value) {
  const auto image = block::open_image(path, "luks", block::Access::kReadOnly, block::Access::kReadOnly,
                                       block::HostCache::kUsed, {.key = block::DiskKey::read(key).value()});
  EXPECT_TRUE(image) << image.error().message;
  std::vector<uint8_t> bytes(kSize);
  EXPECT_EQ((*image)->read(0, bytes), Status::kOk);
  unsigned found = 0;
  for (size_t at = 0; at < bytes.size(); at += 512) {
    found += std::all_of(&bytes[at], &bytes[at] + 512, [value](uint8_t byte) { return byte == value; }) ? 1 : 0;
  }
  return found;
}

// A write that lands elsewhere is the guest's own data there, or bytes that are noise to whoever decrypts them there.
TEST_F(DiskFilters, AFaultBelowTheEncryptionMovesWhatNobodyCanRead) {
  disk_.faults.misdirected = block::DiskFaults::kAlways;
  // So that none of them lands in the volume's header, which lies below the encryption too.
  disk_.faults.seed = 3;
  open("fault+changes+encrypt");
  ASSERT_EQ(write(0, 0x5A), Status::kOk);
  close();
  EXPECT_EQ(sectors_of(path("disk"), path("key"), 0x5A), 8u);

  open("changes+encrypt+fault");
  ASSERT_EQ(write(0, 0xA5), Status::kOk);
  close();
  EXPECT_EQ(sectors_of(path("disk"), path("key"), 0xA5), 0u);
}

TEST_F(DiskFilters, PlacesBelowTheEncryptionAreThoseOfTheFile) {
  const uint64_t data_at = std::filesystem::file_size(path("disk")) - kSize;
  disk_.faults.full = {{data_at, 4096}};
  open("fault+changes+encrypt");
  EXPECT_EQ(write(0, 1), Status::kOk);
  EXPECT_EQ(write(data_at, 1), Status::kNoSpace);
  close();
  open("changes+encrypt+fault");
  EXPECT_EQ(write(0, 1), Status::kNoSpace);
  EXPECT_EQ(write(data_at, 1), Status::kOk);
}

TEST_F(DiskFilters, WhatFailsAboveTheLimitIsNotCounted) {
  disk_.faults.write_error = block::DiskFaults::kAlways;
  disk_.limits = {.requests_a_second = 1, .request_burst = 1};
  open("fault+throttle+changes+encrypt");
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 300; ++i) EXPECT_EQ(write(0, 1), Status::kIoError);
  EXPECT_LT(std::chrono::steady_clock::now() - start, kPatience);
}

// Whatever waits for the limit below it, with workers that wait for that.
TEST_F(DiskFilters, ADiskWithALimitBelowItsEncryptionIsClosedAtOnce) {
  disk_.limits = {.requests_a_second = 1, .request_burst = 100};
  open("encrypt+changes+throttle");
  std::atomic<int> answers = 0;
  std::vector<uint8_t> bytes(4096, 7);
  for (uint64_t i = 0; i < 400; ++i) {
    (*disks_)[0].submit(block::Request::write(i * 4096, {bytes}, [&](Status status) {
      EXPECT_EQ(status, Status::kOk);
      ++answers;
    }));
  }
  const auto start = std::chrono::steady_clock::now();
  close();
  EXPECT_LT(std::chrono::steady_clock::now() - start, kPatience);
  EXPECT_EQ(answers, 400);
  EXPECT_EQ(sectors_of(path("disk"), path("key"), 7), 3200u);
}

// Jobs below the encryption need no secret, and what they write is what lies in the file.
TEST_F(DiskFilters, JobsBelowTheEncryptionCopyWhatIsEncrypted) {
  open("encrypt+changes");
  ASSERT_EQ(write(4096, 0x33), Status::kOk);
  ASSERT_EQ(jobs_->answer("0 mirror 0 raw " + path("moved")), "done");
  EXPECT_NE(end_of_job().find("state=done"), std::string::npos) << jobs_->answer("0 status");
  EXPECT_TRUE(bytes_of("moved") == bytes_of("disk"));
  ASSERT_EQ(jobs_->answer("0 snapshot qcow2 " + path("over.qcow2")), "done");
  EXPECT_NE(end_of_job().find("state=done"), std::string::npos) << jobs_->answer("0 status");
  ASSERT_EQ(write(8192, 0x44), Status::kOk);
  EXPECT_EQ(byte_at(4096), 0x33);
  EXPECT_NE(jobs_->answer("0 resize 16777216").find("grows at rest"), std::string::npos);
  close();
  // The overlay holds a part of the volume.
  disk_.path = path("over.qcow2");
  disk_.format = "qcow2";
  open("encrypt+changes");
  EXPECT_EQ(byte_at(4096), 0x33);
  EXPECT_EQ(byte_at(8192), 0x44);
  close();
  EXPECT_EQ(bytes_of("over.qcow2").find(std::string(512, 0x44)), std::string::npos);
}

TEST_F(DiskFilters, AJobKeepsTheFiltersThatStandBelowItsPlace) {
  disk_.faults.full = {{kSize / 2, 4096}};
  open("changes+fault+encrypt");
  EXPECT_EQ(write(kSize / 2, 1), Status::kNoSpace);
  ASSERT_EQ(jobs_->answer("0 mirror 0 qcow2 " + path("moved")), "done");
  EXPECT_NE(end_of_job().find("state=done"), std::string::npos) << jobs_->answer("0 status");
  EXPECT_EQ(write(0, 0x21), Status::kOk);
  EXPECT_EQ(write(kSize / 2, 1), Status::kNoSpace);
  close();
  // With the fault below the encryption, there must be a file below that.
  open("changes+encrypt+fault");
  const std::string refused = jobs_->answer("0 mirror 0 qcow2 " + path("again"));
  EXPECT_NE(refused.find("needs format luks"), std::string::npos) << refused;
}

TEST_F(DiskFilters, ADeterministicRunHasThemToo) {
  config_.deterministic = {true, "test"};
  disk_.faults.bad = {{kSize - 4096, 4096}};
  open("encrypt+fault");
  EXPECT_EQ(write(0, 0x66), Status::kOk);
  EXPECT_EQ(byte_at(0), 0x66);
}

TEST(ParseDiskFilters, TakesEachOnceAndSaysWhatThereIs) {
  using enum DiskFilter;
  EXPECT_EQ(parse_disk_filters("encrypt+throttle").value(), (std::vector{kEncrypt, kThrottle}));
  for (const char* const wrong : {"", "fault+", "+fault", "faults", "fault;encrypt"}) {
    const auto filters = parse_disk_filters(wrong);
    ASSERT_FALSE(filters) << wrong;
    EXPECT_NE(filters.error().message.find("allowed: throttle, fault, changes and encrypt"), std::string::npos);
  }
  EXPECT_EQ(parse_disk_filters("fault+changes+fault").error().message, "fault stands twice");
}

TEST(CheckDiskFilters, WantsAllThatTheDiskHasAndNothingElse) {
  const auto refusal = [](DiskConfig disk, std::string_view filters, bool deterministic = false) {
    disk.filters = parse_disk_filters(filters).value();
    const auto checked = check_disk_filters(disk, deterministic);
    return checked ? "" : checked.error().message;
  };
  DiskConfig disk;
  disk.group = "g";
  disk.secret = "key";
  EXPECT_EQ(refusal(disk, "throttle+changes+encrypt"), "");
  EXPECT_EQ(refusal(disk, "encrypt+throttle+changes"), "");
  EXPECT_EQ(refusal(disk, "throttle+encrypt"),
            "filters=throttle+encrypt: changes is missing; the disk has throttle+changes+encrypt");
  EXPECT_EQ(refusal(disk, "throttle+fault+changes+encrypt"),
            "filters=throttle+fault+changes+encrypt: fault is not there; the disk has throttle+changes+encrypt");
  EXPECT_EQ(refusal(disk, "changes+encrypt+throttle"), "");
  disk.format = "qcow2";
  EXPECT_EQ(refusal(disk, "encrypt+throttle+changes"), "");
  EXPECT_EQ(refusal(disk, "changes+encrypt+throttle"),
            "filters=changes+encrypt+throttle: changes above encrypt and more below it: with format=luks alone");
  disk.read_only = true;
  EXPECT_EQ(refusal(disk, "encrypt+throttle"), "");
  disk = {};
  disk.faults.torn = 1;
  EXPECT_EQ(refusal(disk, "fault", true), "");
  EXPECT_EQ(refusal(disk, "fault+changes", true), "filters=fault+changes: changes is not there; the disk has fault");
  EXPECT_EQ(refusal(disk, "changes+fault"), "");
}

}  // namespace
}  // namespace bulkhead::vmm
