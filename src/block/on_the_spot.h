// Which requests a disk with threads carries out on the thread that submits them. What the page cache has or takes
// needs some microseconds; to wake another thread, and to be woken by it, needs ten times that, and more in a virtual
// machine.
#pragma once

#include <chrono>

#include "block/request.h"

namespace bulkhead::block {

// Belongs to one disk, under its lock. Small transfers, while nothing else is under way, so that nobody waits behind
// one; not out of a completion of another one, which would go deeper and deeper in the stack; and none of the next ones
// after one that took long, as from a disk or out of a compressed cluster: those keep the threads busy together.
class OnTheSpot {
 public:
  static constexpr uint64_t kLargest = 16 << 10;          // bytes
  static constexpr std::chrono::microseconds kLong{100};  // from here on one took long
  static constexpr unsigned kLeftToThreads = 64;          // requests after such a one

  // To be asked when nothing is under way, once a request.
  [[nodiscard]] bool takes(const Request& request) {
    const bool transfer = request.operation() == Operation::kRead || request.operation() == Operation::kWrite;
    if (!transfer || request.size() > kLargest || inside_) return false;
    if (left_to_threads_ == 0) return true;
    --left_to_threads_;
    return false;
  }
  void took(std::chrono::nanoseconds time) {
    if (time >= kLong) left_to_threads_ = kLeftToThreads;
  }
  static void complete(Request request, Status status) {
    inside_ = true;
    request.complete(status);
    inside_ = false;
  }

 private:
  static inline thread_local bool inside_ = false;
  unsigned left_to_threads_ = 0;
};

}  // namespace bulkhead::block
