// Owners of what the host kernel lends: descriptors and mappings. Each closes or unmaps exactly once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "support/bytes.h"
#include "support/result.h"

namespace bulkhead {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int number) : number_(number) {}
  Fd(Fd&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      number_ = std::exchange(other.number_, -1);
    }
    return *this;
  }
  ~Fd() { reset(); }

  [[nodiscard]] int get() const { return number_; }
  [[nodiscard]] bool valid() const { return number_ >= 0; }
  [[nodiscard]] int release() { return std::exchange(number_, -1); }
  void reset();

 private:
  int number_ = -1;
};

// open(2) with O_CLOEXEC; the error names the path.
Result<Fd> open_file(const std::string& path, int flags, unsigned mode = 0644);
// The whole file; fails when it is larger than limit bytes.
Result<std::string> read_file(const std::string& path, uint64_t limit);
Result<> write_all(int fd, ByteSpan bytes);

// An eventfd counter in non-blocking mode.
class EventFd {
 public:
  static Result<EventFd> create();
  void signal();
  // The count since the last take, 0 when not signalled.
  uint64_t take();
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  explicit EventFd(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

class Mapping {
 public:
  Mapping() = default;
  Mapping(void* address, size_t size) : address_(static_cast<uint8_t*>(address)), size_(size) {}
  Mapping(Mapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    if (this != &other) {
      reset();
      address_ = std::exchange(other.address_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  ~Mapping() { reset(); }

  // Address space without access, to map pieces into.
  static Result<Mapping> reserve(size_t size);
  // Zeroed private memory that costs nothing until touched.
  static Result<Mapping> anonymous(size_t size);

  [[nodiscard]] uint8_t* data() const { return address_; }
  [[nodiscard]] size_t size() const { return size_; }
  void reset();

 private:
  uint8_t* address_ = nullptr;
  size_t size_ = 0;
};

}  // namespace bulkhead
