// Carries reads and writes of one file out by the kernel's io_uring: what the page cache holds is answered before
// submit() returns, the rest without a thread of ours each. It does transfers only, and none twice: what the kernel cut
// short or refused is given back with the kernel's answer. See io_uring(7).
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <liburing.h>
#include <sys/uio.h>

#include "block/request.h"
#include "support/os/fd.h"
#include "support/os/mutex.h"
#include "support/os/thread.h"
#include "support/result.h"

namespace bulkhead::block::file {

class Ring {
 public:
  // In the kernel at once; more wait here.
  static constexpr unsigned kEntries = 128;
  static constexpr size_t kMaximumPieces = 256;
  // With as many bytes as were transferred, or an error number below 0. On the ring's thread or in submit(), without a
  // lock.
  using Answer = std::function<void(Request request, int result)>;

  // Of these open files. Null where the host has no io_uring or forbids it.
  static std::unique_ptr<Ring> create(std::span<const int> files, Answer answer);
  // When every request has been answered.
  ~Ring();

  [[nodiscard]] static bool takes(const Request& request);
  // file: its place among those of create().
  void submit(Request request, unsigned file);

  // Memory from which and into which the kernel then copies without looking it up for each request; all of it becomes
  // resident and stays so (io_uring_register_buffers(3)). Before the first request; the memory outlives the ring. Once.
  // Fails where the host does not let this process keep so much in memory.
  Result<> register_memory(std::span<const MutableByteSpan> memory);

 private:
  struct Slot {
    std::optional<Request> request;
    std::vector<iovec> pieces;
  };
  struct Waiting {
    Request request;
    unsigned file;
  };

  Ring(EventFd wake, Answer answer) : wake_(std::move(wake)), answer_(std::move(answer)), slots_(kEntries) {}
  void work();
  // Answers what has ended, and lets in what waits.
  void reap();
  bool reap_some();
  void enter(Request request, unsigned file) REQUIRES(submit_mutex_);
  // The registered buffer in which it lies as a whole.
  [[nodiscard]] std::optional<int> registered(const iovec& piece) const;

  EventFd wake_;
  const Answer answer_;
  io_uring ring_{};  // its submission side belongs to submit_mutex_, its completion side to reap_mutex_
  std::vector<Slot> slots_;
  std::vector<iovec> registered_;  // in the order of their addresses

  Mutex submit_mutex_;
  std::vector<unsigned> free_slots_ GUARDED_BY(submit_mutex_);
  std::deque<Waiting> waiting_ GUARDED_BY(submit_mutex_);
  bool ending_ GUARDED_BY(submit_mutex_) = false;
  Mutex reap_mutex_;
  Thread thread_;
};

}  // namespace bulkhead::block::file
