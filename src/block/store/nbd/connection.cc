#include "block/store/nbd/connection.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <chrono>

#include <poll.h>
#include <sys/socket.h>

#include "support/os/mutex.h"

namespace bulkhead::block::nbd {
namespace {

using std::chrono::steady_clock;
constexpr auto kConnectPatience = std::chrono::seconds(30), kCallPatience = std::chrono::seconds(60);
constexpr uint64_t kMostBytes = uint64_t{32} << 20;
// Where a server states no limit, one that every server takes.
constexpr uint64_t kUsualBytes = uint64_t{1} << 20;
constexpr const char* kAllocation = "base:allocation";
constexpr uint32_t kZero = 2;
constexpr int kBetweenLooks_ms = 1000;

// What a caller waits for.
struct Waiting {
  Mutex mutex;
  ConditionVariable changed;
  bool done GUARDED_BY(mutex) = false;
  int error GUARDED_BY(mutex) = 0;
};

// Called with the handle's lock held, by whichever thread moves bytes.
int on_done(void* waiting, int* error) {
  auto* const place = static_cast<Waiting*>(waiting);
  const LockGuard lock(place->mutex);
  place->done = true;
  place->error = *error;
  place->changed.notify_all();
  return 1;
}

int on_extents(void* data, const char* context, uint64_t, uint32_t* entries, size_t count, int*) {
  auto* const extent = static_cast<Connection::Extent*>(data);
  if (std::string_view(context) != kAllocation || extent->size != 0) return 0;
  // Pairs of a size and its state; neighbours may be alike.
  for (size_t i = 0; i + 1 < count; i += 2) {
    const bool zero = (entries[i + 1] & kZero) != 0;
    if (i != 0 && zero != extent->zero) break;
    extent->size += entries[i];
    extent->zero = zero;
  }
  return 0;
}

Status to_status(int error) {
  switch (error) {
    case 0:
      return Status::kOk;
    case ENOSPC:
      return Status::kNoSpace;
    case EPERM:
    case EROFS:
      return Status::kReadOnly;
    case ENOTSUP:
      return Status::kUnsupported;
    default:
      return Status::kIoError;
  }
}

}  // namespace

Result<std::unique_ptr<Connection>> Connection::open(const std::string& uri) {
  const Libnbd* const library = TRY(Libnbd::load());
  EventFd wake = TRY(EventFd::create());
  nbd_handle* const handle = library->create();
  if (handle == nullptr) return fail("open '{}': {}", uri, library->get_error());
  std::unique_ptr<Connection> made(new Connection(*library, handle, std::move(wake)));
  TRY(made->connect(uri));
  TRY(made->learn(uri));
  made->thread_ = Thread("nbd", [connection = made.get()] { connection->move_bytes(); });
  return made;
}

Connection::~Connection() {
  ending_.store(true);
  wake_.signal();
  thread_.join();
  // What this says reaches the server or does not: nothing is under way.
  if (alive()) (void)library_.disconnect(handle_, 0);
  library_.close(handle_);
}

Result<> Connection::connect(const std::string& uri) {
  const auto failed = [&] { return fail("open '{}': {}", uri, library_.get_error()); };
  if (library_.add_meta_context(handle_, kAllocation) < 0 || library_.connect_uri(handle_, uri.c_str()) < 0) {
    return failed();
  }
  const auto end = steady_clock::now() + kConnectPatience;
  while (library_.is_ready(handle_) == 0) {
    if (library_.is_dead(handle_) != 0 || library_.is_closed(handle_) != 0) return failed();
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - steady_clock::now()).count();
    if (left <= 0) return fail("open '{}': no answer in {} seconds", uri, kConnectPatience.count());
    if (library_.poll(handle_, static_cast<int>(left)) < 0) return failed();
  }
  return {};
}

Result<> Connection::learn(const std::string& uri) {
  const int64_t size = library_.get_size(handle_);
  if (size <= 0) return fail("open '{}': a disk of {} bytes", uri, size);
  const int64_t least = library_.get_block_size(handle_, LIBNBD_SIZE_MINIMUM);
  const int64_t most = library_.get_block_size(handle_, LIBNBD_SIZE_MAXIMUM);
  served_.size = static_cast<uint64_t>(size);
  served_.least_bytes = least <= 0 ? 1 : static_cast<uint64_t>(least);
  if (!std::has_single_bit(served_.least_bytes) || served_.least_bytes > kUsualBytes ||
      served_.size % served_.least_bytes != 0) {
    return fail("open '{}': a disk of {} bytes in blocks of {}", uri, size, least);
  }
  served_.most_bytes = most <= 0 ? kUsualBytes : std::min(static_cast<uint64_t>(most), kMostBytes);
  served_.most_bytes = std::max(align_down(served_.most_bytes, served_.least_bytes), served_.least_bytes);
  served_.read_only = library_.is_read_only(handle_) == 1;
  served_.flushes = library_.can_flush(handle_) == 1;
  served_.zeroes = library_.can_zero(handle_) == 1;
  served_.says_where_data_is = library_.can_meta_context(handle_, kAllocation) == 1;
  return {};
}

