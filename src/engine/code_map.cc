#include "engine/code_map.h"

#include <algorithm>

namespace bulkhead::engine {

Result<CodeMap> CodeMap::create(memory::GuestMemory& memory) {
  CodeMap map;
  map.memory_ = &memory;
  map.bytes_ = TRY_IN("code map", Mapping::anonymous(((memory.end() >> kPageShift) + 1) * sizeof(PageCode)));
  map.pages_ = reinterpret_cast<PageCode*>(map.bytes_.data());
  return map;
}

uint64_t CodeMap::granules_of(uint64_t physical, uint64_t size) {
  const uint64_t first = physical / 64 % 64;
  const uint64_t last = (physical + size - 1) / 64 % 64;
  return (~0ull << first) & (~0ull >> (63 - last));
}

bool CodeMap::add(uint64_t physical, unsigned size) {
  PageCode& code = page(physical);
  const uint64_t granules = granules_of(physical, size);
  if ((code.granules.load() & granules) != granules) code.granules.fetch_or(granules);
  std::atomic<uint8_t>& flags = memory_->page_flags(physical >> kPageShift);
  if ((flags.load() & memory::kPageCode) != 0) return false;
  code.turning_on.fetch_add(1);
  if ((flags.fetch_or(memory::kPageCode) & memory::kPageCode) == 0) return true;
  code.turning_on.fetch_sub(1);
  return false;
}

bool CodeMap::written(uint64_t physical, uint64_t size) {
  bool hit = false;
  const uint64_t end = physical + size;
  while (physical < end) {
    const uint64_t part = std::min(end - physical, kPageSize - (physical & (kPageSize - 1)));
    PageCode& code = page(physical);
    const uint32_t idle_writes = code.idle_writes.fetch_add(1) + 1;
    const uint64_t granules = code.granules.load();
    if ((granules & granules_of(physical, part)) != 0) {
      code.granules.store(0);
      code.idle_writes.store(0);
      code.version.fetch_add(1);
      hit = true;
    } else if (granules == 0 || idle_writes >= kMaximumIdleWrites) {
      code.granules.store(0);
      code.idle_writes.store(0);
      memory_->page_flags(physical >> kPageShift).fetch_and(static_cast<uint8_t>(~memory::kPageCode));
      code.version.fetch_add(1);
      hit = true;
    }
    physical += part;
  }
  return hit;
}

}  // namespace bulkhead::engine
