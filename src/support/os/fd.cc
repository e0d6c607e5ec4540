#include "support/os/fd.h"

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

namespace bulkhead {

void Fd::reset() {
  if (number_ >= 0) ::close(number_);
  number_ = -1;
}

Result<Fd> open_file(const std::string& path, int flags, unsigned mode) {
  const int number = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  if (number < 0) return fail_errno(errno, "open '{}'", path);
  return Fd(number);
}

Result<std::string> read_file(const std::string& path, uint64_t limit) {
  const Fd file = TRY(open_file(path, O_RDONLY));
  std::string contents;
  std::array<char, 65536> buffer;
  while (true) {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "read '{}'", path);
    if (count == 0) return contents;
    if (contents.size() + static_cast<size_t>(count) > limit) {
      return fail("read '{}': larger than the {} bytes allowed", path, limit);
    }
    contents.append(buffer.data(), static_cast<size_t>(count));
  }
}

Result<> write_all(int fd, ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "write {} bytes", bytes.size());
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return {};
}

Result<EventFd> EventFd::create() {
  const int number = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (number < 0) return fail_errno(errno, "create an eventfd");
  return EventFd(Fd(number));
}

void EventFd::signal() {
  const uint64_t one = 1;
  // A full counter is already signalled, so a refused write loses nothing.
  [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
}

uint64_t EventFd::take() {
  uint64_t count = 0;
  const iovec part{.iov_base = &count, .iov_len = sizeof count};
  // Who else has the descriptor may have made it one that waits.
  return ::preadv2(fd_.get(), &part, 1, -1, RWF_NOWAIT) == sizeof count ? count : 0;
}

Result<Mapping> Mapping::reserve(size_t size) {
  void* address = ::mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) return fail_errno(errno, "reserve {} bytes of address space", size);
  return Mapping(address, size);
}

Result<Mapping> Mapping::anonymous(size_t size) {
  void* address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) return fail_errno(errno, "map {} bytes", size);
  return Mapping(address, size);
}

void Mapping::reset() {
  if (address_ != nullptr) ::munmap(address_, size_);
  address_ = nullptr;
  size_ = 0;
}

}  // namespace bulkhead