void Connection::move_bytes() {
  while (!ending_.load()) {
    if (library_.is_dead(handle_) != 0 || library_.is_closed(handle_) != 0) break;
    const unsigned direction = library_.get_direction(handle_);
    const auto events = static_cast<short>(((direction & LIBNBD_AIO_DIRECTION_READ) != 0 ? POLLIN : 0) |
                                           ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0 ? POLLOUT : 0));
    std::array<pollfd, 2> entries{{{.fd = library_.get_fd(handle_), .events = events, .revents = 0},
                                   {.fd = wake_.fd(), .events = POLLIN, .revents = 0}}};
    if (::poll(entries.data(), entries.size(), kBetweenLooks_ms) < 0 && errno != EINTR) break;
    if (entries[1].revents != 0) (void)wake_.take();
    // The direction may have changed since, by a call; one that is not wanted any more does nothing.
    const unsigned now = library_.get_direction(handle_);
    const short happened = entries[0].revents;
    if ((happened & (POLLIN | POLLHUP | POLLERR)) != 0 && (now & LIBNBD_AIO_DIRECTION_READ) != 0) {
      (void)library_.notify_read(handle_);
    } else if ((happened & (POLLOUT | POLLHUP | POLLERR)) != 0 && (now & LIBNBD_AIO_DIRECTION_WRITE) != 0) {
      (void)library_.notify_write(handle_);
    }
  }
  if (!ending_.load()) alive_.store(false);
}

// The library sees that the server is gone, and ends every call.
void Connection::give_up() {
  alive_.store(false);
  if (const int fd = library_.get_fd(handle_); fd >= 0) ::shutdown(fd, SHUT_RDWR);
  wake_.signal();
}

Status Connection::call(const std::function<int64_t(nbd_completion_callback)>& submit) {
  Waiting waiting;
  if (submit({.callback = on_done, .user_data = &waiting, .free = nullptr}) < 0) {
    if (library_.is_dead(handle_) != 0 || library_.is_closed(handle_) != 0) alive_.store(false);
    return Status::kIoError;
  }
  wake_.signal();
  const auto end = steady_clock::now() + kCallPatience;
  bool gave_up = false;
  waiting.mutex.lock();
  while (!waiting.done) {
    // The buffer is the library's until it says so, however long that takes.
    if (!waiting.changed.wait_for(waiting.mutex, std::chrono::seconds(1)) && !gave_up && steady_clock::now() > end) {
      gave_up = true;
      waiting.mutex.unlock();
      give_up();
      waiting.mutex.lock();
    }
  }
  const int error = waiting.error;
  waiting.mutex.unlock();
  if (error != 0 && (library_.is_dead(handle_) != 0 || library_.is_closed(handle_) != 0)) alive_.store(false);
  return to_status(error);
}

Status Connection::read(uint64_t offset, MutableByteSpan bytes) {
  return call([&](nbd_completion_callback done) {
    return library_.pread(handle_, bytes.data(), bytes.size(), offset, done, 0);
  });
}

Status Connection::write(uint64_t offset, ByteSpan bytes) {
  return call([&](nbd_completion_callback done) {
    return library_.pwrite(handle_, bytes.data(), bytes.size(), offset, done, 0);
  });
}

Status Connection::flush() {
  return call([&](nbd_completion_callback done) { return library_.flush(handle_, done, 0); });
}

Status Connection::zero(uint64_t offset, uint64_t size) {
  return call([&](nbd_completion_callback done) { return library_.zero(handle_, size, offset, done, 0); });
}

Connection::Extent Connection::extent(uint64_t offset, uint64_t size) {
  Extent extent;
  const Status status = call([&](nbd_completion_callback done) {
    const nbd_extent_callback each{.callback = on_extents, .user_data = &extent, .free = nullptr};
    return library_.block_status(handle_, size, offset, each, done, 0);
  });
  return status == Status::kOk ? extent : Extent{};
}

}  // namespace bulkhead::block::nbd
