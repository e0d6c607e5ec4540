#include "block/store/file/file_store.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "block/store/file/file_lock.h"

namespace bulkhead::block::file {
namespace {

constexpr uint32_t kSectorSize = 512;
// The places of the ways in the ring.
constexpr unsigned kCachedFile = 0, kDirectFile = 1;
// Pieces of one preadv: below the kernel's IOV_MAX of 1024.
constexpr size_t kPiecesACall = 256;

Result<Geometry> geometry_of(int fd, const std::string& path, Access access) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "open '{}'", path);
  Geometry geometry{.sector_size = kSectorSize, .read_only = access == Access::kReadOnly};
  if (S_ISREG(status.st_mode)) {
    geometry.size = align_up(static_cast<uint64_t>(status.st_size), kSectorSize);
    geometry.physical_block_size = 4096;
  } else if (S_ISBLK(status.st_mode)) {
    int sector_size = 0;
    unsigned physical_size = 0;
    if (::ioctl(fd, BLKGETSIZE64, &geometry.size) != 0 || ::ioctl(fd, BLKSSZGET, &sector_size) != 0 ||
        ::ioctl(fd, BLKPBSZGET, &physical_size) != 0) {
      return fail_errno(errno, "open '{}': ask the block device for its size", path);
    }
    geometry.sector_size = static_cast<uint32_t>(sector_size);
    geometry.physical_block_size = physical_size;
  } else {
    return fail("open '{}': neither a regular file nor a block device", path);
  }
  if (geometry.size == 0) return fail("open '{}': the file is empty", path);
  return geometry;
}

// Walks the pieces of a scatter list as the iovecs of successive calls, across short transfers.
class Pieces {
 public:
  explicit Pieces(const std::vector<MutableByteSpan>& buffers) : buffers_(buffers) { skip_empty(); }

  [[nodiscard]] bool empty() const { return index_ == buffers_.size(); }
  int fill(std::array<iovec, kPiecesACall>& vectors) const {
    size_t count = 0;
    for (size_t i = index_; i < buffers_.size() && count < vectors.size(); ++i) {
      const size_t skip = i == index_ ? done_ : 0;
      vectors[count++] = {.iov_base = buffers_[i].data() + skip, .iov_len = buffers_[i].size() - skip};
    }
    return static_cast<int>(count);
  }
  void advance(size_t size) {
    done_ += size;
    skip_empty();
  }
  void zero_rest() {
    for (; index_ < buffers_.size(); ++index_, done_ = 0) {
      std::ranges::fill(buffers_[index_].subspan(done_), uint8_t{0});
    }
  }

 private:
  void skip_empty() {
    while (index_ < buffers_.size() && done_ >= buffers_[index_].size()) {
      done_ -= buffers_[index_].size();
      ++index_;
    }
  }

  const std::vector<MutableByteSpan>& buffers_;
  size_t index_ = 0;
  size_t done_ = 0;
};

int punch_hole(int fd, uint64_t offset, uint64_t size) {
  const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  while (::fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(size)) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

bool is_unsupported(int error) {
  return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL || error == ENODEV;
}

}  // namespace

