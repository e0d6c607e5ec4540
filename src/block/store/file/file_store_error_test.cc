// What a FileStore makes of a host that refuses: full storage, I/O errors, a flush that failed. The host's calls are
// replaced for this test program, because no file of an ordinary user fails on demand.
#include "block/store/file/file_store.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <future>

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "block/store/file/plain_file.h"
#include "support/os/thread.h"

namespace {

// What the next calls of each kind fail with; 0 lets them through to the kernel.
int write_error = 0, read_error = 0, sync_error = 0, punch_error = 0;
std::function<int()> sync_answer;  // instead, what a sync does and returns as errno
int interruptions = 0;             // calls that a signal is to interrupt before they are let through

int refusal(int error) {
  if (interruptions > 0) {
    --interruptions;
    return EINTR;
  }
  return error;
}

long transfer(long number, int error, int fd, const iovec* pieces, int count, off_t offset) {
  if (const int refused = refusal(error); refused != 0) {
    errno = refused;
    return -1;
  }
  return ::syscall(number, fd, pieces, count, offset, 0);
}

ssize_t transfer(long number, int error, int fd, const void* bytes, size_t size, off_t offset) {
  if (const int refused = refusal(error); refused != 0) {
    errno = refused;
    return -1;
  }
  return ::syscall(number, fd, bytes, size, offset);
}

}  // namespace

extern "C" {
ssize_t pread(int fd, void* bytes, size_t size, off_t offset) {
  return transfer(SYS_pread64, read_error, fd, bytes, size, offset);
}
ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  return transfer(SYS_pwrite64, write_error, fd, bytes, size, offset);
}
int fallocate(int fd, int mode, off_t offset, off_t size) {
  if (punch_error != 0) {
    errno = punch_error;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fallocate, fd, mode, offset, size));
}
ssize_t preadv(int fd, const iovec* pieces, int count, off_t offset) {
  return transfer(SYS_preadv, read_error, fd, pieces, count, offset);
}
ssize_t pwritev(int fd, const iovec* pieces, int count, off_t offset) {
  return transfer(SYS_pwritev, write_error, fd, pieces, count, offset);
}
int fdatasync(int fd) {
  if (sync_answer) {
    errno = sync_answer();
    return errno == 0 ? 0 : -1;
  }
  if (const int refused = refusal(sync_error); refused != 0) {
    errno = refused;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fdatasync, fd));
}
}

namespace bulkhead::block::file {
namespace {

class FileStoreErrors : public testing::Test {
 protected:
  FileStoreErrors() {
    write_error = read_error = sync_error = punch_error = interruptions = 0;
    std::string pattern = testing::TempDir() + "file-store-errors-XXXXXX";
    const Fd file(::mkstemp(pattern.data()));
    path_ = pattern;
    EXPECT_EQ(::ftruncate(file.get(), 8192), 0);
    store_ = open();
  }
  ~FileStoreErrors() override {
    write_error = read_error = sync_error = punch_error = interruptions = 0;
    store_.reset();
    ::unlink(path_.c_str());
  }
  // Without threads: what is submitted is answered when submit() returns.
  [[nodiscard]] std::unique_ptr<FileStore> open() const {
    return FileStore::open(path_, Access::kReadWrite, 0).value();
  }
  Status read() { return run(&Request::read); }
  Status write() { return run(&Request::write); }
  Status flush() {
    Status status{};
    store_->submit(Request::flush([&](Status told) { status = told; }));
    return status;
  }

  std::string path_;
  std::unique_ptr<FileStore> store_;
  std::vector<uint8_t> bytes_ = std::vector<uint8_t>(512, 0xAB);

