// Which requests a disk with threads carries out on the thread that submits them. What the page cache has or takes
// needs some microseconds; to wake another thread, and to be woken by it, needs ten times that, and more in a virtual
// machine.
#pragma once

#include <atomic>
#include <chrono>

#include "block/request.h"

namespace bulkhead::block {

// Belongs to one disk; from any thread. Small transfers, while nothing else is under way, so that nobody waits behind
// one; not out of a completion of another one, which would go deeper and deeper in the stack; and none of the next ones
// after one that took long, as from a disk or out of a compressed cluster: those keep the threads busy together.
class OnTheSpot {
 public:
  static constexpr uint64_t kLargest = 16 << 10;          // bytes
  static constexpr std::chrono::microseconds kLong{100};  // from here on one took long
  static constexpr unsigned kLeftToThreads = 64;          // requests after such a one

  // A request that is left to the threads: before it is queued, and when it has been answered.
  void begun() { ++under_way_; }
  void ended() { --under_way_; }

  // True when the request has been answered with what perform(request) says; false when it is one for the threads. No
  // lock is held.
  template <typename Perform>
  [[nodiscard]] bool carry_out(Request& request, Perform perform) {
    if (!begin(request)) return false;
    const auto start = std::chrono::steady_clock::now();
    const Status status = perform(request);
    if (std::chrono::steady_clock::now() - start >= kLong) left_to_threads_ = kLeftToThreads;
    ended();
    inside_ = true;
    request.complete(status);
    inside_ = false;
    return true;
  }

 private:
  [[nodiscard]] bool begin(const Request& request) {
    const bool transfer = request.operation() == Operation::kRead || request.operation() == Operation::kWrite;
    if (!transfer || request.size() > kLargest || inside_) return false;
    unsigned none = 0;
    if (!under_way_.compare_exchange_strong(none, 1)) return false;
    if (left_to_threads_ == 0) return true;
    --left_to_threads_;
    ended();
    return false;
  }

  static inline thread_local bool inside_ = false;
  std::atomic<unsigned> under_way_{0};
  // Of whoever has made under_way_ 1, until ended().
  unsigned left_to_threads_ = 0;
};

}  // namespace bulkhead::block
