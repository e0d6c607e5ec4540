#include "block/job/live_disk.h"

#include <algorithm>

namespace bulkhead::block {
namespace {

bool changes_data(Operation operation) {
  return operation != Operation::kRead && operation != Operation::kFlush;
}

}  // namespace

LiveDisk::LiveDisk(Storage storage)
    : geometries_{storage.opened.disk->geometry()}, geometry_(&geometries_.front()), storage_(std::move(storage)) {}

bool LiveDisk::touches(const UnderWay& what, uint64_t offset, uint64_t size) {
  // A flush has no place: only a fence around everything holds it.
  if (what.flush) return size == UINT64_MAX;
  return what.offset < (size == UINT64_MAX ? size : offset + size) && offset < what.offset + what.size;
}

void LiveDisk::submit(Request request) {
  if (const Status status = check_against(geometry(), request); status != Status::kOk) return request.complete(status);
  admit(std::move(request));
}

void LiveDisk::admit(Request request) {
  const UnderWay what{request.offset(), request.size(), request.operation() == Operation::kFlush};
  Place place;
  bool left_out = false;
  {
    const LockGuard lock(mutex_);
    if (fenced_ && touches(what, fence_offset_, fence_size_)) {
      held_.push_back(std::move(request));
      return;
    }
    if (protected_ != nullptr && changes_data(request.operation()) && protected_->any(what.offset, what.size)) {
      left_out = request.operation() == Operation::kDiscard;
      if (!left_out) {
        held_writes_.push_back(std::move(request));
        write_held_.notify_all();
        return;
      }
    }
    if (!left_out) place = under_way_.insert(under_way_.end(), what);
  }
  if (left_out) return request.complete(Status::kOk);
  pass(std::move(request), place);
}

// The storage stays what it is as long as something is under way.
void LiveDisk::pass(Request request, Place place) {
  request.observe([this, place, changes = changes_data(request.operation())](Status) { answered(place, changes); });
  storage_.opened.disk->submit(std::move(request));
  const LockGuard lock(mutex_);
  end_part(place);
}

// A write that failed may have written some of it all the same.
void LiveDisk::answered(Place place, bool changes) {
  const LockGuard lock(mutex_);
  for (ChangedBlocks* const watcher : watchers_) {
    if (changes) watcher->add(place->offset, place->size);
  }
  end_part(place);
}

void LiveDisk::end_part(Place place) {
  if (--place->parts != 0) return;
  under_way_.erase(place);
  if (fenced_) ended_.notify_all();
}

LiveDisk::Fence LiveDisk::fence(uint64_t offset, uint64_t size) {
  const LockGuard lock(mutex_);
  CHECK(!fenced_, "two fences in one disk");
  fenced_ = true;
  fence_offset_ = offset;
  fence_size_ = size;
  while (std::ranges::any_of(under_way_, [&](const UnderWay& what) { return touches(what, offset, size); })) {
    ended_.wait(mutex_);
  }
  return Fence(*this);
}

void LiveDisk::lift() {
  std::vector<Request> released;
  {
    const LockGuard lock(mutex_);
    fenced_ = false;
    released.swap(held_);
  }
  for (Request& request : released) admit(std::move(request));
}

void LiveDisk::pass_held(uint64_t& credit_bytes, uint64_t block_size) {
  std::vector<std::pair<Request, Place>> passed;
  {
    const LockGuard lock(mutex_);
    CHECK(fenced_ && fence_size_ == UINT64_MAX, "requests passed without a fence");
    std::vector<Request> left;
    bool may_write = true;
    for (Request& request : held_) {
      const UnderWay what{request.offset(), request.size(), request.operation() == Operation::kFlush};
      if (changes_data(request.operation())) {
        const uint64_t cost =
            align_up(request.offset() + request.size(), block_size) - align_down(request.offset(), block_size);
        may_write = may_write && cost <= credit_bytes;
        if (may_write) credit_bytes -= cost;
        if (!may_write) {
          left.push_back(std::move(request));
          continue;
        }
      }
      passed.emplace_back(std::move(request), under_way_.insert(under_way_.end(), what));
    }
    held_ = std::move(left);
  }
  for (auto& [request, place] : passed) pass(std::move(request), place);
  const LockGuard lock(mutex_);
  while (!under_way_.empty()) ended_.wait(mutex_);
}

Storage LiveDisk::exchange(Storage storage) {
  const LockGuard lock(mutex_);
  CHECK(fenced_ && fence_size_ == UINT64_MAX, "storage exchanged under requests");
  std::swap(storage_, storage);
  return storage;
}

Result<> LiveDisk::grow(uint64_t new_size) {
  {
    const LockGuard lock(mutex_);
    CHECK(fenced_ && fence_size_ == UINT64_MAX, "a disk grown under requests");
  }
  TRY(grow_disk(storage_.opened, new_size));
  const LockGuard lock(mutex_);
  for (ChangedBlocks* const watcher : watchers_) watcher->grow(new_size);
  Geometry grown = geometry();
  grown.size = new_size;
  geometry_.store(&geometries_.emplace_back(grown), std::memory_order_release);
  return {};
}

void LiveDisk::watch(ChangedBlocks& changes) {
  const LockGuard lock(mutex_);
  watchers_.push_back(&changes);
}

void LiveDisk::unwatch(ChangedBlocks& changes) {
  const LockGuard lock(mutex_);
  std::erase(watchers_, &changes);
}

void LiveDisk::protect(ChangedBlocks* blocks) {
  {
    const LockGuard lock(mutex_);
    CHECK(blocks == nullptr || (fenced_ && fence_size_ == UINT64_MAX), "blocks protected under requests");
    protected_ = blocks;
  }
  release_unprotected();
}

std::optional<ChangedBlocks::Run> LiveDisk::next_protected(std::chrono::milliseconds patience) {
  const LockGuard lock(mutex_);
  if (held_writes_.empty()) (void)write_held_.wait_for(mutex_, patience);
  if (held_writes_.empty()) return std::nullopt;
  return ChangedBlocks::Run{held_writes_.front().offset(), held_writes_.front().size()};
}

void LiveDisk::release_unprotected() {
  std::vector<Request> released;
  {
    const LockGuard lock(mutex_);
    released.swap(held_writes_);
  }
  // Those that still have to wait are held again.
  for (Request& request : released) admit(std::move(request));
}

std::pair<std::string, std::string> LiveDisk::path_and_format() {
  const LockGuard lock(mutex_);
  return {storage_.path, storage_.format};
}

}  // namespace bulkhead::block
