// The requests after the negotiation, and their answers.
#include <algorithm>
#include <chrono>

#include "block/nbd/session.h"
#include "support/check.h"
#include "support/os/thread.h"

namespace bulkhead::block::nbd {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);

ErrorNumber to_error(Status status) {
  switch (status) {
    case Status::kOk:
      return ErrorNumber::kNone;
    case Status::kNoSpace:
      return ErrorNumber::kNoSpace;
    case Status::kUnsupported:
      return ErrorNumber::kNotSupported;
    case Status::kOutOfRange:
      return ErrorNumber::kInvalid;
    case Status::kReadOnly:
      return ErrorNumber::kPermission;
    case Status::kIoError:
    case Status::kLost:
    case Status::kRetry:
      break;
  }
  return ErrorNumber::kIo;
}

// What a reader finds at an offset, whichever file of the chain it lies in.
Result<Extent> extent_at(Image& top, uint64_t offset, uint64_t most) {
  Extent extent{most, ExtentKind::kAbsent};
  for (Image* image = &top; image != nullptr && extent.kind == ExtentKind::kAbsent; image = image->backing()) {
    const uint64_t size = image->geometry().size;
    if (offset >= size) break;
    const Extent found = TRY(image->map(offset));
    extent.kind = found.kind;
    extent.size = std::min(extent.size, found.size);
  }
  return extent;
}

}  // namespace

void Session::transmit() {
  const Thread sender("nbd-answers", [this] { send_answers(); });
  while (take_request()) {
  }
  const LockGuard lock(mutex_);
  ending_ = true;
  changed_.notify_all();
}

void Session::wait_for_room(uint64_t bytes) {
  const LockGuard lock(mutex_);
  // The disk answers everything, and the sender ends with a client that takes no answers.
  while (under_way_ != 0 && (under_way_ == kMaximumRequests || bytes_ + bytes > kMaximumBytes)) {
    changed_.wait_for(mutex_, kPatience);
  }
  ++under_way_;
  bytes_ += bytes;
}

// False when the client goes, or says what cannot be understood: where its next request begins is not known then.
bool Session::take_request() {
  std::vector<uint8_t> bytes(kRequestBytes);
  if (!channel_.read(bytes, Channel::Wait::kRequest)) return false;
  const auto header = parse_request(bytes);
  if (!header || Command{header->type} == Command::kDisconnect) return false;
  const ErrorNumber error = check_request(offer_, *header);
  const bool writes = Command{header->type} == Command::kWrite;
  if (writes && header->size > kMaximumTransfer) return false;
  const bool reads = Command{header->type} == Command::kRead && error == ErrorNumber::kNone;
  const uint64_t size = writes || reads ? header->size : 0;
  wait_for_room(size);
  const auto pending = std::make_shared<Pending>(Pending{.header = *header, .data = std::vector<uint8_t>(size)});
  // What follows a write is taken off the channel even where it is refused.
  if (writes && !channel_.read(pending->data, Channel::Wait::kRest)) {
    answer({.head = {}, .tail = {}, .bytes = size});
    return false;
  }
  if (error != ErrorNumber::kNone) {
    finish(*pending, error);
  } else {
    carry_out(pending);
  }
  return true;
}

void Session::carry_out(const std::shared_ptr<Pending>& pending) {
  const CommandHeader header = pending->header;
  Pending& request = *pending;
  const auto done = [this, pending](Status status) { completed(pending, status); };
  switch (Command{header.type}) {
    case Command::kRead:
      return export_.disk.submit(Request::read(header.offset, {MutableByteSpan(request.data)}, done));
    case Command::kWrite:
      return export_.disk.submit(Request::write(header.offset, {MutableByteSpan(request.data)}, done));
    case Command::kTrim:
      return export_.disk.submit(Request::discard(header.offset, header.size, done));
    case Command::kWriteZeroes: {
      const Unmap unmap = (header.flags & kFlagNoHole) != 0 ? Unmap::kNo : Unmap::kYes;
      return export_.disk.submit(Request::write_zeroes(header.offset, header.size, unmap, done));
    }
    case Command::kFlush:
      if (offer_.read_only) return finish(request, ErrorNumber::kNone);
      return export_.disk.submit(Request::flush(done));
    case Command::kBlockStatus:
      return say_block_status(request);
    case Command::kDisconnect:
      break;
  }
  finish(request, ErrorNumber::kInvalid);
}

