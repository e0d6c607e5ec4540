#include "block/store/file/ring.h"

#include <algorithm>
#include <array>

#include <poll.h>
#include <sched.h>

namespace bulkhead::block::file {

namespace {

// The kernel's limit for one.
constexpr size_t kLargestBuffer = size_t{1} << 30;

}  // namespace

std::unique_ptr<Ring> Ring::create(std::span<const int> files, Answer answer) {
  auto wake = EventFd::create();
  if (!wake) return nullptr;
  std::unique_ptr<Ring> made(new Ring(std::move(*wake), std::move(answer)));
  if (::io_uring_queue_init(kEntries, &made->ring_, 0) != 0) {
    made->ring_.ring_fd = -1;
    return nullptr;
  }
  if (::io_uring_register_eventfd(&made->ring_, made->wake_.fd()) != 0) return nullptr;
  // Saves taking and dropping a reference for each request.
  if (::io_uring_register_files(&made->ring_, files.data(), static_cast<unsigned>(files.size())) != 0) return nullptr;
  {
    const LockGuard lock(made->submit_mutex_);
    for (unsigned i = 0; i < kEntries; ++i) made->free_slots_.push_back(i);
  }
  made->thread_ = Thread("disk-ring", [ring = made.get()] { ring->work(); });
  return made;
}

Ring::~Ring() {
  {
    const LockGuard lock(submit_mutex_);
    ending_ = true;
  }
  wake_.signal();
  thread_.join();
  if (ring_.ring_fd >= 0) ::io_uring_queue_exit(&ring_);
}

bool Ring::takes(const Request& request) {
  const bool transfer = request.operation() == Operation::kRead || request.operation() == Operation::kWrite;
  return transfer && request.size() != 0 && request.size() <= INT32_MAX && request.buffers().size() <= kMaximumPieces;
}

Result<> Ring::register_memory(std::span<const MutableByteSpan> memory) {
  std::vector<iovec> buffers;
  for (const MutableByteSpan& part : memory) {
    for (size_t at = 0; at < part.size(); at += kLargestBuffer) {
      buffers.push_back({.iov_base = part.data() + at, .iov_len = std::min(kLargestBuffer, part.size() - at)});
    }
  }
  const int result = ::io_uring_register_buffers(&ring_, buffers.data(), static_cast<unsigned>(buffers.size()));
  if (result != 0) {
    return fail_errno(-result, "register memory with io_uring (what may be locked is limited: 'ulimit -l')");
  }
  registered_ = std::move(buffers);
  return {};
}

std::optional<int> Ring::registered(const iovec& piece) const {
  const auto* const begin = static_cast<const uint8_t*>(piece.iov_base);
  for (size_t i = 0; i < registered_.size(); ++i) {
    const auto* const first = static_cast<const uint8_t*>(registered_[i].iov_base);
    if (begin >= first && begin + piece.iov_len <= first + registered_[i].iov_len) return static_cast<int>(i);
  }
  return std::nullopt;
}

void Ring::submit(Request request, unsigned file) {
  {
    const LockGuard lock(submit_mutex_);
    if (free_slots_.empty()) {
      waiting_.push_back({std::move(request), file});
      return;
    }
    enter(std::move(request), file);
  }
  reap();
}

void Ring::enter(Request request, unsigned file) {
  const unsigned index = free_slots_.back();
  free_slots_.pop_back();
  Slot& slot = slots_[index];
  slot.pieces.clear();
  for (const MutableByteSpan& buffer : request.buffers()) {
    if (!buffer.empty()) slot.pieces.push_back({.iov_base = buffer.data(), .iov_len = buffer.size()});
  }
  io_uring_sqe* const entry = ::io_uring_get_sqe(&ring_);
  CHECK(entry != nullptr, "each entry is submitted before the next one is asked for");
  const auto count = static_cast<unsigned>(slot.pieces.size());
  const int fd = static_cast<int>(file);
  const bool reads = request.operation() == Operation::kRead;
  const iovec& first = slot.pieces.front();
  if (const auto buffer = count == 1 ? registered(first) : std::nullopt) {
    const auto size = static_cast<unsigned>(first.iov_len);
    if (reads) {
      ::io_uring_prep_read_fixed(entry, fd, first.iov_base, size, request.offset(), *buffer);
    } else {
      ::io_uring_prep_write_fixed(entry, fd, first.iov_base, size, request.offset(), *buffer);
    }
  } else if (reads) {
    ::io_uring_prep_readv(entry, fd, slot.pieces.data(), count, request.offset());
  } else {
    ::io_uring_prep_writev(entry, fd, slot.pieces.data(), count, request.offset());
  }
  ::io_uring_sqe_set_flags(entry, IOSQE_FIXED_FILE);
  ::io_uring_sqe_set_data64(entry, index);
  slot.request.emplace(std::move(request));
  // What ends at once needs no thread: whoever submits looks for it afterwards, and for all else that ends meanwhile.
  (void)::io_uring_cq_eventfd_toggle(&ring_, false);
  int result = 0;
  do {
    result = ::io_uring_submit(&ring_);
  } while ((result == -EINTR || result == -EAGAIN || result == -EBUSY) && ::sched_yield() == 0);
  (void)::io_uring_cq_eventfd_toggle(&ring_, true);
  CHECK(result == 1, "the kernel takes what fits into its ring");
}

void Ring::reap() {
  // Who is called back may submit more: that is looked at here, not deeper and deeper in the stack.
  thread_local const Ring* reaping = nullptr;
  if (reaping == this) return;
  const Ring* const outer = std::exchange(reaping, this);
  while (reap_some()) continue;
  reaping = outer;
}

bool Ring::reap_some() {
  std::array<io_uring_cqe*, 32> ended;
  std::array<std::pair<uint64_t, int>, 32> answers;
  unsigned count = 0;
  {
    const LockGuard lock(reap_mutex_);
    count = ::io_uring_peek_batch_cqe(&ring_, ended.data(), ended.size());
    for (unsigned i = 0; i < count; ++i) answers[i] = {ended[i]->user_data, ended[i]->res};
    ::io_uring_cq_advance(&ring_, count);
  }
  if (count == 0) return false;
  for (unsigned i = 0; i < count; ++i) {
    const auto [index, result] = answers[i];
    std::optional<Request> request;
    {
      const LockGuard lock(submit_mutex_);
      request.swap(slots_[index].request);
      free_slots_.push_back(static_cast<unsigned>(index));
      if (!waiting_.empty()) {
        Waiting next = std::move(waiting_.front());
        waiting_.pop_front();
        enter(std::move(next.request), next.file);
      }
    }
    answer_(std::move(*request), result);
  }
  return true;
}

void Ring::work() {
  for (;;) {
    pollfd fd{.fd = wake_.fd(), .events = POLLIN, .revents = 0};
    (void)::poll(&fd, 1, 1000);
    (void)wake_.take();
    reap();
    const LockGuard lock(submit_mutex_);
    if (ending_ && waiting_.empty() && free_slots_.size() == kEntries) return;
  }
}

}  // namespace bulkhead::block::file
