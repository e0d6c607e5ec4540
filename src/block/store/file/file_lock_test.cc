#include "block/store/file/file_lock.h"

#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "block/format/disk_opener.h"
#include "block/format/named_file.h"
#include "block/store/file/plain_file.h"

namespace bulkhead::block {
namespace {

class FileLock : public testing::Test {
 protected:
  FileLock() : folder_(testing::TempDir() + "bulkhead-lock-" + std::to_string(::getpid())) {
    std::filesystem::create_directories(folder_ + "/below");
    std::ofstream(folder_ + "/below/file") << "x";
  }
  ~FileLock() override { std::filesystem::remove_all(folder_); }
  const std::string folder_;
};

TEST_F(FileLock, NamesTheProcessThatHasTheFile) {
  const std::string path = folder_ + "/below/file";
  const Fd first = open_file(path, O_RDWR).value(), second = open_file(path, O_RDWR).value();
  ASSERT_TRUE(lock_file(first.get(), path, Access::kReadWrite));
  const auto refused = lock_file(second.get(), path, Access::kReadWrite);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message.find(fmt::format("open '{}': in use by process {} (", path, ::getpid())), 0u)
      << refused.error().message;
  const auto unread = lock_file(second.get(), path, Access::kReadOnly);
  ASSERT_FALSE(unread);
  EXPECT_TRUE(unread.error().message.ends_with("), which writes to it")) << unread.error().message;
}

TEST_F(FileLock, SharesWithOtherReaders) {
  const std::string path = folder_ + "/below/file";
  const Fd first = open_file(path, O_RDONLY).value(), second = open_file(path, O_RDWR).value();
  ASSERT_TRUE(lock_file(first.get(), path, Access::kReadOnly));
  EXPECT_TRUE(lock_file(second.get(), path, Access::kReadOnly));
  EXPECT_FALSE(lock_file(second.get(), path, Access::kReadWrite));
}

// As by PlainFile::replace() of another process.
TEST_F(FileLock, IsOnTheFileThatHasTheNameWhenItWasExchangedMeanwhile) {
  const std::string path = folder_ + "/below/file";
  unsigned openings = 0;
  const auto locked = open_locked(path, Access::kReadWrite, [&] {
    Result<Fd> file = open_file(path, O_RDWR);
    if (++openings <= 3) {
      std::ofstream(folder_ + "/new") << openings;
      std::filesystem::rename(folder_ + "/new", path);
    }
    return file;
  });
  ASSERT_TRUE(locked) << locked.error().message;
  EXPECT_EQ(openings, 4u);
  char byte = 0;
  ASSERT_EQ(::pread(locked->get(), &byte, 1, 0), 1);
  EXPECT_EQ(byte, '3');
  EXPECT_FALSE(PlainFile::open(path, Access::kReadWrite));
  EXPECT_FALSE(PlainFile::open_below(folder_, "below/file", Access::kReadWrite));
}

TEST_F(FileLock, OpeningEndsHoweverOftenAFileIsExchanged) {
  const std::string path = folder_ + "/below/file";
  const auto refused = open_locked(path, Access::kReadWrite, [&] {
    Result<Fd> file = open_file(path, O_RDWR);
    std::ofstream(folder_ + "/new") << "x";
    std::filesystem::rename(folder_ + "/new", path);
    return file;
  });
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("another file has taken its name"), std::string::npos);
  const auto gone = open_locked(path, Access::kReadWrite, [&] {
    Result<Fd> file = open_file(path, O_RDWR);
    std::filesystem::remove(path);
    return file;
  });
  ASSERT_FALSE(gone);
  EXPECT_NE(gone.error().message.find("No such file"), std::string::npos) << gone.error().message;
}

TEST_F(FileLock, ANameBelowAFolderFollowsNoLinkAndStaysThere) {
  EXPECT_TRUE(open_beneath(folder_, "below/file", O_RDONLY));
  std::filesystem::create_symlink("file", folder_ + "/below/link");
  for (const char* const name : {"below/link", "../", "/etc/passwd"}) {
    const auto found = open_beneath(folder_, name, O_RDONLY);
    ASSERT_FALSE(found) << name;
    EXPECT_NE(found.error().message.find("leaves the folder"), std::string::npos) << found.error().message;
  }
}

// As the backing file that a commit goes on in, which an image has named.
TEST_F(FileLock, ADiskBelowAFolderIsOpenedThroughNoLink) {
  std::filesystem::resize_file(folder_ + "/below/file", 4096);
  std::filesystem::create_symlink("file", folder_ + "/below/link");
  const std::string below = folder_ + "/below";
  for (const bool is_store : {true, false}) {
    const auto open = [&](const std::string& path) -> Result<> {
      if (is_store) {
        TRY(open_disk(path, "raw", Access::kReadWrite, HostCache::kUsed, 0, Access::kReadOnly, nullptr, below));
      } else {
        TRY(open_image_below(below, path, "raw", Access::kReadWrite, Access::kReadOnly, HostCache::kUsed, {}));
      }
      return {};
    };
    EXPECT_TRUE(open(below + "/file"));
    const auto refused = open(below + "/link");
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("leaves the folder"), std::string::npos) << refused.error().message;
  }
}

}  // namespace
}  // namespace bulkhead::block
