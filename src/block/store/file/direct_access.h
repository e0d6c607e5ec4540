// A second way into an open file, past the host's page cache (O_DIRECT), for transfers that are aligned as the host
// wants them. Everything else goes the cached way: the kernel keeps the two coherent, writing back what a direct read
// would miss and dropping what a direct write has replaced. So there is no bouncing here, and no read-modify-write to
// race.
#pragma once

#include <cstdint>

#include "block/store/store.h"
#include "support/bytes.h"
#include "support/os/fd.h"
#include "support/result.h"

namespace bulkhead::block {

class DirectAccess {
 public:
  // Every transfer is refused.
  DirectAccess() = default;
  // Of the file behind the descriptor, whose name is for messages.
  static Result<DirectAccess> open(int fd, const std::string& path, Access access);
  // As the host's cache is to be used; empty where it may be and direct access is not to be had.
  static Result<DirectAccess> open(int fd, const std::string& path, Access access, HostCache cache);

  [[nodiscard]] bool fits(uint64_t offset, ByteSpan bytes) const {
    const auto address = reinterpret_cast<uintptr_t>(bytes.data());
    return fd_.valid() && (address & (memory_alignment_ - 1)) == 0 &&
           ((offset | bytes.size()) & (offset_alignment_ - 1)) == 0;
  }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] bool valid() const { return fd_.valid(); }

 private:
  Fd fd_;
  uint64_t memory_alignment_ = 4096, offset_alignment_ = 4096;
};

}  // namespace bulkhead::block
