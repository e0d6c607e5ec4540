#include "console/descriptor_stream.h"

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

namespace bulkhead::console {
namespace {

// A pipe that poll() calls writable takes this much without blocking.
constexpr size_t kChunk = 4096;
constexpr std::chrono::milliseconds kGatherTime{1};

bool writable_now(int fd) {
  pollfd entry{.fd = fd, .events = POLLOUT, .revents = 0};
  return ::poll(&entry, 1, 0) == 1;
}

// epoll takes what can block; regular files and devices like /dev/null are always ready.
bool can_wait_for(int fd) {
  const Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  return ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

DescriptorStream::DescriptorStream(EventLoop& loop, Absence absence)
    : loop_(loop), absence_(absence), self_(std::make_shared<DescriptorStream*>(this)) {}

DescriptorStream::~DescriptorStream() {
  detach();
}

size_t DescriptorStream::write(ByteSpan bytes) {
  size_t taken = 0;
  {
    LockGuard guard(mutex_);
    counters_.bytes_from_guest += bytes.size();
    if (!has_output_) {
      counters_.bytes_dropped += absence_ == Absence::kDrop ? bytes.size() : from_guest_.push_latest(bytes);
      return bytes.size();
    }
    taken = from_guest_.push(bytes);
    counters_.bytes_from_guest -= bytes.size() - taken;
    short_count_given_ |= taken < bytes.size();
  }
  request_service(kGatherTime);
  return taken;
}

size_t DescriptorStream::read(MutableByteSpan out) {
  size_t count = 0;
  bool was_full = false;
  {
    LockGuard guard(mutex_);
    was_full = to_guest_.room() == 0;
    count = to_guest_.pop(out);
    counters_.bytes_to_guest += count;
  }
  if (was_full && count != 0) request_service(std::chrono::milliseconds(0));
  return count;
}

void DescriptorStream::set_listener(std::function<void()> on_ready) {
  LockGuard guard(mutex_);
  listener_ = on_ready ? std::make_shared<std::function<void()>>(std::move(on_ready)) : nullptr;
  while (notifying_ != std::thread::id() && notifying_ != std::this_thread::get_id()) notified_.wait(mutex_);
}

void DescriptorStream::notify_listener() {
  std::shared_ptr<std::function<void()>> listener;
  {
    LockGuard guard(mutex_);
    if (listener_ == nullptr) return;
    listener = listener_;
    notifying_ = std::this_thread::get_id();
  }
  (*listener)();
  LockGuard guard(mutex_);
  notifying_ = std::thread::id();
  notified_.notify_all();
}

StreamCounters DescriptorStream::counters() const {
  LockGuard guard(mutex_);
  return counters_;
}

bool DescriptorStream::flush(std::chrono::milliseconds patience) {
  request_service(std::chrono::milliseconds(0));
  LockGuard guard(mutex_);
  uint64_t seen = progress_;
  auto deadline = std::chrono::steady_clock::now() + patience;
  while (has_output_ && !from_guest_.empty()) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds(0)) return false;
    moved_.wait_for(mutex_, left);
    if (progress_ != seen) deadline = std::chrono::steady_clock::now() + patience;
    seen = progress_;
  }
  return true;
}

// One request at a time stands in the loop, however many bytes the guest writes meanwhile.
void DescriptorStream::request_service(std::chrono::milliseconds delay) {
  {
    LockGuard guard(mutex_);
    if (service_requested_ && delay.count() != 0) return;
    service_requested_ = true;
  }
  const std::weak_ptr<DescriptorStream*> self = self_;
  const auto serve = [self] {
    if (const auto stream = self.lock()) (*stream)->service();
  };
  EventLoop& loop = loop_;
  const bool posted = loop.post([&loop, delay, serve] {
    if (delay.count() == 0) {
      serve();
    } else {
      loop.call_after(delay, serve);
    }
  });
  if (!posted) {
    LockGuard guard(mutex_);
    service_requested_ = false;
  }
}

void DescriptorStream::service() {
  {
    LockGuard guard(mutex_);
    service_requested_ = false;
  }
  if (input_.fd >= 0 && input_.always_ready) receive();
  if (!output_blocked_) transmit();
  update_interest();
}

void DescriptorStream::attach(int input, int output) {
  input_ = End{.fd = input};
  output_ = End{.fd = output};
  output_blocked_ = false;
  for (End* end : {&input_, &output_}) {
    if (end->fd < 0) continue;
    end->non_blocking = (::fcntl(end->fd, F_GETFL) & O_NONBLOCK) != 0;
    end->always_ready = !can_wait_for(end->fd);
  }
  {
    LockGuard guard(mutex_);
    has_output_ = output >= 0;
  }
  update_interest();
  request_service(std::chrono::milliseconds(0));
}

void DescriptorStream::detach() {
  set_interest(input_, 0);
  set_interest(output_, 0);
  input_ = output_ = End{};
  output_blocked_ = false;
  LockGuard guard(mutex_);
  has_output_ = false;
  // Output that waits for the next far end stays; what nobody will take makes no flush wait.
  if (absence_ == Absence::kDrop && !from_guest_.empty()) {
    counters_.bytes_dropped += from_guest_.size();
    from_guest_.drop(from_guest_.size());
  }
  moved_.notify_all();
}

// A descriptor is in the loop only while something is expected of it, because epoll reports a hang-up, over and over,
// even when it was asked for nothing.
void DescriptorStream::set_interest(End& end, uint32_t events) {
  if (end.fd < 0 || end.always_ready || end.events == events) return;
  const int fd = end.fd;
  if (events == 0) {
    loop_.unwatch(fd);
  } else if (end.events != 0) {
    loop_.set_events(fd, events);
  } else if (!loop_.watch(fd, events, [this, fd](uint32_t ready) { on_events(fd, ready); })) {
    return;
  }
  end.events = events;
}

void DescriptorStream::update_interest() {
  size_t input_room = 0;
  {
    LockGuard guard(mutex_);
    input_room = to_guest_.room();
  }
  const uint32_t for_input = input_.fd >= 0 && input_room != 0 ? static_cast<uint32_t>(EPOLLIN) : 0;
  const uint32_t for_output = output_.fd >= 0 && output_blocked_ ? static_cast<uint32_t>(EPOLLOUT) : 0;
  if (input_.fd == output_.fd) {
    set_interest(input_, for_input | for_output);
  } else {
    set_interest(input_, for_input);
    set_interest(output_, for_output);
  }
}

void DescriptorStream::on_events(int fd, uint32_t events) {
  constexpr uint32_t kGone = EPOLLERR | EPOLLHUP;
  if (fd == output_.fd && output_blocked_ && (events & (EPOLLOUT | kGone)) != 0) {
    output_blocked_ = false;
    transmit();
  }
  if (fd == input_.fd && (events & (EPOLLIN | kGone)) != 0) receive();
  update_interest();
}

void DescriptorStream::receive() {
  std::array<uint8_t, kInputRing> buffer;
  size_t room = 0;
  {
    LockGuard guard(mutex_);
    room = to_guest_.room();
  }
  // With a full ring the hang-up is seen again once the guest has read.
  if (room == 0) return;
  const ssize_t count = ::read(input_.fd, buffer.data(), room);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) return end_input();
  const size_t kept = filter_input(MutableByteSpan(buffer).first(static_cast<size_t>(count)));
  {
    LockGuard guard(mutex_);
    to_guest_.push(ByteSpan(buffer).first(kept));
    room = to_guest_.room();
  }
  if (kept != 0) notify_listener();
  if (input_.always_ready && room != 0) request_service(std::chrono::milliseconds(0));
}

