#include "engine/jit/code_cache.h"

#include <cstring>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#include "support/check.h"
#include "support/os/fd.h"
#include "support/os/huge_page.h"

namespace bulkhead::engine::jit {
namespace {

constexpr size_t kAlignment = 16;
// Of a huge page, what is written before it is made one: a guest that runs little needs none.
constexpr size_t kSmallBytes = size_t{64} << 10;

}  // namespace

Result<std::unique_ptr<CodeCache>> CodeCache::create(size_t capacity_bytes) {
  const Fd file(::memfd_create("bulkhead-code", MFD_CLOEXEC));
  if (!file.valid()) return fail_errno(errno, "memory for translated code");
  if (::ftruncate(file.get(), static_cast<off_t>(capacity_bytes)) != 0) {
    return fail_errno(errno, "memory for translated code");
  }
  // Both views begin at a multiple of a huge page, and so do the pages of the file.
  const size_t room = align_up(capacity_bytes, kHugePageSize);
  Mapping window = TRY_IN("memory for translated code", Mapping::reserve(2 * room + kHugePageSize));
  auto* const begin = reinterpret_cast<uint8_t*>(align_up(reinterpret_cast<uintptr_t>(window.data()), kHugePageSize));
  const auto map = [&](uint8_t* at, int protection) {
    return ::mmap(at, capacity_bytes, protection, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, file.get(), 0) != MAP_FAILED;
  };
  if (!map(begin, PROT_READ | PROT_WRITE)) return fail_errno(errno, "memory for translated code");
  if (!map(begin + room, PROT_READ | PROT_EXEC)) return fail_errno(errno, "executable memory for translated code");
  return std::unique_ptr<CodeCache>(new CodeCache(std::move(window), begin, begin + room, capacity_bytes));
}

const uint8_t* CodeCache::add(std::span<const uint8_t> code) {
  if (code.size() > capacity_ - used_) return nullptr;
  std::memcpy(writable_ + used_, code.data(), code.size());
  const uint8_t* place = executable_ + used_;
  used_ += (code.size() + kAlignment - 1) / kAlignment * kAlignment;
  if (used_ > capacity_) used_ = capacity_;
  if (used_ > huge_ + kSmallBytes && capacity_ - huge_ >= kHugePageSize) {
    make_huge_page(executable_ + huge_);
    huge_ += kHugePageSize;
  }
  return place;
}

int32_t CodeCache::value(const uint8_t* at) const {
  CHECK(at >= executable_ && at + sizeof(int32_t) <= executable_ + capacity_, "a look outside of the code cache");
  int32_t value = 0;
  std::memcpy(&value, writable_ + (at - executable_), sizeof value);
  return value;
}

void CodeCache::patch(const uint8_t* at, int32_t value) {
  CHECK(at >= executable_ && at + sizeof value <= executable_ + capacity_, "a patch outside of the code cache");
  std::memcpy(writable_ + (at - executable_), &value, sizeof value);
}

void CodeCache::patch_jump(const uint8_t* at, const uint8_t* target) {
  writable_[at - executable_] = 0xE9;
  patch(at + 1, static_cast<int32_t>(target - (at + 5)));
}

}  // namespace bulkhead::engine::jit
