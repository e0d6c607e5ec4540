// What jobs do to a disk's storage while everything is fenced: flush it, close it and open something in its place. A
// step that fails leaves the disk on what it stood on before.
#pragma once

#include "block/job/disk_files.h"
#include "block/job/live_disk.h"
#include "block/wait.h"

namespace bulkhead::block {

[[nodiscard]] Result<> check_status(Status status, std::string_view what, uint64_t offset);

// That a guest who finds this behind its disk notices nothing.
[[nodiscard]] Result<> check_same_shape(const Geometry& now, const Geometry& then, const std::string& path);

// Closes what the disk stands on, which locks its files, and opens path instead. When that cannot be opened, what was
// there is opened again; when that fails too, the disk answers every request with an error, and the message says so.
[[nodiscard]] Result<> reopen(LiveDisk& disk, DiskFiles& files, const std::string& path, const std::string& format,
                              Access backing_access = Access::kReadOnly, const std::string& below = "");

}  // namespace bulkhead::block
