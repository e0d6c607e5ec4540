#include "cli/image/chunks.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "cli/progress_line.h"
#include "support/os/mutex.h"
#include "support/os/thread.h"

namespace bulkhead::cli {
namespace {

using Work = std::function<Result<bool>(uint64_t offset, uint64_t size, MutableByteSpan memory)>;

class Chunks {
 public:
  Chunks(uint64_t disk_size, uint64_t memory_size, const Work& work)
      : size_(disk_size), memory_size_(align_up(memory_size, 4096)), work_(work) {}

  Result<> run(unsigned thread_count, bool quiet) {
    {
      const LockGuard lock(mutex_);
      running_ = thread_count;
    }
    {
      std::vector<Thread> threads;
      threads.reserve(thread_count);
      for (unsigned i = 0; i < thread_count; ++i) threads.emplace_back(fmt::format("chunk-{}", i), [this] { work(); });
      ProgressLine progress(size_, quiet);
      const LockGuard lock(mutex_);
      while (running_ != 0) {
        (void)ended_.wait_for(mutex_, std::chrono::milliseconds(200));
        progress.set(std::min(done_.load(), size_));
      }
    }
    const LockGuard lock(mutex_);
    if (error_) return std::unexpected(std::move(*error_));
    return {};
  }

 private:
  void work() {
    const std::unique_ptr<uint8_t, void (*)(void*)> memory(
        static_cast<uint8_t*>(std::aligned_alloc(4096, memory_size_)), &std::free);
    for (;;) {
      const uint64_t offset = next_.fetch_add(kChunk);
      if (offset >= size_ || stopped_.load()) break;
      const uint64_t size = std::min(kChunk, size_ - offset);
      Result<bool> goes_on = fail("no memory for {} bytes", memory_size_);
      if (memory) goes_on = work_(offset, size, MutableByteSpan(memory.get(), memory_size_));
      if (!goes_on || !*goes_on) stopped_.store(true);
      if (!goes_on) {
        const LockGuard lock(mutex_);
        if (!error_) error_ = std::move(goes_on).error();
      }
      done_.fetch_add(size);
    }
    const LockGuard lock(mutex_);
    --running_;
    ended_.notify_all();
  }

  const uint64_t size_, memory_size_;
  const Work& work_;
  std::atomic<uint64_t> next_{0}, done_{0};
  std::atomic<bool> stopped_{false};
  Mutex mutex_;
  ConditionVariable ended_;
  unsigned running_ GUARDED_BY(mutex_) = 0;
  std::optional<Error> error_ GUARDED_BY(mutex_);
};

}  // namespace

Result<> each_chunk(uint64_t disk_size, unsigned thread_count, uint64_t memory_size, bool quiet, const Work& work) {
  return Chunks(disk_size, memory_size, work).run(thread_count, quiet);
}

unsigned thread_count_for_processors() {
  return std::clamp(std::thread::hardware_concurrency(), 1u, 16u);
}

unsigned thread_count_for_disks() {
  return std::max(thread_count_for_processors(), 4u);
}

}  // namespace bulkhead::cli