void DescriptorStream::transmit() {
  bool wrote = false;
  while (output_.fd >= 0) {
    std::array<uint8_t, kChunk> chunk;
    size_t size = 0;
    {
      LockGuard guard(mutex_);
      const ByteSpan front = from_guest_.front();
      size = std::min(front.size(), kChunk);
      std::copy_n(front.begin(), size, chunk.begin());
    }
    if (size == 0) break;
    output_blocked_ = !output_.non_blocking && !output_.always_ready && !writable_now(output_.fd);
    if (output_blocked_) break;
    const ssize_t count = ::write(output_.fd, chunk.data(), size);
    if (count < 0 && errno == EINTR) continue;
    output_blocked_ = count < 0 && errno == EAGAIN;
    if (output_blocked_) break;
    if (count <= 0) return end_output();
    LockGuard guard(mutex_);
    from_guest_.drop(static_cast<size_t>(count));
    ++progress_;
    moved_.notify_all();
    wrote = true;
  }
  if (wrote) notify_if_owed();
}

// A stream whose two ends are one descriptor hangs up as a whole; the end of a separate input leaves the output.
void DescriptorStream::end_input() {
  if (input_.fd == output_.fd) {
    detach();
  } else {
    set_interest(input_, 0);
    input_ = End{};
  }
  on_hangup();
  notify_if_owed();
}

void DescriptorStream::end_output() {
  const End input = input_;
  const bool keep_input = input_.fd != output_.fd;
  if (keep_input) input_ = End{};
  detach();
  if (keep_input) input_ = input;
  on_hangup();
  notify_if_owed();
}

// The writer that was told there is no room now has it, or has nobody to wait for.
void DescriptorStream::notify_if_owed() {
  {
    LockGuard guard(mutex_);
    if (!std::exchange(short_count_given_, false)) return;
  }
  notify_listener();
}

}  // namespace bulkhead::console
