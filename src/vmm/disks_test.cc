// Which files a machine takes for disks.
#include "vmm/disks.h"

#include <fstream>

#include <gtest/gtest.h>
#include <unistd.h>

#include "block/format/new_files.h"

namespace bulkhead::vmm {
namespace {

class DisksTest : public testing::Test {
 protected:
  DisksTest() : path_(testing::TempDir() + "bulkhead-disks-" + std::to_string(::getpid())) {}
  ~DisksTest() override { ::unlink(path_.c_str()); }

  // Empty when the disk opens.
  std::string refusal_of(DiskConfig disk) {
    disk.path = path_;
    VmConfig config;
    config.disks.push_back({disk, "test"});
    const auto disks = Disks::open(config, [](auto&&...) {});
    return disks ? "" : disks.error().message;
  }

  const std::string path_;
};

TEST_F(DisksTest, ADescriptorIsADiskOnlyWhenTheUserSaysRaw) {
  const std::string text = "# Disk DescriptorFile\nversion=1\n" + std::string(1024, ' ');
  std::ofstream(path_, std::ios::binary) << text;
  EXPECT_NE(refusal_of({}).find("looks like a vmdk image; state format=vmdk or format=raw"), std::string::npos)
      << refusal_of({});
  EXPECT_EQ(refusal_of({.format = "raw"}), "");
}

TEST_F(DisksTest, ASataDriveHasSectorsOf512Bytes) {
  {
    block::NewFiles files;
    ASSERT_TRUE(
        block::create_files(files, path_, "vhdx", {.size = 64 << 20, .settings = {{"logical_sector_size", "4096"}}}));
    files.keep();
  }
  const std::string refusal = refusal_of({.format = "vhdx", .bus = machine::DiskBus::kSata});
  EXPECT_NE(refusal.find(path_), std::string::npos) << refusal;
  EXPECT_NE(refusal.find("4096 bytes"), std::string::npos) << refusal;
  EXPECT_EQ(refusal_of({.format = "vhdx", .bus = machine::DiskBus::kNvme}), "");
}

}  // namespace
}  // namespace bulkhead::vmm
