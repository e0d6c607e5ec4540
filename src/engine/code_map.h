// Which guest bytes have been made into blocks by any vCPU, by physical page, and how a write to them becomes known.
//
//   maker of a block                           writer (vCPU slow path, or DMA through GuestMemory)
//     v = version                                write the bytes
//     granules |= bytes of the block             [full barrier]
//     page flag kPageCode on                     flag on and granules hit?  forget granules, then version + 1
//     read the bytes
//
// Whatever the order, the writer sees the granules or the maker sees the new bytes; and what the writer forgets, a
// maker that read the older version registers again. A vCPU may hold a TLB entry through which it writes without
// looking at the flag: whoever turns the flag on asks all others to drop theirs, and until they have (epochs), compares
// bytes before each run.
#pragma once

#include <atomic>
#include <cstdint>

#include "memory/guest_memory.h"
#include "support/os/fd.h"
#include "support/result.h"

namespace bulkhead::engine {

struct PageCode {
  std::atomic<uint32_t> version;
  std::atomic<uint32_t> idle_writes;  // writes to the page that hit no code, since the last that did
  std::atomic<uint64_t> granules;     // 64 bytes each
  std::atomic<uint64_t> turning_on;   // makers that have turned the flag on and not yet asked the others
};

class CodeMap {
 public:
  static Result<CodeMap> create(memory::GuestMemory& memory);

  [[nodiscard]] PageCode& page(uint64_t physical) { return pages_[physical >> kPageShift]; }
  // Bytes of one page; true when the flag of the page was off before: then ask the others, and call flag_announced().
  bool add(uint64_t physical, unsigned size);
  void flag_announced(uint64_t physical) { page(physical).turning_on.fetch_sub(1); }
  // After the write; true when blocks may have changed. Any range of RAM.
  bool written(uint64_t physical, uint64_t size);

 private:
  // So many writes that miss the code, and the page is taken for data until code is run from it again.
  static constexpr uint32_t kMaximumIdleWrites = 256;

  static uint64_t granules_of(uint64_t physical, uint64_t size);

  memory::GuestMemory* memory_ = nullptr;
  Mapping bytes_;
  PageCode* pages_ = nullptr;
};

}  // namespace bulkhead::engine
