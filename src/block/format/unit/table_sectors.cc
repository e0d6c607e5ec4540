#include "block/format/unit/table_sectors.h"

namespace bulkhead::block {

void TableSectors::make_room() {
  if (sectors_.size() < most_sectors_) return;
  for (auto i = recent_.rbegin(); i != recent_.rend(); ++i) {
    const auto found = sectors_.find(*i);
    if (found->second.pins != 0) continue;
    recent_.erase(found->second.recent);
    sectors_.erase(found);
    return;
  }
}

TableSectors::Sector& TableSectors::insert(uint64_t at) {
  make_room();
  Sector& sector = sectors_[at];
  recent_.push_front(at);
  sector.recent = recent_.begin();
  sector.bytes.resize(kSector);
  return sector;
}

Outcome<uint8_t*> TableSectors::look(uint64_t offset) {
  const uint64_t at = align_down(offset, kSector);
  auto found = sectors_.find(at);
  if (found == sectors_.end()) {
    std::vector<uint8_t> bytes(kSector);
    TRY(done(store_.read(at, bytes)));
    insert(at).bytes = std::move(bytes);
    found = sectors_.find(at);
  } else {
    recent_.splice(recent_.begin(), recent_, found->second.recent);
  }
  return &found->second.bytes[offset - at];
}

void TableSectors::pin(uint64_t at) {
  Sector& sector = sectors_[at];
  if (changed_.emplace(at, &sector).second) ++sector.pins;
}

Outcome<uint8_t*> TableSectors::change(uint64_t offset) {
  uint8_t* const bytes = TRY(look(offset));
  pin(align_down(offset, kSector));
  return bytes;
}

void TableSectors::add(uint64_t offset, uint64_t size, uint8_t value) {
  for (uint64_t at = offset; at < offset + size; at += kSector) {
    const auto found = sectors_.find(at);
    Sector& sector = found == sectors_.end() ? insert(at) : found->second;
    std::ranges::fill(sector.bytes, value);
    pin(at);
  }
}

std::vector<TableSectors::Run> TableSectors::take() {
  std::vector<Run> runs;
  for (const auto& [at, sector] : changed_) {
    if (runs.empty() || runs.back().offset + runs.back().bytes.size() != at) runs.push_back({.offset = at});
    runs.back().bytes.insert(runs.back().bytes.end(), sector->bytes.begin(), sector->bytes.end());
  }
  changed_.clear();
  return runs;
}

void TableSectors::finish(const std::vector<Run>& runs, bool written) {
  for (const Run& run : runs) {
    for (uint64_t at = run.offset; at < run.offset + run.bytes.size(); at += kSector) {
      if (!written) pin(at);
      --sectors_[at].pins;
    }
  }
}

}  // namespace bulkhead::block
