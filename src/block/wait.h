// Requests of one buffer, or of none, whose answer the caller waits for: never on a thread that the disk needs for it.
#pragma once

#include "block/disk.h"

namespace bulkhead::block {

[[nodiscard]] Status read_now(Disk& disk, uint64_t offset, MutableByteSpan bytes);
[[nodiscard]] Status write_now(Disk& disk, uint64_t offset, ByteSpan bytes);
[[nodiscard]] Status flush_now(Disk& disk);

}  // namespace bulkhead::block
