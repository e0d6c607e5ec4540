// Carries reads and writes of one file out by the kernel's io_uring: what the page cache holds is answered before
// submit() returns, the rest without a thread of ours each. It does transfers only, and none twice: what the kernel cut
// short or refused is given back with the kernel's answer. See io_uring(7).
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include <liburing.h>
#include <sys/uio.h>

#include "block/request.h"
#include "support/os/fd.h"
#include "support/os/mutex.h"
#include "support/os/thread.h"

namespace bulkhead::block::file {

class Ring {
 public:
  // In the kernel at once; more wait here.
  static constexpr unsigned kEntries = 128;
  static constexpr size_t kMaximumPieces = 256;
  // With as many bytes as were transferred, or an error number below 0. On the ring's thread or in submit(), without a
  // lock.
  using Answer = std::function<void(Request request, int result)>;

  // Null where the host has no io_uring or forbids it.
  static std::unique_ptr<Ring> create(Answer answer);
  // When every request has been answered.
  ~Ring();

  [[nodiscard]] static bool takes(const Request& request);
  void submit(Request request, int fd);

 private:
  struct Slot {
    std::optional<Request> request;
    std::vector<iovec> pieces;
  };
  struct Waiting {
    Request request;
    int fd;
  };

  Ring(EventFd wake, Answer answer) : wake_(std::move(wake)), answer_(std::move(answer)), slots_(kEntries) {}
  void work();
  // Answers what has ended, and lets in what waits.
  void reap();
  bool reap_some();
  void enter(Request request, int fd) REQUIRES(submit_mutex_);

  EventFd wake_;
  const Answer answer_;
  io_uring ring_{};  // its submission side belongs to submit_mutex_, its completion side to reap_mutex_
  std::vector<Slot> slots_;

  Mutex submit_mutex_;
  std::vector<unsigned> free_slots_ GUARDED_BY(submit_mutex_);
  std::deque<Waiting> waiting_ GUARDED_BY(submit_mutex_);
  bool ending_ GUARDED_BY(submit_mutex_) = false;
  Mutex reap_mutex_;
  Thread thread_;
};

}  // namespace bulkhead::block::file
