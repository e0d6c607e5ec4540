#include "block/store/file/file_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <future>

#include <sys/stat.h>
#include <unistd.h>

namespace bulkhead::block::file {
namespace {

// A file of the given size that is removed at the end; byte i holds a function of i.
class TemporaryFile {
 public:
  explicit TemporaryFile(size_t size) {
    std::string pattern = testing::TempDir() + "file-store-XXXXXX";
    const Fd file(::mkstemp(pattern.data()));
    path_ = pattern;
    std::vector<uint8_t> bytes(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = expected(i);
    EXPECT_TRUE(write_all(file.get(), bytes));
  }
  ~TemporaryFile() { ::unlink(path_.c_str()); }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string contents() const { return read_file(path_, 1 << 24).value(); }
  static uint8_t expected(size_t i) { return static_cast<uint8_t>(i / 512 + i * 7 + 1); }

 private:
  std::string path_;
};

Status run(Disk& disk, std::move_only_function<Request(Request::Completion)> make) {
  std::promise<Status> promise;
  disk.submit(make([&](Status status) { promise.set_value(status); }));
  return promise.get_future().get();
}
Status read(Disk& disk, uint64_t offset, std::vector<MutableByteSpan> buffers) {
  return run(disk, [&](auto completion) { return Request::read(offset, std::move(buffers), std::move(completion)); });
}
Status write(Disk& disk, uint64_t offset, std::vector<MutableByteSpan> buffers) {
  return run(disk, [&](auto completion) { return Request::write(offset, std::move(buffers), std::move(completion)); });
}
Status flush(Disk& disk) {
  return run(disk, [](auto completion) { return Request::flush(std::move(completion)); });
}
Status discard(Disk& disk, uint64_t offset, uint64_t size) {
  return run(disk, [&](auto completion) { return Request::discard(offset, size, std::move(completion)); });
}
Status write_zeroes(Disk& disk, uint64_t offset, uint64_t size, Unmap unmap) {
  return run(disk, [&](auto completion) { return Request::write_zeroes(offset, size, unmap, std::move(completion)); });
}

TEST(Request, AssertsWhenItDiesUnanswered) {
  EXPECT_DEATH({ Request::flush([](Status) {}); }, "died unanswered");
}

TEST(Request, IsCompletedOnceThroughEveryMove) {
  int completions = 0;
  Request first = Request::flush([&](Status status) { completions += status == Status::kOk ? 1 : 100; });
  Request second = std::move(first);
  Request third = Request::flush([](Status) {});
  third.complete(Status::kOk);
  third = std::move(second);
  third.complete(Status::kOk);
  EXPECT_EQ(completions, 1);
  EXPECT_DEATH(third.complete(Status::kOk), "completed once");
}

TEST(FileStore, ReadsAndWritesThroughAScatterList) {
  const TemporaryFile file(8192);
  const auto store = FileStore::open(file.path(), Access::kReadWrite).value();
  EXPECT_EQ(store->geometry().size, 8192u);
  std::vector<uint8_t> a(100), b(0), c(924);
  EXPECT_EQ(read(*store, 512, {a, b, c}), Status::kOk);
  for (size_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], TemporaryFile::expected(512 + i));
  for (size_t i = 0; i < c.size(); ++i) ASSERT_EQ(c[i], TemporaryFile::expected(612 + i));
  std::fill(a.begin(), a.end(), uint8_t{0xAA});
  std::fill(c.begin(), c.end(), uint8_t{0xCC});
  EXPECT_EQ(write(*store, 1024, {a, b, c}), Status::kOk);
  EXPECT_EQ(flush(*store), Status::kOk);
  const std::string contents = file.contents();
  EXPECT_EQ(contents.substr(1024, 100), std::string(100, '\xAA'));
  EXPECT_EQ(contents.substr(1124, 924), std::string(924, '\xCC'));
  EXPECT_EQ(static_cast<uint8_t>(contents[2048]), TemporaryFile::expected(2048));
}

TEST(FileStore, TransfersMorePiecesThanOneSystemCallTakes) {
  constexpr size_t kSize = size_t{512} * 1024;
  const TemporaryFile file(kSize);
  const auto store = FileStore::open(file.path(), Access::kReadWrite).value();
  std::vector<uint8_t> bytes(kSize);
  std::vector<MutableByteSpan> pieces;
  pieces.reserve(1024);
  for (size_t i = 0; i < 1024; ++i) pieces.push_back(MutableByteSpan(bytes).subspan(i * 512, 512));
  EXPECT_EQ(read(*store, 0, pieces), Status::kOk);
  for (size_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], TemporaryFile::expected(i));
}

TEST(FileStore, RefusesWhatDoesNotFitTheDisk) {
  const TemporaryFile file(8192);
  const auto store = FileStore::open(file.path(), Access::kReadWrite).value();
  std::vector<uint8_t> bytes(1024);
  EXPECT_EQ(read(*store, 8192 - 512, {bytes}), Status::kOutOfRange);
  EXPECT_EQ(read(*store, UINT64_MAX - 511, {bytes}), Status::kOutOfRange);
  EXPECT_EQ(read(*store, 100, {bytes}), Status::kOutOfRange);
  EXPECT_EQ(write(*store, 0, {MutableByteSpan(bytes).first(511)}), Status::kOutOfRange);
  EXPECT_EQ(discard(*store, 0, UINT64_MAX & ~511ull), Status::kOutOfRange);
}

TEST(FileStore, WritesNothingWhenReadOnly) {
  const TemporaryFile file(4096);
  ASSERT_EQ(::chmod(file.path().c_str(), 0444), 0);
  const auto store = FileStore::open(file.path(), Access::kReadOnly).value();
  std::vector<uint8_t> bytes(512);
  EXPECT_TRUE(store->geometry().read_only);
  EXPECT_EQ(write(*store, 0, {bytes}), Status::kReadOnly);
  EXPECT_EQ(discard(*store, 0, 512), Status::kReadOnly);
  EXPECT_EQ(write_zeroes(*store, 0, 512, Unmap::kNo), Status::kReadOnly);
  EXPECT_EQ(flush(*store), Status::kOk);
  EXPECT_EQ(read(*store, 0, {bytes}), Status::kOk);
}

TEST(FileStore, FillsUpAnOddLastSector) {
  const TemporaryFile file(1000);
  const auto store = FileStore::open(file.path(), Access::kReadWrite).value();
  EXPECT_EQ(store->geometry().size, 1024u);
  std::vector<uint8_t> bytes(512, 0xFF);
  EXPECT_EQ(read(*store, 512, {bytes}), Status::kOk);
  EXPECT_EQ(bytes[487], TemporaryFile::expected(999));
  EXPECT_EQ(bytes[488], 0);
  EXPECT_EQ(file.contents().size(), 1000u);
  EXPECT_EQ(write(*store, 512, {bytes}), Status::kOk);
  EXPECT_EQ(file.contents().size(), 1024u);
}

TEST(FileStore, ZeroesExactlyTheRange) {
  for (const Unmap unmap : {Unmap::kNo, Unmap::kYes}) {
    const TemporaryFile file(65536);
    const auto store = FileStore::open(file.path(), Access::kReadWrite).value();
    EXPECT_EQ(write_zeroes(*store, 4096 + 512, 16384, unmap), Status::kOk);
    const std::string contents = file.contents();
    ASSERT_EQ(contents.size(), 65536u);
    for (size_t i = 0; i < contents.size(); ++i) {
      const bool inside = i >= 4608 && i < 4608 + 16384;
      ASSERT_EQ(static_cast<uint8_t>(contents[i]), inside ? 0 : TemporaryFile::expected(i)) << i;
    }
  }
}

TEST(FileStore, GivesStorageBackWhenDiscarding) {
  const TemporaryFile file(1 << 20);
  const auto store = FileStore::open(file.path(), Access::kReadWrite).value();
  ASSERT_EQ(flush(*store), Status::kOk);
  EXPECT_EQ(discard(*store, 0, 1 << 20), Status::kOk);
  EXPECT_EQ(file.contents().size(), 1u << 20);
}

TEST(FileStore, LocksAgainstASecondWriterButSharesReading) {
  const TemporaryFile file(4096);
  {
    const auto writer = FileStore::open(file.path(), Access::kReadWrite);
    ASSERT_TRUE(writer);
    const auto second = FileStore::open(file.path(), Access::kReadWrite);
    ASSERT_FALSE(second);
    EXPECT_NE(second.error().message.find(file.path()), std::string::npos);
    EXPECT_NE(second.error().message.find("in use"), std::string::npos);
    EXPECT_FALSE(FileStore::open(file.path(), Access::kReadOnly));
  }
  const auto reader = FileStore::open(file.path(), Access::kReadOnly);
  ASSERT_TRUE(reader);
  EXPECT_TRUE(FileStore::open(file.path(), Access::kReadOnly));
  EXPECT_FALSE(FileStore::open(file.path(), Access::kReadWrite));
}

TEST(FileStore, NamesTheFileThatCannotBeADisk) {
  const auto missing = FileStore::open("/nonexistent/disk.img", Access::kReadOnly);
  EXPECT_EQ(missing.error().message, "open '/nonexistent/disk.img': No such file or directory");
  EXPECT_FALSE(FileStore::open("/", Access::kReadOnly));
  EXPECT_EQ(FileStore::open("/dev/null", Access::kReadOnly).error().message,
            "open '/dev/null': neither a regular file nor a block device");
  const TemporaryFile empty(0);
  EXPECT_NE(FileStore::open(empty.path(), Access::kReadOnly).error().message.find("is empty"), std::string::npos);
}

TEST(FileStore, CompletesEverythingThatWasSubmittedBeforeItEnds) {
  const TemporaryFile file(1 << 20);
  std::atomic<int> completions{0};
  std::vector<std::vector<uint8_t>> buffers(64, std::vector<uint8_t>(4096));
  {
    const auto store = FileStore::open(file.path(), Access::kReadWrite).value();
    for (size_t i = 0; i < buffers.size(); ++i) {
      store->submit(
          Request::read(i * 4096, {buffers[i]}, [&](Status status) { completions += status == Status::kOk; }));
    }
  }
  EXPECT_EQ(completions.load(), 64);
}

}  // namespace
}  // namespace bulkhead::block::file