// On any thread of the disk's, or on this session's within submit().
void Session::completed(const std::shared_ptr<Pending>& pending, Status status) {
  const auto type = Command{pending->header.type};
  const bool changes = type == Command::kWrite || type == Command::kTrim || type == Command::kWriteZeroes;
  if (status == Status::kOk && changes && (pending->header.flags & kFlagFua) != 0) {
    return export_.disk.submit(
        Request::flush([this, pending](Status flushed) { finish(*pending, to_error(flushed)); }));
  }
  finish(*pending, to_error(status));
}

void Session::finish(Pending& pending, ErrorNumber error) {
  const CommandHeader& header = pending.header;
  const bool reads = Command{header.type} == Command::kRead;
  Answer made{.head = {}, .tail = {}, .bytes = pending.data.size()};
  const bool has_payload = reads || Command{header.type} == Command::kBlockStatus;
  if (!structured_ || !has_payload) {
    made.head = make_simple_reply(error, header.cookie);
    if (reads && error == ErrorNumber::kNone) made.tail = std::move(pending.data);
  } else if (error == ErrorNumber::kNone) {
    made.head = make_chunk(Chunk::kData, header.cookie, static_cast<uint32_t>(8 + pending.data.size()));
    const auto offset = Writer().put(header.offset).take();
    made.head.insert(made.head.end(), offset.begin(), offset.end());
    made.tail = std::move(pending.data);
  } else {
    made.head = make_chunk(Chunk::kError, header.cookie, 6);
    made.tail = Writer().put(static_cast<uint32_t>(error)).put(uint16_t{0}).take();
  }
  answer(std::move(made));
}

void Session::say_block_status(Pending& pending) {
  const CommandHeader& header = pending.header;
  struct Run {
    uint64_t size;
    uint32_t state;
  };
  std::vector<Run> runs;
  const size_t most = (header.flags & kFlagOneExtent) != 0 ? 1 : kMaximumExtents;
  // Neighbours of one state are one run, so that looking further than the runs that fit is looking for their end.
  for (uint64_t at = 0; at < header.size;) {
    const auto extent = extent_at(export_.image, header.offset + at, header.size - at);
    if (!extent) return finish(pending, ErrorNumber::kIo);
    const uint32_t state = extent->kind == ExtentKind::kData ? 0 : kStateHole | kStateZero;
    if (runs.empty() || runs.back().state != state) {
      if (runs.size() == most) break;
      runs.push_back({0, state});
    }
    runs.back().size += extent->size;
    at += extent->size;
  }
  Writer writer;
  writer.put(kAllocationId);
  for (const Run& run : runs) writer.put(static_cast<uint32_t>(run.size)).put(run.state);
  answer({.head = make_chunk(Chunk::kBlockStatus, header.cookie, static_cast<uint32_t>(4 + 8 * runs.size())),
          .tail = writer.take(),
          .bytes = 0});
}

void Session::answer(Answer answer) {
  const LockGuard lock(mutex_);
  answers_.push_back(std::move(answer));
  changed_.notify_all();
}

// Ends when the reader has and everything that was under way is answered. What cannot be sent any more is dropped.
void Session::send_answers() {
  bool gone = false;
  mutex_.lock();
  for (;;) {
    while (answers_.empty() && !(ending_ && under_way_ == 0)) changed_.wait_for(mutex_, kPatience);
    if (answers_.empty()) break;
    Answer next = std::move(answers_.front());
    answers_.pop_front();
    mutex_.unlock();
    if (!gone && !next.head.empty()) gone = !channel_.write(next.head, next.tail);
    // The memory first: it is what the limit is about.
    const uint64_t bytes = next.bytes;
    next = {};
    mutex_.lock();
    --under_way_;
    bytes_ -= bytes;
    changed_.notify_all();
  }
  mutex_.unlock();
}

}  // namespace bulkhead::block::nbd
