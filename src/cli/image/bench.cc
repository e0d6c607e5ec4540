#include "cli/image/bench.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <vector>

#include "cli/progress_line.h"
#include "support/os/mutex.h"

namespace bulkhead::cli {
namespace {

// As many lanes as requests may be under way; each begins its next one when its last is answered.
class Bench {
 public:
  Bench(block::Disk& disk, const BenchPlan& plan)
      : disk_(disk),
        plan_(plan),
        lanes_(static_cast<unsigned>(std::min(plan.depth, plan.count))),
        memory_(static_cast<uint8_t*>(std::aligned_alloc(4096, align_up(plan.size, 4096) * lanes_)), &std::free) {}

  Result<double> run(bool quiet) {
    if (!memory_) return fail("bench: no memory for {} buffers of {} bytes", lanes_, plan_.size);
    std::fill_n(memory_.get(), align_up(plan_.size, 4096) * lanes_, uint8_t{0xA5});
    {
      const LockGuard lock(mutex_);
      running_ = lanes_;
    }
    const auto start = std::chrono::steady_clock::now();
    for (unsigned lane = 0; lane < lanes_; ++lane) next(lane);
    ProgressLine progress(plan_.count * plan_.size, quiet);
    const LockGuard lock(mutex_);
    while (running_ != 0) {
      (void)ended_.wait_for(mutex_, std::chrono::milliseconds(200));
      progress.set(std::min(begun_.load(std::memory_order_relaxed), plan_.count) * plan_.size);
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (status_ != block::Status::kOk) {
      return fail("{} of {} bytes at byte {}: {}", to_string(plan_.operation), plan_.size, failed_at_,
                  to_string(status_));
    }
    return seconds;
  }

 private:
  void next(unsigned lane) {
    const uint64_t number = begun_.fetch_add(1, std::memory_order_relaxed);
    if (number >= plan_.count || failed_.load(std::memory_order_relaxed)) {
      const LockGuard lock(mutex_);
      if (--running_ == 0) ended_.notify_all();
      return;
    }
    const uint64_t places = (disk_.geometry().size - plan_.size) / plan_.size + 1;
    const uint64_t offset = number * (plan_.step / plan_.size) % places * plan_.size;
    std::vector<MutableByteSpan> buffers{{memory_.get() + lane * align_up(plan_.size, 4096), plan_.size}};
    const auto answered = [this, lane, offset](block::Status status) {
      if (status != block::Status::kOk) note(status, offset);
      next(lane);
    };
    disk_.submit(plan_.operation == block::Operation::kRead
                     ? block::Request::read(offset, std::move(buffers), answered)
                     : block::Request::write(offset, std::move(buffers), answered));
  }

  void note(block::Status status, uint64_t offset) {
    failed_.store(true);
    const LockGuard lock(mutex_);
    if (status_ != block::Status::kOk) return;
    status_ = status;
    failed_at_ = offset;
  }

  block::Disk& disk_;
  const BenchPlan plan_;
  const unsigned lanes_;
  const std::unique_ptr<uint8_t, void (*)(void*)> memory_;
  std::atomic<uint64_t> begun_{0};
  std::atomic<bool> failed_{false};
  Mutex mutex_;
  ConditionVariable ended_;
  unsigned running_ GUARDED_BY(mutex_) = 0;
  block::Status status_ GUARDED_BY(mutex_) = block::Status::kOk;
  uint64_t failed_at_ GUARDED_BY(mutex_) = 0;
};

}  // namespace

Result<double> bench_disk(block::Disk& disk, const BenchPlan& plan, bool quiet) {
  const uint32_t sector = disk.geometry().sector_size;
  if (plan.size == 0 || plan.size % sector != 0 || plan.size > disk.geometry().size) {
    return fail("bench: requests of {} bytes; allowed: whole sectors of {} up to {}", plan.size, sector,
                disk.geometry().size);
  }
  if (plan.step % plan.size != 0) return fail("bench: a step of {} bytes is no multiple of {}", plan.step, plan.size);
  return Bench(disk, plan).run(quiet);
}

}  // namespace bulkhead::cli
