// Limits how many requests and bytes a second go to the disks below: of one disk, or of several that share a group.
// What comes too early waits in order, disks of a group take turns. Flushes and discards pass: they move no data, and a
// flush that waited would hold up what is safe already. It never drops or reorders a disk's waiting requests.
#pragma once

#include <deque>
#include <list>
#include <memory>

#include "block/filter/holding_disk.h"
#include "support/os/mutex.h"
#include "support/time/clock.h"
#include "support/time/token_bucket.h"

namespace bulkhead::block {

// 0: no limit; for a burst: a tenth of a second's worth.
struct ThrottleLimits {
  uint64_t requests_a_second = 0, request_burst = 0;
  uint64_t bytes_a_second = 0, byte_burst = 0;
  [[nodiscard]] bool any() const { return requests_a_second != 0 || bytes_a_second != 0; }
};

class ThrottleGroup {
 public:
  // The clock goes on while requests wait, whatever the machine does, or the machine could not come to rest.
  ThrottleGroup(const ThrottleLimits& limits, Clock& clock);

 private:
  friend class ThrottleDisk;
  struct Member {
    explicit Member(Disk& disk) : below(disk) {}
    Disk& below;
    std::deque<Request> waiting;  // at most what the device in front has under way at a time
    unsigned passing = 0;         // on the timer's thread, between waiting and below
    bool hurried = false;         // no limit counts for it any more
  };
  using Place = std::list<Member>::iterator;

  Place join(Disk& below);
  // What waits goes on at once.
  void leave(Place place);
  void hurry(Place place);
  void submit(Place place, Request request);
  void pass_on();
  [[nodiscard]] uint64_t ready_at_ns(uint64_t now_ns, uint64_t size) const REQUIRES(mutex_);
  void take(uint64_t now_ns, uint64_t size) REQUIRES(mutex_);

  Clock& clock_;
  Mutex mutex_;
  ConditionVariable passed_;
  TokenBucket requests_ GUARDED_BY(mutex_), bytes_ GUARDED_BY(mutex_);
  std::list<Member> members_ GUARDED_BY(mutex_);
  Place next_ GUARDED_BY(mutex_);                // whose turn it is
  size_t waiting_count_ GUARDED_BY(mutex_) = 0;  // of all members
  // Last: its callback ends before the rest is gone.
  std::unique_ptr<Timer> timer_;
};

class ThrottleDisk final : public HoldingDisk {
 public:
  ThrottleDisk(std::unique_ptr<Disk> below, std::shared_ptr<ThrottleGroup> group);
  ~ThrottleDisk() override;
  [[nodiscard]] const Geometry& geometry() const override { return below_->geometry(); }
  void submit(Request request) override;
  void hurry() override;

 private:
  const std::shared_ptr<ThrottleGroup> group_;
  // Answers what is under way before it is gone.
  std::unique_ptr<Disk> below_;
  const ThrottleGroup::Place place_;
};

}  // namespace bulkhead::block