Result<std::unique_ptr<FileStore>> FileStore::open(const std::string& path, Access access, unsigned thread_count,
                                                   HostCache cache, Driver driver, const std::string& below) {
  // Not blocking: opening a FIFO by mistake must not hang.
  const int mode = (access == Access::kReadOnly ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  Fd file = below.empty() ? TRY(open_file(path, mode)) : TRY(open_beneath(below, path.substr(below.size() + 1), mode));
  const Geometry geometry = TRY(geometry_of(file.get(), path, access));
  TRY(lock_file(file.get(), path, access));
  DirectAccess direct = TRY(DirectAccess::open(file.get(), path, access, cache));
  auto store = std::unique_ptr<FileStore>(new FileStore(path, std::move(file), std::move(direct), geometry));
  store->start(thread_count, driver);
  return store;
}

FileStore::FileStore(std::string path, Fd file, DirectAccess direct, const Geometry& geometry)
    : path_(std::move(path)), file_(std::move(file)), direct_(std::move(direct)), geometry_(geometry) {}

void FileStore::start(unsigned thread_count, Driver driver) {
  for (unsigned i = 0; i < thread_count; ++i) threads_.emplace_back(fmt::format("disk-io-{}", i), [this] { work(); });
  if (thread_count == 0 || driver == Driver::kThreads) return;
  // A ring keeps its files open for a while after its process has died: not the one that holds the lock.
  const int mode = (geometry_.read_only ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  const Fd unlocked(::open(fmt::format("/proc/self/fd/{}", file_.get()).c_str(), mode));
  if (!unlocked.valid()) return;
  std::vector<int> files{unlocked.get()};
  if (direct_.valid()) files.push_back(direct_.fd());
  ring_ = Ring::create(files, [this](Request request, int result) { on_ring_answer(std::move(request), result); });
}

Result<> FileStore::register_memory(std::span<const MutableByteSpan> memory) {
  if (!ring_) return fail("disk '{}': the host has no io_uring to register memory with", path_);
  TRY_IN(fmt::format("disk '{}'", path_), ring_->register_memory(memory));
  return {};
}

Result<> FileStore::grow(uint64_t new_size) {
  if (new_size % geometry_.sector_size != 0) {
    return fail("resize '{}': {} bytes are no multiple of its sectors' {}", path_, new_size, geometry_.sector_size);
  }
  struct stat status{};
  if (::fstat(file_.get(), &status) != 0) return fail_errno(errno, "resize '{}'", path_);
  if (S_ISBLK(status.st_mode)) {
    uint64_t size = 0;
    if (::ioctl(file_.get(), BLKGETSIZE64, &size) != 0)
      return fail_errno(errno, "resize '{}': ask for its size", path_);
    if (size < new_size) return fail("resize '{}': the block device has {} bytes, not {}", path_, size, new_size);
  } else {
    const auto there = static_cast<uint64_t>(status.st_size);
    if (there > geometry_.size) {
      return fail("resize '{}': the file has {} bytes, more than the disk's {}: somebody else has changed it", path_,
                  there, geometry_.size);
    }
    if (::ftruncate(file_.get(), static_cast<off_t>(new_size)) != 0) {
      return fail_errno(errno, "resize '{}' to {} bytes", path_, new_size);
    }
    if (flush() != Status::kOk) return fail("resize '{}': flush", path_);
  }
  geometry_.size = new_size;
  return {};
}

FileStore::~FileStore() {
  ring_.reset();
  {
    const LockGuard lock(mutex_);
    ending_ = true;
  }
  work_arrived_.notify_all();
  threads_.clear();
}

void FileStore::submit(Request request) {
  const Status status = check_against(geometry_, request);
  if (status != Status::kOk) {
    request.complete(status);
    return;
  }
  if (threads_.empty()) {
    request.complete(perform(request));
    return;
  }
  if (ring_ && Ring::takes(request)) {
    const int way = way_for(request);
    // Most file systems cannot take a cached write without waiting: the kernel hands it to threads, dearer than ours.
    const bool cached_write = request.operation() == Operation::kWrite && way == file_.get();
    if (!cached_write) return ring_->submit(std::move(request), way == file_.get() ? kCachedFile : kDirectFile);
  }
  if (on_the_spot_.carry_out(request, [this](const Request& taken) { return perform(taken); })) return;
  queue_for_threads(std::move(request));
}

void FileStore::queue_for_threads(Request request) {
  on_the_spot_.begun();
  {
    const LockGuard lock(mutex_);
    queue_.push_back(std::move(request));
  }
  work_arrived_.notify_one();
}

// What the kernel cut short, as at the end of the file, or was interrupted in is done again as a whole by a thread.
void FileStore::on_ring_answer(Request request, int result) {
  if (result >= 0 && static_cast<uint64_t>(result) == request.size()) return request.complete(Status::kOk);
  if (result >= 0 || result == -EAGAIN || result == -EINTR) return queue_for_threads(std::move(request));
  const Status status = failed(request.operation(), request.offset(), -result);
  request.complete(status);
}

int FileStore::way_for(const Request& request) const {
  uint64_t offset = request.offset();
  for (const MutableByteSpan& buffer : request.buffers()) {
    if (!direct_.fits(offset, buffer)) return file_.get();
    offset += buffer.size();
  }
  return direct_.fd();
}

void FileStore::work() {
  while (true) {
    mutex_.lock();
    while (queue_.empty() && !ending_) work_arrived_.wait(mutex_);
    if (queue_.empty()) {
      mutex_.unlock();
      return;
    }
    Request request = std::move(queue_.front());
    queue_.pop_front();
    mutex_.unlock();
    request.complete(perform(request));
    on_the_spot_.ended();
  }
}

Status FileStore::perform(const Request& request) {
  switch (request.operation()) {
    case Operation::kRead:
      return read(request);
    case Operation::kWrite:
      return write(request);
    case Operation::kFlush:
      return flush();
    case Operation::kDiscard:
      return discard(request);
    case Operation::kWriteZeroes:
      return write_zeroes(request);
  }
  return Status::kUnsupported;
}

Status FileStore::read(const Request& request) {
  Pieces pieces(request.buffers());
  std::array<iovec, kPiecesACall> vectors;
  uint64_t offset = request.offset();
  int way = way_for(request);
  while (!pieces.empty()) {
    const ssize_t count = ::preadv(way, vectors.data(), pieces.fill(vectors), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failed(Operation::kRead, offset, errno);
    if (count == 0) {
      // Past the end of the file: the rest of its last sector, or what somebody cut off behind our back.
      pieces.zero_rest();
      return Status::kOk;
    }
    pieces.advance(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
    way = file_.get();  // what is left may lie anywhere
  }
  return Status::kOk;
}

Status FileStore::write(const Request& request) {
  Pieces pieces(request.buffers());
  std::array<iovec, kPiecesACall> vectors;
  uint64_t offset = request.offset();
  int way = way_for(request);
  while (!pieces.empty()) {
    const ssize_t count = ::pwritev(way, vectors.data(), pieces.fill(vectors), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return failed(Operation::kWrite, offset, count < 0 ? errno : EIO);
    pieces.advance(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
    way = file_.get();
  }
  return Status::kOk;
}

Status FileStore::flush() {
  // One at a time: the kernel tells of lost pages once, so of two flushes that run together one would be told of
  // success although its pages may be among them.
  const LockGuard lock(flush_mutex_);
  if (flush_failed_) return Status::kLost;
  int result = 0;
  do {
    result = ::fdatasync(file_.get());
  } while (result != 0 && errno == EINTR);
  if (result == 0) return Status::kOk;
  flush_failed_ = true;
  (void)failed(Operation::kFlush, 0, errno);
  return Status::kLost;
}

Status FileStore::discard(const Request& request) {
  if (request.size() == 0) return Status::kOk;
  const int error = punch_hole(file_.get(), request.offset(), request.size());
  // A hint that the file system below cannot take is done already.
  if (error == 0 || is_unsupported(error)) return Status::kOk;
  return failed(Operation::kDiscard, request.offset(), error);
}

Status FileStore::write_zeroes(const Request& request) {
  if (request.size() == 0) return Status::kOk;
  if (request.unmap() == Unmap::kYes) {
    const int error = punch_hole(file_.get(), request.offset(), request.size());
    if (error == 0) return Status::kOk;
    if (!is_unsupported(error)) return failed(Operation::kWriteZeroes, request.offset(), error);
  }
  const auto offset = static_cast<off_t>(request.offset());
  int result = 0;
  do {
    result = ::fallocate(file_.get(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset,
                         static_cast<off_t>(request.size()));
  } while (result != 0 && errno == EINTR);
  if (result == 0) return Status::kOk;
  if (!is_unsupported(errno)) return failed(Operation::kWriteZeroes, request.offset(), errno);
  return write_zero_bytes(request.offset(), request.size());
}

Status FileStore::write_zero_bytes(uint64_t offset, uint64_t size) {
  static constexpr std::array<uint8_t, 65536> kZeroes{};
  while (size != 0) {
    const ssize_t count =
        ::pwrite(file_.get(), kZeroes.data(), std::min<uint64_t>(size, kZeroes.size()), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return failed(Operation::kWriteZeroes, offset, count < 0 ? errno : EIO);
    offset += static_cast<uint64_t>(count);
    size -= static_cast<uint64_t>(count);
  }
  return Status::kOk;
}

Status FileStore::failed(Operation operation, uint64_t offset, int error) {
  if (error_limit_.allow()) {
    log::error("disk '{}': {} at byte {}: {} ({} errors so far)", path_, to_string(operation), offset,
               std::generic_category().message(error), error_limit_.count());
  }
  return error == ENOSPC || error == EDQUOT ? Status::kNoSpace : Status::kIoError;
}

}  // namespace bulkhead::block::file
