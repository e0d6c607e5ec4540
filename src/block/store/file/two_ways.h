// Writes to a new file as fast as the host takes them: one writer at a time goes through the page cache, where two
// would wait for each other under the file's lock, and the others go past it to the disk, each by an io_uring of its
// thread, which does not hold that lock while the disk works. So the memory's bandwidth adds to the disk's, and the
// slower of both gets less to do. The file is made longer well ahead of the writes, since the kernel lets no other
// writer in while one past the cache makes the file longer; where the writes follow each other it gets its blocks at
// once, too.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "block/store/file/direct_access.h"
#include "support/os/mutex.h"

namespace bulkhead::block {

class TwoWays {
 public:
  // Of one file that nobody else changes, and of size bytes now. Empty where the file is not to be had past the cache.
  static std::unique_ptr<TwoWays> open(int file, const std::string& path);
  // The file is as long again as what was written to it needs.
  ~TwoWays();
  TwoWays(const TwoWays&) = delete;
  TwoWays& operator=(const TwoWays&) = delete;

  // False, and nothing is known of the range, when it has to be written in the ordinary way, which then also tells why
  // it cannot be: small and unaligned ranges, and errors.
  [[nodiscard]] bool write(uint64_t offset, ByteSpan bytes);
  // What is in use of the file. note_end() stands before every write of the ordinary way.
  [[nodiscard]] uint64_t size() const;
  void note_end(uint64_t end);
  // The host's error, or 0.
  [[nodiscard]] int truncate(uint64_t size);

 private:
  TwoWays(int file, DirectAccess direct, uint64_t size)
      : file_(file), direct_(std::move(direct)), used_(size), made_(size) {}
  [[nodiscard]] bool make_room(uint64_t begin, uint64_t end);
  [[nodiscard]] bool write_through_cache(uint64_t offset, ByteSpan bytes) REQUIRES(cached_);

  const int file_;
  const DirectAccess direct_;
  Mutex cached_;  // of who writes through the cache
  mutable Mutex size_mutex_;
  uint64_t used_ GUARDED_BY(size_mutex_), made_ GUARDED_BY(size_mutex_);
};

}  // namespace bulkhead::block
