#include "block/store/file/plain_file.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/store/file/file_lock.h"
#include "block/store/file/folder.h"
#include "support/random.h"

namespace bulkhead::block {
namespace {

Status status_of(int error) {
  return error == ENOSPC || error == EDQUOT || error == EFBIG ? Status::kNoSpace : Status::kIoError;
}

int flags_of(Access access) {
  // Not blocking: opening a FIFO by mistake must not hang.
  return (access == Access::kReadOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
}

constexpr unsigned kModeOfNew = 0644;
// Names of which one is free, unless something is wrong.
constexpr unsigned kMostNames = 16;

}  // namespace

Result<std::unique_ptr<PlainFile>> PlainFile::of_locked(std::string path, Fd file, Access access, HostCache cache) {
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return fail_errno(errno, "open '{}'", path);
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
    return fail("open '{}': neither a regular file nor a block device", path);
  }
  DirectAccess direct = TRY(DirectAccess::open(file.get(), path, access, cache));
  auto made = std::unique_ptr<PlainFile>(new PlainFile(std::move(path), std::move(file), std::move(direct)));
  made->is_device_ = S_ISBLK(status.st_mode);
  if (cache == HostCache::kTrusted && !made->is_device_) {
    made->syncs_ = false;
    if (access != Access::kReadOnly) made->two_ways_ = TwoWays::open(made->file_.get(), made->path_);
  }
  return made;
}

Result<std::unique_ptr<PlainFile>> PlainFile::of_new(std::string path, Fd file) {
  TRY(lock_file(file.get(), path, Access::kReadWrite));
  return of_locked(std::move(path), std::move(file), Access::kReadWrite, HostCache::kUsed);
}

Result<std::unique_ptr<PlainFile>> PlainFile::open(const std::string& path, Access access, HostCache cache) {
  Fd file = TRY(open_locked(path, access, [&] { return open_file(path, flags_of(access)); }));
  return of_locked(path, std::move(file), access, cache);
}

Result<std::unique_ptr<PlainFile>> PlainFile::open_below(const std::string& folder, const std::string& name,
                                                         Access access, HostCache cache) {
  const std::string path = folder + "/" + name;
  Fd file = TRY(open_locked(path, access, [&] { return open_beneath(folder, name, flags_of(access)); }));
  return of_locked(path, std::move(file), access, cache);
}

Result<std::unique_ptr<PlainFile>> PlainFile::create(const std::string& path) {
  return of_new(path, TRY(open_file(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC)));
}

Result<std::unique_ptr<PlainFile>> PlainFile::create_below(const std::string& folder, const std::string& name) {
  const std::string path = folder + "/" + name;
  Fd file = TRY(create_beneath(folder, name, kModeOfNew));
  if (!file.valid()) return nullptr;
  auto made = of_new(path, std::move(file));
  if (!made) ::unlink(path.c_str());
  return made;
}

Result<> PlainFile::replace(ByteSpan bytes) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::canonical(path_, error);
  struct stat own{}, named{};
  if (error || ::fstat(file_.get(), &own) != 0 || ::stat(path.c_str(), &named) != 0 || !S_ISREG(own.st_mode) ||
      own.st_dev != named.st_dev || own.st_ino != named.st_ino) {
    return fail("replace '{}': it is no regular file, or has another name by now", path_);
  }
  // Somebody who died before the end may have left one.
  HostRandom random;
  std::unique_ptr<PlainFile> made;
  for (unsigned i = 0; !made && i < kMostNames; ++i) {
    const auto number = static_cast<uint32_t>(random.next_u64());
    made = TRY(create_below(path.parent_path(), fmt::format("{}.{:08x}.new", path.filename().string(), number)));
  }
  if (!made) return fail("replace '{}': {} names beside it are taken", path_, kMostNames);
  const std::string beside = made->path_;
  const auto fill = [&]() -> Result<> {
    TRY(made->write_all(0, bytes));
    // Its owner can be kept by root alone.
    if (::fchown(made->file_.get(), own.st_uid, own.st_gid) != 0 && errno != EPERM) {
      return fail_errno(errno, "owner of '{}'", beside);
    }
    if (::fchmod(made->file_.get(), own.st_mode & 07777) != 0) return fail_errno(errno, "mode of '{}'", beside);
    TRY(made->flush_all());
    if (::rename(beside.c_str(), path.c_str()) != 0)
      return fail_errno(errno, "rename '{}' to '{}'", beside, path.string());
    return {};
  };
  if (auto filled = fill(); !filled) {
    ::unlink(beside.c_str());
    return filled;
  }
  file_ = std::move(made->file_);
  direct_ = std::move(made->direct_);
  return sync_folder_of(path);
}

