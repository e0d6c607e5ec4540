#include "machine/bus/bus_map.h"

#include <algorithm>

#include "support/bytes.h"

namespace bulkhead::machine {

bool PortMap::add(PortRange range) {
  if (range.count == 0 || !range_fits(range.first, range.count, kPortCount)) return false;
  for (const PortRange& other : ranges_) {
    if (range.first < other.first + other.count && other.first < range.first + range.count) return false;
  }
  ranges_.push_back(std::move(range));
  number_slots();
  return true;
}

bool PortMap::remove(uint32_t first) {
  const bool found = std::erase_if(ranges_, [&](const PortRange& range) { return range.first == first; }) != 0;
  if (found) number_slots();
  return found;
}

void PortMap::remove_movable() {
  std::erase_if(ranges_, [](const PortRange& range) { return range.kind == RangeKind::kMovable; });
  number_slots();
}

void PortMap::number_slots() {
  slots_.fill(0);
  for (size_t i = 0; i < ranges_.size(); ++i) {
    std::fill_n(slots_.begin() + ranges_[i].first, ranges_[i].count, static_cast<uint16_t>(i + 1));
  }
}

size_t MmioMap::find(uint64_t address, size_t hint) const {
  if (hint < ranges_.size() && ranges_[hint].contains(address)) return hint;
  const auto above = std::ranges::upper_bound(ranges_, address, {}, &MmioRange::first);
  if (above == ranges_.begin()) return kNone;
  const auto index = static_cast<size_t>(above - ranges_.begin()) - 1;
  return ranges_[index].contains(address) ? index : kNone;
}

uint64_t MmioMap::next_start(uint64_t address) const {
  const auto above = std::ranges::upper_bound(ranges_, address, {}, &MmioRange::first);
  return above == ranges_.end() ? UINT64_MAX : above->first;
}

bool MmioMap::add(MmioRange range) {
  if (range.size == 0 || range.size > UINT64_MAX - range.first) return false;
  const auto above = std::ranges::upper_bound(ranges_, range.first, {}, &MmioRange::first);
  if (above != ranges_.end() && above->first - range.first < range.size) return false;
  if (above != ranges_.begin() && std::prev(above)->contains(range.first)) return false;
  ranges_.insert(above, std::move(range));
  return true;
}

void MmioMap::remove_movable() {
  std::erase_if(ranges_, [](const MmioRange& range) { return range.kind == RangeKind::kMovable; });
}

bool MmioMap::remove(uint64_t first) {
  return std::erase_if(ranges_, [&](const MmioRange& range) { return range.first == first; }) != 0;
}

}  // namespace bulkhead::machine
