#include "block/format/image_disk.h"

#include <fmt/format.h>

namespace bulkhead::block {
namespace {

// Whose worker this thread is.
thread_local const ImageDisk* working_for = nullptr;

}  // namespace

ImageDisk::ImageDisk(std::unique_ptr<Image> image, unsigned thread_count, Storage storage)
    : image_(std::move(image)), storage_(storage) {
  for (unsigned i = 0; i < thread_count; ++i) threads_.emplace_back(fmt::format("image-{}", i), [this] { work(); });
}

ImageDisk::~ImageDisk() {
  {
    const LockGuard lock(mutex_);
    ending_ = true;
  }
  work_arrived_.notify_all();
  threads_.clear();
}

void ImageDisk::submit(Request request) {
  const Status status = check_against(geometry(), request);
  if (status != Status::kOk) return request.complete(status);
  if (threads_.empty()) {
    const Status done = perform(request);
    return request.complete(done);
  }
  if (storage_ == Storage::kPrompt &&
      on_the_spot_.carry_out(request, [this](const Request& taken) { return perform(taken); }))
    return;
  bool wakes = false;
  on_the_spot_.begun();
  {
    const LockGuard lock(mutex_);
    queue_.push_back(std::move(request));
    // A worker that submits, in a completion, takes the first of the queue itself when that returns.
    wakes = called_ < asleep_ && queue_.size() > called_ + (working_for == this ? 1 : 0);
    if (wakes) ++called_;
  }
  if (wakes) work_arrived_.notify_one();
}

void ImageDisk::work() {
  working_for = this;
  for (;;) {
    mutex_.lock();
    while (queue_.empty() && !ending_) {
      ++asleep_;
      work_arrived_.wait(mutex_);
      --asleep_;
      if (called_ != 0) --called_;
    }
    if (queue_.empty()) {
      mutex_.unlock();
      return;
    }
    Request request = std::move(queue_.front());
    queue_.pop_front();
    mutex_.unlock();
    const Status status = perform(request);
    request.complete(status);
    on_the_spot_.ended();
  }
}

Status ImageDisk::perform(const Request& request) {
  uint64_t offset = request.offset();
  switch (request.operation()) {
    case Operation::kFlush:
      return image_->flush();
    case Operation::kDiscard:
      return image_->discard(offset, request.size());
    case Operation::kWriteZeroes:
      return image_->write_zeroes(offset, request.size(), request.unmap());
    case Operation::kRead:
    case Operation::kWrite:
      break;
  }
  const bool reading = request.operation() == Operation::kRead;
  for (const MutableByteSpan& buffer : request.buffers()) {
    const Status status = reading ? image_->read(offset, buffer) : image_->write(offset, buffer);
    if (status != Status::kOk) return status;
    offset += buffer.size();
  }
  return Status::kOk;
}

}  // namespace bulkhead::block
