#include "cli/image/copy.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>

#include "support/os/mutex.h"
#include "support/os/thread.h"

namespace bulkhead::cli {
namespace {

// A thread takes a chunk at a time.
constexpr uint64_t kChunk = uint64_t{2} << 20, kPiece = 65536;

bool is_zero(ByteSpan bytes) {
  return bytes.empty() || (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

class Copy {
 public:
  Copy(block::Image& from, block::Image& to, CopyMode mode)
      : from_(from),
        to_(to),
        ascending_(to.fill_order() == block::FillOrder::kAscending),
        compress_(mode == CopyMode::kCompressed || ascending_),
        // Two chunks must never meet in one unit of compression.
        unit_(compress_ ? std::max(to.compression_unit(), uint64_t{512}) : kPiece),
        size_(from.geometry().size),
        whole_(!to.starts_as_zeroes()) {}

  Result<> run(bool show_progress) {
    const unsigned count = ascending_ ? 1 : thread_count();
    {
      const LockGuard lock(mutex_);
      running_ = count;
    }
    {
      std::vector<Thread> threads;
      threads.reserve(count);
      for (unsigned i = 0; i < count; ++i) threads.emplace_back(fmt::format("copy-{}", i), [this] { work(); });
      report(show_progress);
    }
    const LockGuard lock(mutex_);
    if (error_) return std::unexpected(std::move(*error_));
    return {};
  }

 private:
  // Compression takes a processor each; what waits for the disk is more.
  [[nodiscard]] unsigned thread_count() const {
    const unsigned processors = std::clamp(std::thread::hardware_concurrency(), 1u, 16u);
    return compress_ ? processors : std::max(processors, 4u);
  }

  void work() {
    // Aligned, so that it may go past the host's page cache.
    const std::unique_ptr<uint8_t, void (*)(void*)> memory(static_cast<uint8_t*>(std::aligned_alloc(4096, kChunk)),
                                                           &std::free);
    const MutableByteSpan buffer(memory.get(), memory ? kChunk : 0);
    for (;;) {
      const uint64_t offset = next_.fetch_add(kChunk);
      if (offset >= size_ || failed_.load()) break;
      if (auto result = chunk(offset, std::min(kChunk, size_ - offset), buffer); !result) {
        const LockGuard lock(mutex_);
        if (!error_) error_ = std::move(result).error();
        failed_.store(true);
      }
      done_.fetch_add(std::min(kChunk, size_ - offset));
    }
    const LockGuard lock(mutex_);
    --running_;
    ended_.notify_all();
  }

  Result<> chunk(uint64_t offset, uint64_t size, MutableByteSpan buffer) {
    if (buffer.size() < size) return fail("no memory for {} bytes", kChunk);
    // A unit that is compressed must come whole, whatever parts of it are holes.
    if (compress_) return data(offset, buffer.first(size));
    const bool chained = !from_.info().backing_name.empty();
    while (size != 0) {
      const block::Extent extent = TRY(from_.map(offset));
      const uint64_t part = std::min(size, extent.size);
      if (whole_ || extent.kind == block::ExtentKind::kData || (extent.kind == block::ExtentKind::kAbsent && chained)) {
        TRY(data(offset, buffer.first(part)));
      }
      offset += part;
      size -= part;
    }
    return {};
  }

  Result<> data(uint64_t offset, MutableByteSpan bytes) {
    if (const auto status = from_.read(offset, bytes); status != block::Status::kOk) {
      return fail("read {} bytes at {}: {}", bytes.size(), offset, to_string(status));
    }
    // Runs of units that are not all zero go out in one write.
    const auto part_at = [&](size_t at) { return std::min<size_t>(bytes.size() - at, unit_ - (offset + at) % unit_); };
    for (size_t at = 0; at < bytes.size();) {
      size_t end = at;
      while (end < bytes.size() && (whole_ || !is_zero(bytes.subspan(end, part_at(end))))) end += part_at(end);
      if (end != at) {
        const ByteSpan run = bytes.subspan(at, end - at);
        const auto status = compress_ ? to_.write_compressed(offset + at, run) : to_.write(offset + at, run);
        if (status != block::Status::kOk) {
          return fail("write {} bytes at {}: {}", run.size(), offset + at, to_string(status));
        }
      }
      at = end == bytes.size() ? end : end + part_at(end);
    }
    return {};
  }

  void report(bool show) {
    using std::chrono::steady_clock;
    const auto start = steady_clock::now();
    const LockGuard lock(mutex_);
    while (running_ != 0) {
      ended_.wait_for(mutex_, std::chrono::milliseconds(200));
      if (!show) continue;
      const double seconds = std::chrono::duration<double>(steady_clock::now() - start).count();
      const auto done = static_cast<double>(std::min(done_.load(), size_));
      const double rate = done / std::max(seconds, 0.001), all = static_cast<double>(std::max<uint64_t>(size_, 1));
      fmt::print(stderr, "\r{:5.1f} %  {:7.1f} MiB/s  {:5.0f} s left ", done * 100 / all, rate / 1048576,
                 rate > 0 ? (all - done) / rate : 0);
    }
    if (show) std::fputc('\n', stderr);
  }

  block::Image& from_;
  block::Image& to_;
  const bool ascending_, compress_;
  const uint64_t unit_;
  const uint64_t size_;
  const bool whole_;  // zeroes too
  std::atomic<uint64_t> next_{0}, done_{0};
  std::atomic<bool> failed_{false};
  Mutex mutex_;
  ConditionVariable ended_;
  unsigned running_ GUARDED_BY(mutex_) = 0;
  std::optional<Error> error_ GUARDED_BY(mutex_);
};

}  // namespace

Result<> copy_image(block::Image& from, block::Image& to, CopyMode mode, bool show_progress) {
  return Copy(from, to, mode).run(show_progress);
}

block::Progress show_thick_progress(bool show) {
  if (!show) return nullptr;
  using std::chrono::steady_clock;
  return [told = steady_clock::time_point()](uint64_t done, uint64_t all) mutable {
    const auto now = steady_clock::now();
    if (done != all && now - told < std::chrono::milliseconds(200)) return;
    told = now;
    fmt::print(stderr, "\rtaking storage {:5.1f} % ", static_cast<double>(done) * 100 / static_cast<double>(all));
    if (done == all) std::fputc('\n', stderr);
  };
}

}  // namespace bulkhead::cli
