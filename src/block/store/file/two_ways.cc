#include "block/store/file/two_ways.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <liburing.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/check.h"

namespace bulkhead::block {
namespace {

// Smaller writes are not worth a turn of the disk; a file is made longer by kRoom bytes at a time.
constexpr uint64_t kLarge = uint64_t{64} << 10, kRoom = uint64_t{256} << 20, kPage = 4096;

// A page of the cache that is shared with a write past it would take the bytes from before back to the disk.
bool is_whole_pages(uint64_t offset, ByteSpan bytes) {
  return ((offset | bytes.size()) & (kPage - 1)) == 0;
}

// An io_uring for one write at a time. The kernel's answer to a plain pwrite() past the cache would come under the
// file's lock.
class LoneRing {
 public:
  LoneRing() : made_(::io_uring_queue_init(1, &ring_, 0) == 0) {}
  ~LoneRing() {
    if (made_) ::io_uring_queue_exit(&ring_);
  }
  LoneRing(const LoneRing&) = delete;
  LoneRing& operator=(const LoneRing&) = delete;

  // Bytes written, or an error number below 0.
  int64_t write(int fd, uint64_t offset, ByteSpan bytes) {
    if (!made_) return -ENOSYS;
    const auto size = static_cast<unsigned>(std::min<size_t>(bytes.size(), size_t{1} << 30));
    ::io_uring_prep_write(::io_uring_get_sqe(&ring_), fd, bytes.data(), size, offset);
    int result = 0;
    do {
      result = ::io_uring_submit(&ring_);
    } while (result == -EINTR || result == -EAGAIN || result == -EBUSY);
    if (result < 0) {  // the entry would be in the next one's way
      ::io_uring_queue_exit(&ring_);
      made_ = false;
      return result;
    }
    io_uring_cqe* entry = nullptr;
    do {
      result = ::io_uring_wait_cqe(&ring_, &entry);
    } while (result == -EINTR);
    CHECK(result == 0, "the kernel answers what it has taken");
    result = entry->res;
    ::io_uring_cqe_seen(&ring_, entry);
    return result;
  }

 private:
  io_uring ring_{};
  bool made_;
};

}  // namespace

std::unique_ptr<TwoWays> TwoWays::open(int file, const std::string& path) {
  auto direct = DirectAccess::open(file, path, Access::kReadWrite);
  const off_t size = ::lseek(file, 0, SEEK_END);
  if (!direct || size < 0) return nullptr;
  return std::unique_ptr<TwoWays>(new TwoWays(file, std::move(*direct), static_cast<uint64_t>(size)));
}

TwoWays::~TwoWays() {
  const LockGuard lock(size_mutex_);
  // Zeroes behind the end are all that stays where this fails.
  if (made_ > used_) (void)!::ftruncate(file_, static_cast<off_t>(used_));
}

bool TwoWays::write(uint64_t offset, ByteSpan bytes) {
  if (bytes.size() < kLarge || !is_whole_pages(offset, bytes) || !direct_.fits(offset, bytes)) return false;
  if (!make_room(offset, offset + bytes.size())) return false;
  if (cached_.try_lock()) {
    const bool written = write_through_cache(offset, bytes);
    cached_.unlock();
    return written;
  }
  while (!bytes.empty()) {
    if (!is_whole_pages(offset, bytes) || !direct_.fits(offset, bytes)) return false;  // behind a short write
    thread_local LoneRing ring;
    const int64_t count = ring.write(direct_.fd(), offset, bytes);
    if (count <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return true;
}

bool TwoWays::write_through_cache(uint64_t offset, ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return true;
}

uint64_t TwoWays::size() const {
  const LockGuard lock(size_mutex_);
  return used_;
}

void TwoWays::note_end(uint64_t end) {
  const LockGuard lock(size_mutex_);
  used_ = std::max(used_, end);
}

bool TwoWays::make_room(uint64_t begin, uint64_t end) {
  const LockGuard lock(size_mutex_);
  const uint64_t used = std::exchange(used_, std::max(used_, end));
  if (end <= made_) return true;
  // Not beyond what this process may: the kernel would end it.
  rlimit most{};
  if (::getrlimit(RLIMIT_FSIZE, &most) != 0) return false;
  const uint64_t wanted = std::min<uint64_t>(used_ + kRoom, most.rlim_cur);
  if (wanted < used_) return false;
  // Blocks that the file has already save a write through the cache a third of its time. A hole stays one: what was
  // made for writes that did not follow goes back.
  const auto made = static_cast<off_t>(made_), room = static_cast<off_t>(wanted - made_);
  const bool follows = begin <= made_ && used <= made_;
  if (!follows && ::ftruncate(file_, static_cast<off_t>(used)) != 0) return false;
  const bool has_blocks = follows && ::fallocate(file_, 0, made, room) == 0;
  if (!has_blocks && ::ftruncate(file_, static_cast<off_t>(wanted)) != 0) return false;
  made_ = wanted;
  return true;
}

int TwoWays::truncate(uint64_t size) {
  const LockGuard lock(size_mutex_);
  if (::ftruncate(file_, static_cast<off_t>(size)) != 0) return errno;
  used_ = made_ = size;
  return 0;
}

}  // namespace bulkhead::block
