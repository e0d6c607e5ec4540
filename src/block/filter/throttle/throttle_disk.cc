#include "block/filter/throttle/throttle_disk.h"

namespace bulkhead::block {
namespace {

uint64_t burst_of(uint64_t rate, uint64_t burst) {
  return burst != 0 ? burst : rate / 10;
}

// Bytes that the storage has to move. Zeroes are only written down.
uint64_t bytes_of(const Request& request) {
  return request.operation() == Operation::kWriteZeroes ? 0 : request.size();
}

}  // namespace

ThrottleGroup::ThrottleGroup(const ThrottleLimits& limits, Clock& clock)
    : clock_(clock),
      requests_(limits.requests_a_second, burst_of(limits.requests_a_second, limits.request_burst)),
      bytes_(limits.bytes_a_second, burst_of(limits.bytes_a_second, limits.byte_burst)),
      next_(members_.end()),
      timer_(clock.make_timer("throttle", [this] { pass_on(); })) {}

ThrottleGroup::Place ThrottleGroup::join(Disk& below) {
  const LockGuard lock(mutex_);
  members_.emplace_back(below);
  return std::prev(members_.end());
}

void ThrottleGroup::leave(Place place) {
  std::list<Member> gone;
  {
    const LockGuard lock(mutex_);
    while (place->passing != 0) passed_.wait(mutex_);
    if (next_ == place) ++next_;
    gone.splice(gone.begin(), members_, place);
    waiting_count_ -= place->waiting.size();
  }
  for (Request& request : place->waiting) place->below.submit(std::move(request));
}

void ThrottleGroup::hurry(Place place) {
  std::deque<Request> waiting;
  {
    const LockGuard lock(mutex_);
    place->hurried = true;
    waiting.swap(place->waiting);
    waiting_count_ -= waiting.size();
  }
  for (Request& request : waiting) place->below.submit(std::move(request));
}

uint64_t ThrottleGroup::ready_at_ns(uint64_t now_ns, uint64_t size) const {
  return std::max(requests_.ready_at_ns(now_ns, 1), bytes_.ready_at_ns(now_ns, size));
}

void ThrottleGroup::take(uint64_t now_ns, uint64_t size) {
  requests_.take(now_ns, 1);
  bytes_.take(now_ns, size);
}

void ThrottleGroup::submit(Place place, Request request) {
  {
    const LockGuard lock(mutex_);
    const uint64_t now = clock_.now_ns(), ready_at = ready_at_ns(now, bytes_of(request));
    if (!place->hurried && (waiting_count_ != 0 || ready_at > now)) {
      // The timer is set for the first that waits, and by it for those behind.
      if (waiting_count_++ == 0) timer_->arm(ready_at);
      place->waiting.push_back(std::move(request));
      return;
    }
    take(now, bytes_of(request));
  }
  place->below.submit(std::move(request));
}

void ThrottleGroup::pass_on() {
  mutex_.lock();
  while (waiting_count_ != 0) {
    while (next_ == members_.end() || next_->waiting.empty()) {
      next_ = next_ == members_.end() ? members_.begin() : std::next(next_);
    }
    const Place place = next_;
    const uint64_t now = clock_.now_ns(), size = bytes_of(place->waiting.front());
    if (const uint64_t ready_at = ready_at_ns(now, size); ready_at > now) {
      timer_->arm(ready_at);
      break;
    }
    take(now, size);
    Request request = std::move(place->waiting.front());
    place->waiting.pop_front();
    --waiting_count_;
    ++next_;
    ++place->passing;
    mutex_.unlock();
    place->below.submit(std::move(request));
    mutex_.lock();
    --place->passing;
    passed_.notify_all();
  }
  mutex_.unlock();
}

ThrottleDisk::ThrottleDisk(std::unique_ptr<Disk> below, std::shared_ptr<ThrottleGroup> group)
    : group_(std::move(group)), below_(std::move(below)), place_(group_->join(*below_)) {}

ThrottleDisk::~ThrottleDisk() {
  group_->leave(place_);
}

void ThrottleDisk::hurry() {
  group_->hurry(place_);
  block::hurry(*below_);
}

void ThrottleDisk::submit(Request request) {
  const Operation operation = request.operation();
  if (operation == Operation::kFlush || operation == Operation::kDiscard) return below_->submit(std::move(request));
  group_->submit(place_, std::move(request));
}

}  // namespace bulkhead::block
