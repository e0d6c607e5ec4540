// One piece of work for a disk: what to do, where, and the host bytes that take part. A request is moved from its maker
// through filters and formats down to a store and is completed there, once; one that dies unanswered is a bug of ours
// and asserts. It knows no guest address.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "support/bytes.h"
#include "support/check.h"

namespace bulkhead::block {

enum class Operation : uint8_t {
  kRead,
  kWrite,
  kFlush,        // what was written and completed before is on stable storage when this completes
  kDiscard,      // the range's contents are no longer needed: a hint
  kWriteZeroes,  // the range reads as zeroes afterwards
};

enum class Status : uint8_t {
  kOk,
  kIoError,
  kNoSpace,      // the storage below is full; the same request may succeed later
  kUnsupported,  // the disk cannot do this operation
  kOutOfRange,   // not within the disk, or not a multiple of its sector size
  kReadOnly,
  kLost,   // a flush failed: what was written may be gone, and no flush of this storage succeeds any more
  kRetry,  // not done; the machine is about to be paused: keep the request, and submit it again when it goes on
};

[[nodiscard]] std::string_view to_string(Operation operation);
[[nodiscard]] std::string_view to_string(Status status);

// Whether write-zeroes may give the storage back.
enum class Unmap : uint8_t { kNo, kYes };

class Request {
 public:
  using Completion = std::move_only_function<void(Status)>;

  // The buffers stay valid and where they are until completion. A write only reads them.
  static Request read(uint64_t offset, std::vector<MutableByteSpan> buffers, Completion completion);
  static Request write(uint64_t offset, std::vector<MutableByteSpan> buffers, Completion completion);
  static Request flush(Completion completion);
  static Request discard(uint64_t offset, uint64_t size, Completion completion);
  static Request write_zeroes(uint64_t offset, uint64_t size, Unmap unmap, Completion completion);

  Request(Request&& other) noexcept = default;
  Request& operator=(Request&& other) noexcept;
  ~Request() { CHECK(!completion_, "a disk request died unanswered"); }

  [[nodiscard]] Operation operation() const { return operation_; }
  // The range in bytes; both are 0 for a flush.
  [[nodiscard]] uint64_t offset() const { return offset_; }
  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] Unmap unmap() const { return unmap_; }
  // As many bytes as size() for reads and writes, none for the others.
  [[nodiscard]] const std::vector<MutableByteSpan>& buffers() const { return buffers_; }

  // The observer is told the status before the maker is, on the thread that completes the request.
  void observe(Completion observer);
  // The judge turns the status of the storage into the one that the maker and the observers are told.
  void judge(std::move_only_function<Status(Status)> judge);

  // Calls the maker back on this thread and leaves the request empty. Hold no lock.
  void complete(Status status);

 private:
  Request(Operation operation, uint64_t offset, uint64_t size, std::vector<MutableByteSpan> buffers,
          Completion completion);

  Operation operation_;
  Unmap unmap_ = Unmap::kNo;
  uint64_t offset_;
  uint64_t size_;
  std::vector<MutableByteSpan> buffers_;
  Completion completion_;
};

}  // namespace bulkhead::block
