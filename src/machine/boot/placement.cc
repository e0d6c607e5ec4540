#include "machine/boot/placement.h"

#include <algorithm>

#include "support/bytes.h"

namespace bulkhead::machine::boot {

bool Placement::is_ram(uint64_t start, uint64_t size) const {
  return std::ranges::any_of(map_, [&](const MemoryRange& range) {
    return range.type == MemoryType::kRam && start >= range.start && range_fits(start - range.start, size, range.size);
  });
}

const Placement::Taken* Placement::overlap(uint64_t start, uint64_t size) const {
  for (const Taken& taken : taken_) {
    if (start < taken.start + taken.size && taken.start < start + size) return &taken;
  }
  return nullptr;
}

Result<> Placement::claim(std::string_view what, uint64_t start, uint64_t size) {
  if (size == 0) return {};
  if (!is_ram(start, size)) return fail("{} at {:#x} ({} bytes) does not lie in RAM", what, start, size);
  if (const Taken* other = overlap(start, size)) {
    return fail("{} at {:#x} ({} bytes) overlaps {} at {:#x} ({} bytes)", what, start, size, other->what, other->start,
                other->size);
  }
  taken_.push_back({std::string(what), start, size});
  return {};
}

// The lowest place of a free range is the start of RAM or the end of something taken; the highest, mirrored.
Result<uint64_t> Placement::place_lowest(const Request& request) {
  const uint64_t size = std::max<uint64_t>(request.size, 1);
  std::vector<uint64_t> candidates{request.from};
  for (const MemoryRange& range : map_) candidates.push_back(range.start);
  for (const Taken& taken : taken_) candidates.push_back(taken.start + taken.size);
  std::ranges::sort(candidates);
  for (const uint64_t candidate : candidates) {
    const uint64_t start = align_up(candidate, request.alignment);
    if (start < request.from || !range_fits(start, size, request.to)) continue;
    if (!is_ram(start, size) || overlap(start, size) != nullptr) continue;
    taken_.push_back({std::string(request.what), start, size});
    return start;
  }
  return fail("no room in RAM for {} ({} bytes) between {:#x} and {:#x}", request.what, size, request.from, request.to);
}

Result<uint64_t> Placement::place_highest(const Request& request) {
  const uint64_t size = std::max<uint64_t>(request.size, 1);
  std::vector<uint64_t> candidates{request.to};
  for (const MemoryRange& range : map_) candidates.push_back(range.start + range.size);
  for (const Taken& taken : taken_) candidates.push_back(taken.start);
  std::ranges::sort(candidates, std::greater{});
  for (const uint64_t end : candidates) {
    if (end > request.to || end < size) continue;
    const uint64_t start = align_down(end - size, request.alignment);
    if (start < request.from) continue;
    if (!is_ram(start, size) || overlap(start, size) != nullptr) continue;
    taken_.push_back({std::string(request.what), start, size});
    return start;
  }
  return fail("no room in RAM for {} ({} bytes) between {:#x} and {:#x}", request.what, size, request.from, request.to);
}

}  // namespace bulkhead::machine::boot
