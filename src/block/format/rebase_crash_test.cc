// Pulls the plug while a disk is put on another backing file, or on none: it opens, and shows what it did.
#include <map>

#include <gtest/gtest.h>

#include "block/format/image.h"
#include "block/testing/folder_files.h"

namespace bulkhead::block {
namespace {

constexpr uint64_t kSize = 200 * 1024;

struct Shape {
  const char* name;
  const char* format;
  std::map<std::string, std::string> settings;
};

std::vector<uint8_t> contents(Image& image) {
  std::vector<uint8_t> bytes(kSize);
  EXPECT_EQ(image.read(0, bytes), Status::kOk);
  return bytes;
}

class RebaseCutOff : public ::testing::TestWithParam<Shape> {
 protected:
  // full of: the bytes that one half of it holds.
  void make(const std::string& name, const std::string& on, uint8_t full_of) {
    CreateOptions options{.size = kSize, .settings = GetParam().settings, .file_name = name};
    options.create_beside = [this](const std::string& beside) -> Result<std::unique_ptr<Store>> {
      return folder_.make("/m/" + beside);
    };
    if (!on.empty()) {
      options.backing_name = on;
      options.backing_format = GetParam().format;
      options.backing_identity = open(folder_, on).value()->info().identity;
    }
    const auto made = find_format(GetParam().format).value()->create(*folder_.make("/m/" + name), options);
    ASSERT_TRUE(made) << made.error().message;
    const auto image = open(folder_, name).value();
    ASSERT_EQ(image->write(full_of % 2 * kSize / 2, std::vector<uint8_t>(kSize / 4, full_of)), Status::kOk);
    ASSERT_EQ(image->flush(), Status::kOk);
  }
  static Result<std::unique_ptr<Image>> open(testing::Folder& folder, const std::string& name) {
    return testing::open_in(folder, "/m/" + name, GetParam().format, Access::kReadWrite);
  }

  testing::Folder folder_;
};

TEST_P(RebaseCutOff, StandsOnTheOldFileOrTheNewOne) {
  make("old.image", "", 1);
  make("other-with-a-longer-name.image", "", 1);
  make("top.image", "old.image", 2);
  const std::vector<uint8_t> before = contents(**open(folder_, "top.image"));
  ASSERT_EQ(before[0], 2);
  ASSERT_EQ(before[kSize / 2], 1);
  const uint64_t begun = folder_.time();
  {
    const auto image = open(folder_, "top.image").value();
    ASSERT_TRUE(image->may_set_backing("other-with-a-longer-name.image", GetParam().format));
    const auto set = image->set_backing("other-with-a-longer-name.image", GetParam().format);
    ASSERT_TRUE(set) << set.error().message;
    EXPECT_FALSE(image->may_set_backing("old.image", "raw"));
    ASSERT_TRUE(image->set_backing("", ""));
  }
  const uint64_t ended = folder_.time();
  std::mt19937_64 random(1);
  for (int cut = 0; cut < 100 && !HasFatalFailure(); ++cut) {
    testing::Folder left;
    folder_.cut(begun + random() % (ended - begun + 1), random, left);
    const auto image = open(left, "top.image");
    ASSERT_TRUE(image) << image.error().message;
    const std::string on = (*image)->info().backing_name;
    const std::vector<uint8_t> found = contents(**image);
    ASSERT_TRUE(std::equal(found.begin(), found.begin() + kSize / 4, before.begin())) << on;
    // On none, of which it was put at last, nothing shows through.
    ASSERT_TRUE(found[kSize / 2] == 1 || (on.empty() && found[kSize / 2] == 0)) << on;
    ASSERT_EQ((*image)->check(Repair::kNone)->errors, 0u);
    ASSERT_EQ((*image)->write(0, found), Status::kOk);
  }
  EXPECT_EQ((*open(folder_, "top.image"))->info().backing_name, "");
}

INSTANTIATE_TEST_SUITE_P(
    Formats, RebaseCutOff,
    ::testing::Values(Shape{"Vhd", "vhd", {{"block_size", "4096"}}}, Shape{"Vhdx", "vhdx", {{"block_size", "1048576"}}},
                      Shape{"VmdkSparse", "vmdk", {}},
                      Shape{"VmdkSplit", "vmdk", {{"subformat", "twoGbMaxExtentSparse"}, {"extent_size", "65536"}}}),
    [](const auto& shape) { return shape.param.name; });

}  // namespace
}  // namespace bulkhead::block
