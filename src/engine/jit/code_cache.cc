#include "engine/jit/code_cache.h"

#include <cstring>

#include <sys/mman.h>
#include <unistd.h>

#include "support/check.h"
#include "support/os/fd.h"

namespace bulkhead::engine::jit {
namespace {

constexpr size_t kAlignment = 16;

}  // namespace

Result<std::unique_ptr<CodeCache>> CodeCache::create(size_t capacity_bytes) {
  const Fd file(::memfd_create("bulkhead-code", MFD_CLOEXEC));
  if (!file.valid()) return fail_errno(errno, "memory for translated code");
  if (::ftruncate(file.get(), static_cast<off_t>(capacity_bytes)) != 0) {
    return fail_errno(errno, "memory for translated code");
  }
  const auto map = [&](int protection) {
    return ::mmap(nullptr, capacity_bytes, protection, MAP_SHARED | MAP_NORESERVE, file.get(), 0);
  };
  void* writable = map(PROT_READ | PROT_WRITE);
  if (writable == MAP_FAILED) return fail_errno(errno, "memory for translated code");
  void* executable = map(PROT_READ | PROT_EXEC);
  if (executable == MAP_FAILED) {
    const int error = errno;
    ::munmap(writable, capacity_bytes);
    return fail_errno(error, "executable memory for translated code");
  }
  return std::unique_ptr<CodeCache>(
      new CodeCache(static_cast<uint8_t*>(writable), static_cast<uint8_t*>(executable), capacity_bytes));
}

CodeCache::~CodeCache() {
  ::munmap(writable_, capacity_);
  ::munmap(executable_, capacity_);
}

const uint8_t* CodeCache::add(std::span<const uint8_t> code) {
  if (code.size() > capacity_ - used_) return nullptr;
  std::memcpy(writable_ + used_, code.data(), code.size());
  const uint8_t* place = executable_ + used_;
  used_ += (code.size() + kAlignment - 1) / kAlignment * kAlignment;
  if (used_ > capacity_) used_ = capacity_;
  return place;
}

void CodeCache::patch(const uint8_t* at, int32_t value) {
  CHECK(at >= executable_ && at + sizeof value <= executable_ + capacity_, "a patch outside of the code cache");
  std::memcpy(writable_ + (at - executable_), &value, sizeof value);
}

}  // namespace bulkhead::engine::jit
