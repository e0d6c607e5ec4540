// What a file of unstated format is taken for.
#include <unistd.h>

#include <gtest/gtest.h>

#include "block/format/image.h"
#include "block/format/new_files.h"
#include "block/store/file/plain_file.h"

namespace bulkhead::block {
namespace {

using namespace std::string_literals;

class Probe : public ::testing::Test {
 protected:
  Probe() : path_(::testing::TempDir() + "bulkhead-probe-" + std::to_string(::getpid())) {}
  ~Probe() override { ::unlink(path_.c_str()); }

  void write(std::string bytes) {
    ::unlink(path_.c_str());
    const auto file = PlainFile::create(path_).value();
    ASSERT_EQ(file->write(0, {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}), Status::kOk);
  }
  std::string found() { return std::string(probe_format(path_).value()); }

  const std::string path_;
};

TEST_F(Probe, KnowsEveryFileOfAVmdkImageButAFlatOne) {
  for (const std::string& begin :
       {"# Disk DescriptorFile\nversion=1\n"s, "KDMV"s, "COWD"s, "\xBE\xBA\xFE\xCA\0\0\0\0"s}) {
    SCOPED_TRACE(begin);
    write(begin);
    EXPECT_EQ(found(), "vmdk");
    write(begin + std::string(4096, '\1'));
    EXPECT_EQ(found(), "vmdk");
  }
  write("# Disk");
  EXPECT_EQ(found(), "raw");
  write("\xBE\xBA\xFE\xCA\0\0\0\1"s);
  EXPECT_EQ(found(), "raw");
}

TEST_F(Probe, ADescriptorIsNotTakenForADisk) {
  write(
      "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"vmfs\"\n"
      "RW 8 VMFS \"probe-flat.vmdk\"\n");
  const auto image = open_probed_image(path_, Access::kReadOnly);
  ASSERT_FALSE(image);
  EXPECT_NE(image.error().message.find("state the image's format"), std::string::npos) << image.error().message;
}

TEST_F(Probe, KnowsAFixedVhdByItsEnd) {
  {
    NewFiles files;
    ASSERT_TRUE(create_files(files, path_, "vhd", {.size = 65536, .settings = {{"subformat", "fixed"}}}));
    files.keep();
  }
  EXPECT_EQ(found(), "vhd");
  const auto image = open_probed_image(path_, Access::kReadOnly);
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ((*image)->info().format, "vhd");
}

TEST_F(Probe, WhatIsLikeNothingIsRaw) {
  for (const size_t size : {size_t{1}, size_t{511}, size_t{512}, size_t{4096}}) {
    write(std::string(size, 'x'));
    EXPECT_EQ(found(), "raw");
  }
}

}  // namespace
}  // namespace bulkhead::block