 private:
  template <typename Make>
  Status run(Make make) {
    Status status{};
    store_->submit(make(1024, {bytes_}, [&](Status told) { status = told; }));
    return status;
  }
};

TEST_F(FileStoreErrors, FullStorageIsToldApartAndMayHaveRoomAgain) {
  for (const int error : {ENOSPC, EDQUOT}) {
    write_error = error;
    EXPECT_EQ(write(), Status::kNoSpace);
    write_error = 0;
    EXPECT_EQ(write(), Status::kOk);
  }
  EXPECT_EQ(flush(), Status::kOk);
}

TEST_F(FileStoreErrors, AnErrorOfTheHostIsAnErrorOfThatRequestOnly) {
  write_error = read_error = EIO;
  EXPECT_EQ(write(), Status::kIoError);
  EXPECT_EQ(read(), Status::kIoError);
  write_error = read_error = 0;
  EXPECT_EQ(write(), Status::kOk);
  EXPECT_EQ(read(), Status::kOk);
}

TEST_F(FileStoreErrors, AfterAFailedFlushNoLaterOneSucceeds) {
  ASSERT_EQ(write(), Status::kOk);
  EXPECT_EQ(flush(), Status::kOk);
  sync_error = EIO;
  EXPECT_EQ(flush(), Status::kLost);
  // The kernel has dropped the pages and reports the error once; the store must not believe its next answer.
  sync_error = 0;
  EXPECT_EQ(flush(), Status::kLost);
  EXPECT_EQ(write(), Status::kOk);
  EXPECT_EQ(read(), Status::kOk);
  EXPECT_EQ(flush(), Status::kLost);
  // Only who opens the file anew, and so reads what is really there, starts afresh.
  store_.reset();
  store_ = open();
  EXPECT_EQ(flush(), Status::kOk);
}

TEST_F(FileStoreErrors, AFlushWithoutRoomFailsForGoodToo) {
  sync_error = ENOSPC;
  EXPECT_EQ(flush(), Status::kLost);
  sync_error = 0;
  EXPECT_EQ(flush(), Status::kLost);
}

TEST_F(FileStoreErrors, AnImagesFileIsSyncedUnlessTheCacheIsTrusted) {
  store_.reset();
  sync_error = EIO;
  for (const HostCache cache : {HostCache::kUsed, HostCache::kBypassedIfPossible}) {
    EXPECT_EQ(PlainFile::open(path_, Access::kReadWrite, cache).value()->flush(), Status::kLost);
  }
  EXPECT_EQ(PlainFile::open(path_, Access::kReadWrite, HostCache::kTrusted).value()->flush(), Status::kOk);
}

TEST_F(FileStoreErrors, AnImagesFileTellsTheOperatorWhatTheHostRefused) {
  store_.reset();
  const auto file = PlainFile::open(path_, Access::kReadWrite).value();
  const auto line_of = [&](auto call) {
    testing::internal::CaptureStderr();
    const Status status = call();
    return std::pair(status, testing::internal::GetCapturedStderr());
  };
  write_error = read_error = sync_error = EIO;
  for (const auto& [told, operation, expected] :
       {std::tuple(line_of([&] { return file->read(1024, bytes_); }), "read at byte 1024", Status::kIoError),
        std::tuple(line_of([&] { return file->write(4096, bytes_); }), "write at byte 4096", Status::kIoError),
        std::tuple(line_of([&] { return file->flush(); }), "flush at byte 0", Status::kLost)}) {
    EXPECT_EQ(told.first, expected);
    for (const std::string& part : {path_, std::string(operation), std::string("Input/output error")}) {
      EXPECT_NE(told.second.find(part), std::string::npos) << told.second;
    }
  }
  // A host that fails all the time does not fill the log.
  testing::internal::CaptureStderr();
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(file->write(0, bytes_), Status::kIoError);
  EXPECT_LT(std::ranges::count(testing::internal::GetCapturedStderr(), '\n'), 30);
}

TEST_F(FileStoreErrors, AFileThatCannotBePunchedSaysSoHoweverTheHostPutsIt) {
  store_.reset();
  const auto file = PlainFile::open(path_, Access::kReadWrite).value();
  for (const int error : {EOPNOTSUPP, ENOSYS, EINVAL, ENODEV}) {
    punch_error = error;
    EXPECT_EQ(file->punch(0, 4096), Status::kUnsupported);
  }
  punch_error = EIO;
  EXPECT_EQ(file->punch(0, 4096), Status::kIoError);
}

// The kernel tells of lost pages once; a flush that runs beside the one that is told must not succeed.
TEST_F(FileStoreErrors, OfTwoFlushesAtATimeNeitherSucceedsWhenOneFails) {
  store_.reset();
  const auto file = PlainFile::open(path_, Access::kReadWrite).value();
  std::promise<void> begun, second_ended;
  sync_answer = [&, calls = std::make_shared<std::atomic<int>>(0)] {
    if (calls->fetch_add(1) != 0) return 0;
    begun.set_value();
    (void)second_ended.get_future().wait_for(std::chrono::milliseconds(200));
    return EIO;
  };
  Status first{}, second{};
  {
    const Thread one("first", [&] { first = file->flush(); });
    begun.get_future().wait();
    second = file->flush();
    second_ended.set_value();
  }
  sync_answer = nullptr;
  EXPECT_EQ(first, Status::kLost);
  EXPECT_EQ(second, Status::kLost);
}

TEST_F(FileStoreErrors, ASignalRepeatsTheCall) {
  interruptions = 3;
  EXPECT_EQ(write(), Status::kOk);
  EXPECT_EQ(interruptions, 0);
  interruptions = 3;
  EXPECT_EQ(read(), Status::kOk);
  EXPECT_EQ(interruptions, 0);
  interruptions = 3;
  EXPECT_EQ(flush(), Status::kOk);
  EXPECT_EQ(interruptions, 0);
}

}  // namespace
}  // namespace bulkhead::block::file
