// Which blocks of a disk have been written since somebody asked: one bit for each. From any thread.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <vector>

#include "support/bytes.h"
#include "support/os/mutex.h"

namespace bulkhead::block {

class ChangedBlocks {
 public:
  struct Run {
    uint64_t offset = 0, size = 0;
  };
  // Larger disks have larger blocks, so that this never takes more.
  static constexpr uint64_t kLeastBlock = 65536, kMaximumBytes = uint64_t{4} << 20;

  explicit ChangedBlocks(uint64_t disk_size) : disk_size_(disk_size) {
    while (disk_size / block_size_ >= kMaximumBytes * 8) block_size_ *= 2;
    words_.resize(disk_size / block_size_ / 64 + 1);
  }

  // To a larger disk, of which what is new has not changed. Blocks may become larger; no job looks at them meanwhile.
  void grow(uint64_t disk_size) {
    const LockGuard lock(mutex_);
    std::vector<Run> runs;
    for (auto run = find_locked(0, UINT64_MAX); run; run = find_locked(run->offset + run->size, UINT64_MAX)) {
      runs.push_back(*run);
    }
    disk_size_ = disk_size;
    while (disk_size / block_size_ >= kMaximumBytes * 8) block_size_ *= 2;
    words_.assign(disk_size / block_size_ / 64 + 1, 0);
    count_ = 0;
    for (const Run& run : runs) add_locked(run.offset, run.size);
  }

  void add(uint64_t offset, uint64_t size) {
    if (size == 0) return;
    const LockGuard lock(mutex_);
    add_locked(offset, size);
  }

  void add_all() { add(0, disk_size_); }
  // What has changed in another one of the same disk.
  void add_those_of(const ChangedBlocks& other) {
    for (uint64_t at = 0;;) {
      const auto run = other.find(at, UINT64_MAX);
      if (!run) return;
      add(run->offset, run->size);
      at = run->offset + run->size;
    }
  }
  [[nodiscard]] bool any(uint64_t offset, uint64_t size) const {
    const auto run = find(align_down(offset, block_size_), block_size_);
    return run && size != 0 && run->offset < offset + size;
  }
  [[nodiscard]] uint64_t block_size() const { return block_size_; }

  // The first run at or behind an offset, at most limit bytes of it (at least a block).
  [[nodiscard]] std::optional<Run> find(uint64_t from, uint64_t limit) const {
    const LockGuard lock(mutex_);
    return find_locked(from, limit);
  }
  // The same, and it counts as unchanged from now.
  std::optional<Run> take(uint64_t from, uint64_t limit) {
    const LockGuard lock(mutex_);
    const auto run = find_locked(from, limit);
    if (run) remove_locked(run->offset, run->size);
    return run;
  }
  // Of whole blocks.
  void remove(uint64_t offset, uint64_t size) {
    const LockGuard lock(mutex_);
    remove_locked(offset, size);
  }

  // About as many, because the disk may end within its last block.
  [[nodiscard]] uint64_t bytes() const {
    const LockGuard lock(mutex_);
    return count_ * block_size_;
  }

 private:
  void add_locked(uint64_t offset, uint64_t size) REQUIRES(mutex_) {
    for (uint64_t block = offset / block_size_; block <= (offset + size - 1) / block_size_; ++block) {
      uint64_t& word = words_[block / 64];
      const uint64_t bit = uint64_t{1} << block % 64;
      if ((word & bit) == 0) ++count_;
      word |= bit;
    }
  }
  [[nodiscard]] bool has(uint64_t block) const REQUIRES(mutex_) {
    return block / 64 < words_.size() && (words_[block / 64] >> block % 64 & 1) != 0;
  }
  [[nodiscard]] std::optional<Run> find_locked(uint64_t from, uint64_t limit) const REQUIRES(mutex_) {
    if (count_ == 0) return std::nullopt;
    uint64_t block = align_up(from, block_size_) / block_size_;
    while (block / 64 < words_.size()) {
      const uint64_t rest = words_[block / 64] >> block % 64;
      if (rest != 0) {
        block += static_cast<uint64_t>(std::countr_zero(rest));
        break;
      }
      block = (block / 64 + 1) * 64;
    }
    const uint64_t begin = block;
    while (has(block) && (block == begin || block - begin < limit / block_size_)) ++block;
    if (begin == block) return std::nullopt;
    return Run{begin * block_size_, std::min(block * block_size_, disk_size_) - begin * block_size_};
  }
  void remove_locked(uint64_t offset, uint64_t size) REQUIRES(mutex_) {
    for (uint64_t block = offset / block_size_; block * block_size_ < offset + size; ++block) {
      if (!has(block)) continue;
      words_[block / 64] &= ~(uint64_t{1} << block % 64);
      --count_;
    }
  }

  uint64_t disk_size_;
  uint64_t block_size_ = kLeastBlock;
  mutable Mutex mutex_;
  std::vector<uint64_t> words_ GUARDED_BY(mutex_);
  uint64_t count_ GUARDED_BY(mutex_) = 0;
};

}  // namespace bulkhead::block
