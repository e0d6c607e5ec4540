#include "block/store/file/direct_access.h"

#include <bit>
#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>

#include <fmt/format.h>

namespace bulkhead::block {

Result<DirectAccess> DirectAccess::open(int fd, const std::string& path, Access access) {
  DirectAccess made;
  // The same file whatever its path leads to now, in an open file description of its own.
  const int mode = (access == Access::kReadOnly ? O_RDONLY : O_RDWR) | O_DIRECT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  made.fd_ = Fd(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), mode));
  if (!made.fd_.valid()) return fail_errno(errno, "open '{}' without the host's cache", path);
#ifdef STATX_DIOALIGN
  struct statx status{};
  if (::statx(made.fd_.get(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
      (status.stx_mask & STATX_DIOALIGN) != 0) {
    if (!std::has_single_bit(status.stx_dio_mem_align) || !std::has_single_bit(status.stx_dio_offset_align)) {
      return fail("open '{}' without the host's cache: its file system has no direct access", path);
    }
    made.memory_alignment_ = status.stx_dio_mem_align;
    made.offset_alignment_ = status.stx_dio_offset_align;
  }
#endif
  return made;
}

Result<DirectAccess> DirectAccess::open(int fd, const std::string& path, Access access, HostCache cache) {
  if (cache == HostCache::kUsed || cache == HostCache::kTrusted) return DirectAccess();
  auto made = open(fd, path, access);
  if (!made && cache == HostCache::kBypassedIfPossible) return DirectAccess();
  return made;
}

}  // namespace bulkhead::block
