// Looks through the places of all units: what check() has to say about them, and where a new one may go.
#include <algorithm>

#include "block/format/unit/unit_image.h"

namespace bulkhead::block {
namespace {

// The memory that a check may use for the places of units.
constexpr size_t kMostPlaces = kMetadataLimit / sizeof(uint32_t);

constexpr uint64_t kToldUnits = 4096;

}  // namespace

Result<> UnitImage::check_units(CheckReport& report, uint64_t before, uint64_t high, uint64_t& used) {
  const auto error = [&](std::string message) {
    ++report.errors;
    ++report.left;
    report.say(std::move(message));
  };
  // In sectors; in larger parts where the file is larger than 2 TiB, where places are multiples of these.
  std::vector<uint32_t> places;
  unsigned shift = 9;
  while (high >> shift > UINT32_MAX) ++shift;
  used = 0;
  const uint64_t count = unit_count();
  for (uint64_t unit = 0; unit < count;) {
    const auto found = find_unit(unit);
    if (!found) return fail("check '{}': the table entry of unit {} cannot be read", store_->name(), unit);
    const uint64_t at = unit;
    if (unit % kToldUnits == 0) tell(unit * unit_size_, count * unit_size_);
    unit += std::max<uint64_t>(1, found->count);
    if (found->kind != UnitKind::kData && found->kind != UnitKind::kPartial) continue;
    if (found->place < before || found->place % 512 != 0 || !may_be_data(found->place) || found->place >= high) {
      error(fmt::format("unit {} lies at {:#x}, where none may", at, found->place));
      continue;
    }
    used += before + unit_size_;
    if (places.size() == kMostPlaces) {
      return fail("check '{}': {} units need more than {} bytes of memory", store_->name(), count, kMetadataLimit);
    }
    places.push_back(static_cast<uint32_t>(found->place >> shift));
  }
  std::ranges::sort(places);
  for (size_t i = 1; i < places.size(); ++i) {
    const uint64_t end = (uint64_t{places[i - 1]} << shift) + unit_size_,
                   next = (uint64_t{places[i]} << shift) - before;
    if (next < end) error(fmt::format("two units share the bytes at {:#x}", next));
    // Data with something in front of it is aligned by a gap, into which no unit fits.
    if (before != 0 && next > end && next - end < unit_size_) used += next - end;
  }
  return {};
}

Result<uint64_t> UnitImage::end_of_units() {
  uint64_t end = 0;
  const uint64_t count = unit_count();
  for (uint64_t unit = 0; unit < count;) {
    const auto found = find_unit(unit);
    if (!found) return fail("open '{}': the table entry of unit {} cannot be read", store_->name(), unit);
    unit += std::max<uint64_t>(1, found->count);
    if (found->kind == UnitKind::kData || found->kind == UnitKind::kPartial) {
      end = std::max(end, checked_add(found->place, unit_size_).value_or(0));
    }
  }
  return end;
}

}  // namespace bulkhead::block
