#include "memory/guest_memory.h"

#include <algorithm>
#include <cerrno>

#include <sys/mman.h>
#include <unistd.h>

namespace bulkhead::memory {
namespace {

// An access of the engine that went astray by a 32-bit displacement still ends in a guard.
constexpr uint64_t kGuardSize = 4ull << 30;

}  // namespace

Result<std::unique_ptr<GuestMemory>> GuestMemory::create(uint64_t size) {
  if (size < kMinimumSize) return fail("memory: {} bytes is below the least of {} bytes", size, kMinimumSize);
  if (size % kPageSize != 0) return fail("memory: {} bytes is not a multiple of {}", size, kPageSize);
  if (size > (1ull << 40)) return fail("memory: {} bytes is above the most of {} bytes", size, 1ull << 40);

  auto memory = std::unique_ptr<GuestMemory>(new GuestMemory);
  memory->low_size_ = std::min(size, kHoleStart);
  memory->high_size_ = size - memory->low_size_;

  memory->memfd_ = Fd(::memfd_create("guest-ram", MFD_CLOEXEC));
  if (!memory->memfd_.valid()) return fail_errno(errno, "memory: create a memfd");
  if (::ftruncate(memory->memfd_.get(), static_cast<off_t>(size)) != 0) {
    return fail_errno(errno, "memory: reserve {} bytes", size);
  }
  const uint64_t window_size = kGuardSize + memory->end() + kGuardSize;
  memory->window_ = TRY_IN("memory", Mapping::reserve(window_size + kHugePageSize));
  const auto base = reinterpret_cast<uintptr_t>(memory->window_.data()) + kGuardSize;
  memory->host_base_ = reinterpret_cast<uint8_t*>(align_up(base, kHugePageSize));

  const auto map = [&](uint64_t address, uint64_t offset, uint64_t bytes) -> Result<> {
    if (bytes == 0) return {};
    void* mapped = ::mmap(memory->host_base_ + address, bytes, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_FIXED | MAP_NORESERVE, memory->memfd_.get(), static_cast<off_t>(offset));
    if (mapped == MAP_FAILED) return fail_errno(errno, "memory: map {} bytes", bytes);
    // Only advice: a host without huge pages for memfds answers EINVAL, and RAM works all the same.
    ::madvise(mapped, bytes, MADV_HUGEPAGE);
    return {};
  };
  TRY(map(0, 0, memory->low_size_));
  TRY(map(kHoleEnd, memory->low_size_, memory->high_size_));

  memory->flag_bytes_ = TRY_IN("memory", Mapping::anonymous((memory->end() >> kPageShift) + 1));
  memory->flags_ = reinterpret_cast<std::atomic<uint8_t>*>(memory->flag_bytes_.data());
  memory->reached_ = std::vector<std::atomic<bool>>((memory->end() + kHugePageSize - 1) / kHugePageSize);
  return memory;
}

void GuestMemory::reach_first(uint64_t physical) {
  const uint64_t region = physical / kHugePageSize;
  if (reached_[region].exchange(true)) return;
  if (is_ram({region * kHugePageSize}, kHugePageSize)) make_huge_page(host_base_ + region * kHugePageSize);
}

bool GuestMemory::read(GuestAddress address, MutableByteSpan out) const {
  if (!is_ram(address, out.size())) return false;
  if (out.empty()) return true;  // its pointer may be null
  std::memcpy(out.data(), host_base_ + address.value, out.size());
  return true;
}

bool GuestMemory::write(GuestAddress address, ByteSpan in) {
  if (!is_ram(address, in.size())) return false;
  if (in.empty()) return true;
  std::memcpy(host_base_ + address.value, in.data(), in.size());
  mark_written(address, in.size());
  return true;
}

void GuestMemory::mark_written(GuestAddress address, uint64_t size) {
  if (size == 0) return;
  bool holds_code = false;
  const uint64_t last = (address.value + size - 1) >> kPageShift;
  for (uint64_t page = address.value >> kPageShift; page <= last; ++page) {
    const uint8_t before = flags_[page].fetch_or(kPageDirty);
    holds_code |= (before & kPageCode) != 0;
  }
  if (holds_code && watcher_ != nullptr) watcher_->on_code_written(address, size);
}

}  // namespace bulkhead::memory
