#include "block/request.h"

namespace bulkhead::block {
namespace {

uint64_t total_size(const std::vector<MutableByteSpan>& buffers) {
  uint64_t size = 0;
  for (const MutableByteSpan& buffer : buffers) size += buffer.size();
  return size;
}

}  // namespace

std::string_view to_string(Operation operation) {
  switch (operation) {
    case Operation::kRead:
      return "read";
    case Operation::kWrite:
      return "write";
    case Operation::kFlush:
      return "flush";
    case Operation::kDiscard:
      return "discard";
    case Operation::kWriteZeroes:
      return "write zeroes";
  }
  return "unknown operation";
}

std::string_view to_string(Status status) {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kIoError:
      return "I/O error";
    case Status::kNoSpace:
      return "no space";
    case Status::kUnsupported:
      return "unsupported";
    case Status::kOutOfRange:
      return "out of range";
    case Status::kReadOnly:
      return "read-only";
    case Status::kLost:
      return "what was written may be lost, and cannot be made safe any more";
    case Status::kRetry:
      return "to be repeated";
  }
  return "unknown status";
}

Request::Request(Operation operation, uint64_t offset, uint64_t size, std::vector<MutableByteSpan> buffers,
                 Completion completion)
    : operation_(operation),
      offset_(offset),
      size_(size),
      buffers_(std::move(buffers)),
      completion_(std::move(completion)) {
  CHECK(completion_, "a request without anybody who waits for it");
}

Request Request::read(uint64_t offset, std::vector<MutableByteSpan> buffers, Completion completion) {
  const uint64_t size = total_size(buffers);
  return {Operation::kRead, offset, size, std::move(buffers), std::move(completion)};
}

Request Request::write(uint64_t offset, std::vector<MutableByteSpan> buffers, Completion completion) {
  const uint64_t size = total_size(buffers);
  return {Operation::kWrite, offset, size, std::move(buffers), std::move(completion)};
}

Request Request::flush(Completion completion) {
  return {Operation::kFlush, 0, 0, {}, std::move(completion)};
}

Request Request::discard(uint64_t offset, uint64_t size, Completion completion) {
  return {Operation::kDiscard, offset, size, {}, std::move(completion)};
}

Request Request::write_zeroes(uint64_t offset, uint64_t size, Unmap unmap, Completion completion) {
  Request request(Operation::kWriteZeroes, offset, size, {}, std::move(completion));
  request.unmap_ = unmap;
  return request;
}

Request& Request::operator=(Request&& other) noexcept {
  CHECK(!completion_, "a disk request was overwritten unanswered");
  operation_ = other.operation_;
  unmap_ = other.unmap_;
  offset_ = other.offset_;
  size_ = other.size_;
  buffers_ = std::move(other.buffers_);
  completion_ = std::move(other.completion_);
  return *this;
}

void Request::observe(Completion observer) {
  completion_ = [observer = std::move(observer), completion = std::move(completion_)](Status status) mutable {
    observer(status);
    completion(status);
  };
}

void Request::judge(std::move_only_function<Status(Status)> judge) {
  completion_ = [judge = std::move(judge), completion = std::move(completion_)](Status status) mutable {
    completion(judge(status));
  };
}

void Request::complete(Status status) {
  CHECK(completion_, "a disk request is completed once");
  Completion completion = std::exchange(completion_, nullptr);
  completion(status);
}

}  // namespace bulkhead::block
