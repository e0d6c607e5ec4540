// What is wrong in a sparse extent, and making it larger.
#include <algorithm>

#include "block/format/vmdk/sparse_extent.h"

namespace bulkhead::block::vmdk {

// Where the second copy of a table entry is not as the first, which counts.
Result<> SparseExtent::each_difference(CheckReport& report, bool repair) {
  for (uint64_t unit = 0; unit < unit_count();) {
    const auto first = entry_at(header_.directory, unit), second = entry_at(header_.redundant_directory, unit);
    const uint64_t left = header_.table_entries - unit % header_.table_entries;
    if (!first || !second || (*first != 0) != (*second != 0)) {
      ++report.errors;
      ++report.left;
      report.say(fmt::format("grain table for byte {:#x}: one of its copies is missing or outside the file",
                             unit * unit_size_));
      unit += left;
      continue;
    }
    const uint64_t in_sector = std::min(left, (kSector - *first % kSector) / 4);
    if (*first == 0) {
      unit += left;
      continue;
    }
    for (uint64_t i = 0; i < std::min(in_sector, unit_count() - unit); ++i) {
      const auto look = [&](uint64_t at) REQUIRES(mutex_) -> Result<uint32_t> {
        const auto entry = tables_.look(at + i * 4);
        if (!entry) return fail("check '{}': the grain table at {:#x} cannot be read", store_->name(), at);
        return load<uint32_t>(*entry);
      };
      const uint32_t value = TRY(look(*first));
      if (value == TRY(look(*second))) continue;
      ++report.errors;
      report.say(fmt::format("grain {}: the second table has another entry", unit + i));
      if (!repair) {
        ++report.left;
        continue;
      }
      const auto entry = tables_.change(*second + i * 4);
      if (!entry) return fail("check '{}': the grain table at {:#x} cannot be read", store_->name(), *second);
      store(*entry, value);
      ++report.repaired;
    }
    unit += in_sector;
  }
  return {};
}

Result<> SparseExtent::check_packed(CheckReport& report) {
  const uint64_t file_size = TRY(store_->size());
  for (uint64_t unit = 0; unit < unit_count();) {
    const auto found = find_unit(unit);
    if (!found) return fail("check '{}': the table entry of grain {} cannot be read", store_->name(), unit);
    const uint64_t at = unit;
    unit += std::max<uint64_t>(1, found->count);
    if (found->kind != UnitKind::kPacked) continue;
    std::vector<uint8_t> marker(12);
    TRY(store_->read_all(found->place, marker));
    const bool markers = (header_.flags & kHasMarkers) != 0;
    if (range_fits(found->place, 12 + (markers ? load<uint32_t>(&marker[8]) : 0), file_size) &&
        (!markers || load<uint64_t>(marker.data()) == at * header_.grain)) {
      continue;
    }
    ++report.errors;
    ++report.left;
    report.say(fmt::format("grain {} at {:#x} has the marker of another, or ends outside the file", at, found->place));
  }
  return {};
}

// Its grains may be single sectors, too many to be remembered, and its file larger than what is in use.
Result<> SparseExtent::check_server(CheckReport& report) {
  const uint64_t file_size = TRY(store_->size()), entries = file_size / 4 + header_.table_count();
  for (uint64_t unit = 0, looked = 0; unit < unit_count(); ++looked) {
    const auto found = find_unit(unit);
    if (!found) return fail("check '{}': the table entry of grain {} cannot be read", store_->name(), unit);
    if (looked == entries) return fail("check '{}': grain tables lie in one another", store_->name());
    const uint64_t at = unit;
    unit += std::max<uint64_t>(1, found->count);
    if (found->kind != UnitKind::kData) continue;
    if (may_be_data(found->place) && range_fits(found->place, unit_size_, file_size)) continue;
    ++report.errors;
    ++report.left;
    report.say(fmt::format("grain {} lies at {:#x}, where none may", at, found->place));
  }
  return {};
}

Result<CheckReport> SparseExtent::check(Repair repair) {
  CheckReport report;
  const LockGuard lock(mutex_);
  if (!geometry_.read_only && !commit()) return fail("check '{}': flush", store_->name());
  if (is_read_only()) {
    TRY(compressed() ? check_packed(report) : check_server(report));
    return report;
  }
  uint64_t used = 0;
  const uint64_t file_size = TRY(store_->size());
  TRY(check_units(report, 0, align_up(file_size, unit_size_), used));
  if (header_.has_redundant()) TRY(each_difference(report, repair == Repair::kAll && !geometry_.read_only));
  if (report.repaired != 0 && !commit()) return fail("check '{}': flush", store_->name());
  // Tables may lie among the grains.
  uint64_t tables = 0;
  for (const uint64_t directory : {header_.directory, header_.has_redundant() ? header_.redundant_directory : 0}) {
    const uint64_t overhead = header_.overhead * kSector;
    if (directory * kSector >= overhead) tables += header_.directory_bytes() + unit_size_;
    for (uint64_t table = 0; directory != 0 && table < header_.table_count(); ++table) {
      const auto entry = tables_.look(directory * kSector + table * 4);
      if (!entry) return fail("check '{}': the grain directory cannot be read", store_->name());
      if (load<uint32_t>(*entry) * kSector >= overhead) tables += align_up(header_.table_bytes(), unit_size_);
    }
  }
  const uint64_t all = header_.overhead * kSector + used + tables;
  report.leaks = file_size > all ? (file_size - all) / unit_size_ : 0;
  return report;
}

// New directories with tables for all of a larger disk go behind the end; one sector, the header, makes them count.
Result<> SparseExtent::make_room(uint64_t capacity) {
  const LockGuard lock(mutex_);
  if (!commit()) return fail("resize '{}': flush", store_->name());
  SparseHeader header = header_;
  header.capacity = capacity;
  uint64_t end = end_;
  for (uint64_t* const directory : {&header.directory, &header.redundant_directory}) {
    if (header_.table_count() == header.table_count()) break;
    if (directory == &header.redundant_directory && !header_.has_redundant()) continue;
    std::vector<uint8_t> bytes(header.directory_bytes());
    const uint64_t at = end;
    end += bytes.size();
    for (uint64_t table = 0; table < header.table_count(); ++table) {
      uint32_t entry = 0;
      if (table < header_.table_count()) {
        const auto old = tables_.look(*directory * kSector + table * 4);
        if (!old) return fail("resize '{}': the grain directory cannot be read", store_->name());
        entry = load<uint32_t>(*old);
      }
      if (entry == 0) {
        entry = static_cast<uint32_t>(end / kSector);
        end += align_up(header.table_bytes(), kSector);
      }
      store(&bytes[table * 4], entry);
    }
    TRY(store_->write_all(at, bytes));
    *directory = at / kSector;
    end = align_up(end, unit_size_);
  }
  if (store_->truncate(end) != Status::kOk) return fail("resize '{}' to {} bytes", store_->name(), end);
  TRY(store_->flush_all());
  header.capacity = header_.capacity;
  if (header.directory != header_.directory) TRY(write_header(header));
  end_ = file_end_ = end;
  return {};
}

Result<> SparseExtent::write_header(const SparseHeader& header) {
  TRY(store_->write_all(0, make_sparse_header(header)));
  TRY(store_->flush_all());
  header_ = header;
  return {};
}

Result<> SparseExtent::grow(uint64_t new_size) {
  new_size = align_up(new_size, kSector);
  if (new_size > kLargestDiskSectors * kSector) {
    return fail("resize '{}' to {} bytes: the limit is {}", store_->name(), new_size, kLargestDiskSectors * kSector);
  }
  TRY(check_nothing_below(new_size));
  TRY(make_room(new_size / kSector));
  const LockGuard lock(mutex_);
  SparseHeader header = header_;
  header.capacity = new_size / kSector;
  TRY(write_header(header));
  geometry_.size = new_size;
  return {};
}

}  // namespace bulkhead::block::vmdk
