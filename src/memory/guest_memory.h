// Guest RAM and its per-page flags. RAM is one memfd, mapped at host_base() + guest-physical address: from 0 up to the
// hole below 4 GiB, and from 4 GiB on. Everything else of the window is inaccessible, with guards on both sides.
//
// This is all of the guest that a device can reach: RAM, by type, never another device's registers (DEVICE_SAFETY rule
// 10). Contents are hostile and may change between two reads: copy once, then check (rule 2).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "memory/guest_address.h"
#include "support/bytes.h"
#include "support/os/fd.h"
#include "support/os/huge_page.h"
#include "support/result.h"

namespace bulkhead::memory {

// Flags of one page; any thread may read or set them.
enum PageFlag : uint8_t {
  kPageDirty = 1,  // written since the dirty log last took it
  kPageCode = 2,   // an engine holds translations of bytes in it
};

// Told about writes to pages that hold translated code, by whoever wrote: a device's DMA or another vCPU.
class CodeWatcher {
 public:
  virtual ~CodeWatcher() = default;
  // Called after the write, on the writer's thread.
  virtual void on_code_written(GuestAddress address, uint64_t size) = 0;
};

class GuestMemory {
 public:
  static constexpr uint64_t kMinimumSize = 16ull << 20;
  // RAM below 4 GiB ends here at the latest; device registers live between it and 4 GiB.
  static constexpr uint64_t kHoleStart = 0xC000'0000;
  static constexpr uint64_t kHoleEnd = 1ull << 32;

  // size in bytes: a multiple of the page size, at least kMinimumSize.
  static Result<std::unique_ptr<GuestMemory>> create(uint64_t size);

  [[nodiscard]] uint64_t size() const { return low_size_ + high_size_; }
  // RAM is [0, low_size()) and [kHoleEnd, kHoleEnd + high_size()).
  [[nodiscard]] uint64_t low_size() const { return low_size_; }
  [[nodiscard]] uint64_t high_size() const { return high_size_; }
  // One past the highest RAM byte.
  [[nodiscard]] uint64_t end() const { return high_size_ != 0 ? kHoleEnd + high_size_ : low_size_; }
  [[nodiscard]] bool is_ram(GuestAddress address, uint64_t size) const {
    return range_fits(address.value, size, low_size_) ||
           (address.value >= kHoleEnd && range_fits(address.value - kHoleEnd, size, high_size_));
  }

  // Copies; false and nothing done when a byte of the range is not RAM. Writes set the dirty flag and tell the code
  // watcher.
  [[nodiscard]] bool read(GuestAddress address, MutableByteSpan out) const;
  [[nodiscard]] bool write(GuestAddress address, ByteSpan in);
  template <typename T>
  [[nodiscard]] std::optional<T> read_object(GuestAddress address) const {
    T object;
    if (!read(address, as_mutable_bytes(object))) return std::nullopt;
    return object;
  }
  template <typename T>
  [[nodiscard]] bool write_object(GuestAddress address, const T& object) {
    return write(address, as_bytes(object));
  }

  // Host bytes of a RAM range for bulk data (never for control structures) while one request is under way. After the
  // host has written to it, call mark_written(). nullptr when a byte is not RAM.
  [[nodiscard]] uint8_t* data(GuestAddress address, uint64_t size) {
    return is_ram(address, size) ? host_base_ + address.value : nullptr;
  }
  void mark_written(GuestAddress address, uint64_t size);

  // For the engines: the host address of guest-physical 0, and the flag byte of each page, indexed by address / 4096.
  [[nodiscard]] uint8_t* host_base() const { return host_base_; }
  [[nodiscard]] std::atomic<uint8_t>& page_flags(uint64_t page) const { return flags_[page]; }
  [[nodiscard]] int fd() const { return memfd_.get(); }
  // Offset in the memfd of a RAM address.
  [[nodiscard]] uint64_t fd_offset(GuestAddress address) const {
    return address.value < kHoleEnd ? address.value : address.value - kHoleEnd + low_size_;
  }

  // By an engine, before its guest reaches the page of RAM through host_base(): the first time for each 2 MiB, the host
  // is asked for a huge page. Pages taken one by one cost three times as much in time, and more misses later.
  void reach(uint64_t physical) {
    if (!reached_[physical / kHugePageSize].load(std::memory_order_relaxed)) [[unlikely]]
      reach_first(physical);
  }

  // At most one watcher; set before any vCPU runs.
  void set_code_watcher(CodeWatcher* watcher) { watcher_ = watcher; }

  // Takes and clears the dirty flags; calls visit(page_number) for each dirty page.
  template <typename Visit>
  void take_dirty(Visit&& visit) {
    const auto scan = [&](uint64_t first, uint64_t count) {
      for (uint64_t page = first; page < first + count; ++page) {
        if ((flags_[page].load(std::memory_order_relaxed) & kPageDirty) == 0) continue;
        flags_[page].fetch_and(static_cast<uint8_t>(~kPageDirty));
        visit(page);
      }
    };
    scan(0, low_size_ >> kPageShift);
    scan(kHoleEnd >> kPageShift, high_size_ >> kPageShift);
  }

 private:
  GuestMemory() = default;
  void reach_first(uint64_t physical);

  Fd memfd_;
  Mapping window_;  // guard, RAM with its hole, guard
  Mapping flag_bytes_;
  uint8_t* host_base_ = nullptr;
  std::atomic<uint8_t>* flags_ = nullptr;
  std::vector<std::atomic<bool>> reached_;  // by number of the huge page
  uint64_t low_size_ = 0;
  uint64_t high_size_ = 0;
  CodeWatcher* watcher_ = nullptr;
};

}  // namespace bulkhead::memory
