#include <filesystem>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/format/new_files.h"
#include "block/format/qcow2/qcow2_image.h"
#include "block/testing/shared_store.h"

namespace bulkhead::block::qcow2 {
namespace {

using Shared = block::testing::SharedStore;

constexpr uint64_t kCluster = 65536, kSize = 20 * kCluster + 512;

class DataFile : public ::testing::Test {
 protected:
  Result<> create(std::map<std::string, std::string> settings, const std::string& backing = "") {
    settings["data_file"] = "data";
    return qcow2::create(file_,
                         {.size = kSize,
                          .backing_name = backing,
                          .backing_format = "raw",
                          .settings = std::move(settings),
                          .create_beside = [this](const std::string&) { return std::make_unique<Shared>(data_); }});
  }
  Result<std::unique_ptr<Image>> open(Access access = Access::kReadWrite) {
    ImageOpener opener("/m");
    opener.take_files_from([this](const std::string& name, Access) -> Result<std::unique_ptr<Store>> {
      if (name != "data") return fail("open '{}': no such file", name);
      return std::make_unique<Shared>(data_);
    });
    return qcow2::open(std::make_unique<Shared>(file_), access, opener);
  }
  MemoryStore file_, data_;
};

TEST_F(DataFile, HoldsEachClusterWhereTheDiskHasIt) {
  ASSERT_TRUE(create({}));
  const std::vector<uint8_t> bytes(3000, 7);
  const auto image = open().value();
  ASSERT_EQ(image->write(5 * kCluster + 1000, bytes), Status::kOk);
  // The first one lies at 0, where a cluster in the same file never does.
  ASSERT_EQ(image->write(0, bytes), Status::kOk);
  ASSERT_EQ(image->flush(), Status::kOk);
  const std::vector<uint8_t>& data = data_.bytes();
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), &data[5 * kCluster + 1000]));
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), &data[0]));
  EXPECT_LT(file_.bytes().size(), 6 * kCluster);
  EXPECT_EQ(image->map(0)->kind, ExtentKind::kData);
  EXPECT_EQ(image->map(0)->size, kCluster);
  const CheckReport report = image->check(Repair::kNone).value();
  EXPECT_EQ(report.errors + report.leaks, 0u);
}

TEST_F(DataFile, RawIsTheDiskAtEveryFlush) {
  ASSERT_TRUE(create({{"data_file_raw", "on"}}));
  {
    const auto image = open().value();
    ASSERT_EQ(image->write(0, std::vector<uint8_t>(kSize, 7)), Status::kOk);
    ASSERT_EQ(image->write_zeroes(1000, 5 * kCluster, Unmap::kYes), Status::kOk);
    ASSERT_EQ(image->discard(8 * kCluster, 2 * kCluster), Status::kOk);
    ASSERT_EQ(image->flush(), Status::kOk);
    std::vector<uint8_t> found(kSize);
    ASSERT_EQ(image->read(0, found), Status::kOk);
    EXPECT_EQ(std::ranges::count(found, 7), kSize - 7 * kCluster);
    EXPECT_TRUE(found == data_.bytes());
    ASSERT_TRUE(image->grow(30 * kCluster));
    EXPECT_EQ(data_.bytes().size(), 30 * kCluster);
    ASSERT_TRUE(image->shrink(3000 * 512));
    EXPECT_EQ(data_.bytes().size(), 3000 * 512);
  }
  // Opening for writing keeps the bit that says so.
  EXPECT_EQ(open().value()->info().details.back(), (std::pair<std::string, std::string>("data_file_raw", "on")));
}

TEST_F(DataFile, IsNeededForDataAndRefusesWhatCannotBe) {
  ASSERT_TRUE(create({}));
  const auto image = open().value();
  EXPECT_EQ(image->compression_unit(), 0u);
  EXPECT_NE(image->snapshots()->create("a", 0).error().message.find("its data is in 'data'"), std::string::npos);
  ImageOpener opener("/nonexistent");
  EXPECT_NE(
      qcow2::open(std::make_unique<Shared>(file_), Access::kReadOnly, opener).error().message.find("data file of"),
      std::string::npos);
  opener.open_no_backing();
  const auto alone = qcow2::open(std::make_unique<Shared>(file_), Access::kReadOnly, opener).value();
  EXPECT_EQ(alone->check(Repair::kNone)->errors, 0u);
  file_ = MemoryStore();
  EXPECT_FALSE(create({{"data_file_raw", "on"}}, "data"));
  EXPECT_FALSE(create({{"version", "2"}}));
}

TEST_F(DataFile, AnEntryThatNamesAnotherPlaceIsFoundAndNotRead) {
  ASSERT_TRUE(create({}));
  ASSERT_EQ(open().value()->write(0, std::vector<uint8_t>(4 * kCluster, 7)), Status::kOk);
  // The third entry of the only L2 table, which lies behind header, table, counts and L1: it names the second cluster,
  // and the fourth one has lost its flag.
  uint8_t* const l2 = &file_.bytes()[4 * kCluster];
  ASSERT_EQ(l2[2 * 8], 0x80);
  l2[2 * 8 + 5] = 1;
  l2[3 * 8] = 0;
  const auto damaged = open(Access::kReadOnly).value();
  std::vector<uint8_t> found(kCluster);
  EXPECT_EQ(damaged->read(kCluster, found), Status::kOk);
  EXPECT_EQ(damaged->read(2 * kCluster, found), Status::kIoError);
  EXPECT_EQ(damaged->check(Repair::kNone)->errors, 2u);
  const CheckReport report = open(Access::kRepair).value()->check(Repair::kAll).value();
  EXPECT_EQ(report.left, 1u);
  EXPECT_EQ(l2[3 * 8], 0x80);
}

// On the host, where they are counted in the files themselves.
TEST(DataFileOnTheHost, CountsForWhatTheImageTakes) {
  const std::string folder = ::testing::TempDir() + "bulkhead-data-file-" + std::to_string(::getpid());
  std::filesystem::create_directories(folder);
  {
    NewFiles files;
    const auto made =
        create_files(files, folder + "/image", "qcow2", {.size = kSize, .settings = {{"data_file", "data"}}});
    ASSERT_TRUE(made) << made.error().message;
    files.keep();
    const auto image = open_image(folder + "/image", "qcow2", Access::kReadWrite).value();
    ASSERT_EQ(image->write(0, std::vector<uint8_t>(4 * kCluster, 7)), Status::kOk);
    ASSERT_EQ(image->flush(), Status::kOk);
    struct stat tables{}, data{};
    ASSERT_EQ(::stat((folder + "/image").c_str(), &tables), 0);
    ASSERT_EQ(::stat((folder + "/data").c_str(), &data), 0);
    EXPECT_GE(data.st_blocks * 512, static_cast<int64_t>(4 * kCluster));
    EXPECT_EQ(image->allocated(), static_cast<uint64_t>(tables.st_blocks + data.st_blocks) * 512);
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace bulkhead::block::qcow2
