#include "block/store/file/plain_file.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

namespace bulkhead::block {
namespace {

class PlainFileInAFolder : public testing::Test {
 protected:
  PlainFileInAFolder() : folder_(testing::TempDir() + "bulkhead-plain-" + std::to_string(::getpid())) {
    std::filesystem::create_directories(folder_);
    std::ofstream(path_) << "old";
  }
  ~PlainFileInAFolder() override { std::filesystem::remove_all(folder_); }
  std::string contents() const {
    std::string text;
    std::getline(std::ifstream(path_), text);
    return text;
  }
  const std::string folder_, path_ = folder_ + "/file";
};

TEST_F(PlainFileInAFolder, IsReplacedWhateverOthersHaveLeftBesideIt) {
  const std::string left = fmt::format("{}.{}.new", path_, ::getpid()), text = "new";
  std::ofstream(left) << "left";
  std::filesystem::permissions(path_, std::filesystem::perms(0640));
  const auto file = PlainFile::open(path_, Access::kReadWrite).value();
  const auto replaced = file->replace({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  ASSERT_TRUE(replaced) << replaced.error().message;
  EXPECT_EQ(contents(), "new");
  EXPECT_EQ(file->size().value(), 3u);
  EXPECT_EQ(std::filesystem::status(path_).permissions(), std::filesystem::perms(0640));
  EXPECT_FALSE(PlainFile::open(path_, Access::kReadWrite));
  EXPECT_EQ(std::filesystem::file_size(left), 4u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 2);
}

TEST_F(PlainFileInAFolder, IsNotReplacedUnderAnotherName) {
  const auto file = PlainFile::open(path_, Access::kReadWrite).value();
  std::filesystem::rename(path_, folder_ + "/other");
  std::ofstream(path_) << "another's";
  const auto refused = file->replace(std::vector<uint8_t>(1, 'x'));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("has another name by now"), std::string::npos) << refused.error().message;
  EXPECT_EQ(contents(), "another's");
}

}  // namespace
}  // namespace bulkhead::block