Result<uint64_t> PlainFile::size() {
  if (two_ways_) return two_ways_->size();
  // Also right for block devices, for which fstat gives 0.
  const off_t end = ::lseek(file_.get(), 0, SEEK_END);
  if (end < 0) return fail_errno(errno, "size of '{}'", path_);
  return static_cast<uint64_t>(end);
}

Status PlainFile::read(uint64_t offset, MutableByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pread(way_for(offset, bytes), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failed("read", offset, errno);
    if (count == 0) {
      std::ranges::fill(bytes, uint8_t{0});
      return Status::kOk;
    }
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return Status::kOk;
}

Status PlainFile::write(uint64_t offset, ByteSpan bytes) {
  if (two_ways_) {
    if (two_ways_->write(offset, bytes)) return Status::kOk;
    two_ways_->note_end(offset + bytes.size());
  }
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(way_for(offset, bytes), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return failed("write", offset, count < 0 ? errno : EIO);
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return Status::kOk;
}

Status PlainFile::flush() {
  if (!syncs_) return Status::kOk;
  // One at a time, as FileStore::flush() does and for its reason.
  const LockGuard lock(flush_mutex_);
  if (flush_failed_) return Status::kLost;
  int result = 0;
  do {
    result = ::fdatasync(file_.get());
  } while (result != 0 && errno == EINTR);
  if (result == 0) return Status::kOk;
  flush_failed_ = true;
  (void)failed("flush", 0, errno);
  return Status::kLost;
}

Status PlainFile::punch(uint64_t offset, uint64_t size) {
  if (size == 0) return Status::kOk;
  int result = 0;
  do {
    result = ::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                         static_cast<off_t>(size));
  } while (result != 0 && errno == EINTR);
  if (result == 0) return Status::kOk;
  // As FileStore's is_unsupported().
  if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL || errno == ENODEV) return Status::kUnsupported;
  return failed("punch", offset, errno);
}

Status PlainFile::truncate(uint64_t size) {
  int error = 0;
  if (two_ways_) {
    error = two_ways_->truncate(size);
  } else if (::ftruncate(file_.get(), static_cast<off_t>(size)) != 0) {
    error = errno;
  }
  return error == 0 ? Status::kOk : failed("truncate", size, error);
}

Status PlainFile::reserve(uint64_t offset, uint64_t size) {
  if (size == 0) return Status::kOk;
  int result = 0;
  do {
    result = ::fallocate(file_.get(), 0, static_cast<off_t>(offset), static_cast<off_t>(size));
  } while (result != 0 && errno == EINTR);
  if (result == 0) return Status::kOk;
  return errno == EOPNOTSUPP || errno == ENOSYS || errno == ENODEV ? Status::kUnsupported : status_of(errno);
}

std::optional<uint64_t> PlainFile::allocated() {
  struct stat status{};
  if (::fstat(file_.get(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

StoreExtent PlainFile::extent(uint64_t offset) {
  const uint64_t end = size().value_or(offset);
  const auto from = static_cast<off_t>(offset);
  const off_t data = ::lseek(file_.get(), from, SEEK_DATA);
  if (data < 0) return {.size = end - offset, .hole = errno == ENXIO};
  if (data > from) return {.size = static_cast<uint64_t>(data - from), .hole = true};
  const off_t hole = ::lseek(file_.get(), from, SEEK_HOLE);
  return {.size = (hole < 0 ? end : static_cast<uint64_t>(hole)) - offset};
}

Status PlainFile::failed(std::string_view operation, uint64_t offset, int error) {
  if (error_limit_.allow()) {
    log::error("file '{}': {} at byte {}: {} ({} errors so far)", path_, operation, offset,
               std::generic_category().message(error), error_limit_.count());
  }
  return status_of(error);
}

}  // namespace bulkhead::block
