// Bytes in a regular file or a block device of the host: the bottom of every chain, and by itself a raw disk. Requests
// are carried out by the kernel's ring or a few threads, or by who submits them (OnTheSpot). It never guesses a format,
// never follows what it reads, and never reports a flush as done after one has failed, because the kernel forgets the
// pages that it could not write.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "block/disk.h"
#include "block/on_the_spot.h"
#include "block/store/file/direct_access.h"
#include "block/store/file/ring.h"
#include "block/store/store.h"
#include "support/log.h"
#include "support/os/fd.h"
#include "support/os/mutex.h"
#include "support/os/thread.h"
#include "support/result.h"

namespace bulkhead::block::file {

using block::Access;

class FileStore final : public Disk {
 public:
  static constexpr unsigned kDefaultThreadCount = 4;
  enum class Driver : uint8_t { kRingIfPossible, kThreads };

  // Locks the file against a second opening: alone for kReadWrite, shared with other readers for kReadOnly. A file
  // whose size is no multiple of 512 gets its last sector filled up with zeroes, in the file itself only when that is
  // written. Without threads, submit() waits for the storage and completes before it returns. Where a folder is stated,
  // the path is one in it, reached as open_beneath() does.
  static Result<std::unique_ptr<FileStore>> open(const std::string& path, Access access,
                                                 unsigned thread_count = kDefaultThreadCount,
                                                 HostCache cache = HostCache::kUsed,
                                                 Driver driver = Driver::kRingIfPossible,
                                                 const std::string& below = "");
  // Carries out what is queued, then ends.
  ~FileStore() override;

  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  void submit(Request request) override;
  // Ring::register_memory(): before the first request. Fails without io_uring.
  [[nodiscard]] Result<> register_memory(std::span<const MutableByteSpan> memory);
  // While nothing is under way. A block device is as long as it is: it must have grown before.
  [[nodiscard]] Result<> grow(uint64_t new_size);

 private:
  FileStore(std::string path, Fd file, DirectAccess direct, const Geometry& geometry);
  void start(unsigned thread_count, Driver driver);
  void work();
  void queue_for_threads(Request request);
  void on_ring_answer(Request request, int result);
  [[nodiscard]] int way_for(const Request& request) const;
  [[nodiscard]] Status perform(const Request& request);
  [[nodiscard]] Status read(const Request& request);
  [[nodiscard]] Status write(const Request& request);
  [[nodiscard]] Status flush();
  [[nodiscard]] Status discard(const Request& request);
  [[nodiscard]] Status write_zeroes(const Request& request);
  [[nodiscard]] Status write_zero_bytes(uint64_t offset, uint64_t size);
  // Logs the error with the file's name and turns it into a status.
  [[nodiscard]] Status failed(Operation operation, uint64_t offset, int error);

  const std::string path_;
  const Fd file_;
  const DirectAccess direct_;
  Geometry geometry_;
  Mutex flush_mutex_;
  bool flush_failed_ GUARDED_BY(flush_mutex_) = false;  // for good
  log::RateLimit error_limit_;

  Mutex mutex_;
  ConditionVariable work_arrived_;
  std::deque<Request> queue_ GUARDED_BY(mutex_);
  bool ending_ GUARDED_BY(mutex_) = false;
  OnTheSpot on_the_spot_;  // knows nothing of the ring
  std::vector<Thread> threads_;
  // Last: what it answers may go on in the threads. Null where the host has none.
  std::unique_ptr<Ring> ring_;
};

}  // namespace bulkhead::block::file
