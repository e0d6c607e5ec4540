// A disk in chunks, worked on by several threads.
#pragma once

#include <cstdint>
#include <functional>

#include "support/bytes.h"
#include "support/result.h"

namespace bulkhead::cli {

inline constexpr uint64_t kChunk = uint64_t{2} << 20;

// work(offset, size, memory) is called once for each chunk. Chunks are begun in their order; no more are begun after an
// error, which is the result, or when work says false. A thread's memory is aligned, so that it may go past the host's
// page cache, and has memory_size bytes.
Result<> each_chunk(uint64_t disk_size, unsigned thread_count, uint64_t memory_size, bool quiet,
                    const std::function<Result<bool>(uint64_t offset, uint64_t size, MutableByteSpan memory)>& work);

// For what waits for a disk.
[[nodiscard]] unsigned thread_count_for_disks();
// One a processor, for what takes its time.
[[nodiscard]] unsigned thread_count_for_processors();

}  // namespace bulkhead::cli
