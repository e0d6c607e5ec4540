#include "block/format/vmdk/sparse_extent.h"

#include <algorithm>

#include <zlib.h>

namespace bulkhead::block::vmdk {
namespace {

constexpr size_t kMostKeptGrainBytes = 65536;

constexpr uint32_t kZeroGrain = 1;
constexpr uint64_t kMarkerBytes = 12;

bool overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size) {
  return a < b + b_size && b < a + a_size;
}

}  // namespace

SparseExtent::SparseExtent(std::unique_ptr<Store> store, SparseHeader header, uint64_t file_size, Access access)
    : UnitImage(std::move(store), header.capacity * kSector, header.grain * kSector, access),
      header_(header),
      end_(align_up(file_size, header.grain * kSector)),
      file_end_(file_size) {}

SparseExtent::~SparseExtent() {
  if (geometry_.read_only) return;
  close();
  if (!header_.unclean) return;
  // Whoever finds the mark looks for damage, so it goes only when all is written.
  const std::vector<uint8_t> clean(1);
  if (store_->write(kUncleanField, clean) == Status::kOk) (void)store_->flush();
}

Result<std::unique_ptr<SparseExtent>> SparseExtent::open(std::unique_ptr<Store> store, Access access) {
  const uint64_t file_size = TRY(store->size());
  std::vector<uint8_t> bytes(kSector);
  TRY(store->read_all(0, bytes));
  SparseHeader header = TRY(parse_sparse_header(bytes, store->name(), 0, file_size));
  if (header.directory == kDirectoryAtEnd) {
    // Footer and end-of-stream marker are the last two sectors.
    const uint64_t at = align_down(file_size, kSector) - std::min(file_size, 2 * kSector);
    TRY(store->read_all(at, bytes));
    const uint64_t descriptor_at = header.descriptor_at, descriptor_size = header.descriptor_size;
    header = TRY(parse_sparse_header(bytes, store->name(), at, file_size));
    if (header.directory == kDirectoryAtEnd)
      return fail("open '{}': no grain directory at byte {}", store->name(), at + 56);
    header.descriptor_at = descriptor_at;
    header.descriptor_size = descriptor_size;
  }
  if ((header.flags & kCompressed) != 0 || header.of_server) access = Access::kReadOnly;
  std::unique_ptr<SparseExtent> extent(new SparseExtent(std::move(store), header, file_size, access));
  if (access != Access::kReadOnly && header.unclean) TRY(extent->recover());
  return extent;
}

// After a power cut: grains that no table names are cut off, and the tables of the second directory follow the first's.
Result<> SparseExtent::recover() {
  const LockGuard lock(mutex_);
  uint64_t end = std::max(header_.overhead * kSector, TRY(end_of_units()));
  for (const uint64_t directory : {header_.directory, header_.has_redundant() ? header_.redundant_directory : 0}) {
    if (directory == 0) continue;
    end = std::max(end, directory * kSector + header_.directory_bytes());
    for (uint64_t table = 0; table < header_.table_count(); ++table) {
      const auto entry = tables_.look(directory * kSector + table * 4);
      if (!entry) return fail("open '{}': the grain directory cannot be read", store_->name());
      end = std::max(end, load<uint32_t>(*entry) * kSector + header_.table_bytes());
    }
  }
  end = align_up(end, unit_size_);
  if (end < end_) {
    if (store_->truncate(end) != Status::kOk) return fail("resize '{}' to {} bytes", store_->name(), end);
    end_ = file_end_ = end;
  }
  CheckReport report;
  if (header_.has_redundant()) TRY(each_difference(report, true));
  if (!commit()) return fail("open '{}': flush", store_->name());
  return {};
}

Outcome<uint64_t> SparseExtent::entry_at(uint64_t directory, uint64_t unit) {
  const uint8_t* const entry = TRY(tables_.look(directory * kSector + unit / header_.table_entries * 4));
  const uint64_t table = load<uint32_t>(entry) * kSector;
  if (table != 0 && !range_fits(table, header_.table_bytes(), end_)) {
    return std::unexpected(corrupt("grain table outside the file", table, end_).error());
  }
  return table == 0 ? 0 : table + unit % header_.table_entries * 4;
}

Outcome<UnitImage::Unit> SparseExtent::find_unit(uint64_t unit) {
  const uint64_t at = TRY(entry_at(header_.directory, unit));
  if (at == 0) return Unit{.count = header_.table_entries - unit % header_.table_entries};
  const auto sector = load<uint32_t>(TRY(tables_.look(at)));
  if (sector == 0) return Unit{};
  if (sector == kZeroGrain && (header_.flags & kHasZeroGrains) != 0) return Unit{.kind = UnitKind::kZero};
  return Unit{compressed() ? UnitKind::kPacked : UnitKind::kData, sector * kSector};
}

bool SparseExtent::has_grains() {
  const LockGuard lock(mutex_);
  for (uint64_t unit = 0; unit < unit_count();) {
    const auto found = find_unit(unit);
    if (!found || found->kind != UnitKind::kAbsent) return true;
    unit += std::max<uint64_t>(1, found->count);
  }
  return false;
}

bool SparseExtent::may_be_data(uint64_t place) const {
  if (place < std::max(header_.overhead, uint64_t{1}) * kSector || place >= end_) return false;
  const auto over = [&](uint64_t directory) {
    return overlaps(place, unit_size_, directory * kSector, header_.directory_bytes());
  };
  return !over(header_.directory) && (!header_.has_redundant() || !over(header_.redundant_directory));
}

Outcome<> SparseExtent::begin_writing() {
  const std::vector<uint8_t> unclean(1, 1);
  TRY(done(store_->write(kUncleanField, unclean)));
  TRY(done(store_->flush()));
  header_.unclean = true;
  return {};
}

Outcome<UnitImage::Place> SparseExtent::allocate() {
  if ((end_ + unit_size_) / kSector > UINT32_MAX) return std::unexpected(Status::kNoSpace);
  const Place place{.offset = end_, .clean = true};
  end_ += unit_size_;
  return place;
}

// Both tables for a part of the disk that has none; behind the end of the file they read as empty until written.
Outcome<> SparseExtent::add_tables(uint64_t table) {
  for (const uint64_t directory : {header_.directory, header_.has_redundant() ? header_.redundant_directory : 0}) {
    if (directory == 0) continue;
    const uint64_t size = align_up(header_.table_bytes(), kSector);
    if ((end_ + size) / kSector > UINT32_MAX) return std::unexpected(Status::kNoSpace);
    uint8_t* const entry = TRY(tables_.change(directory * kSector + table * 4));
    store(entry, static_cast<uint32_t>(end_ / kSector));
    tables_.add(end_, size, 0);
    end_ = align_up(end_ + size, unit_size_);
  }
  return {};
}

Outcome<> SparseExtent::set_entry(uint64_t unit, uint32_t value) {
  if (TRY(entry_at(header_.directory, unit)) == 0) TRY(add_tables(unit / header_.table_entries));
  store(TRY(tables_.change(TRY(entry_at(header_.directory, unit)))), value);
  if (!header_.has_redundant()) return {};
  const uint64_t other = TRY(entry_at(header_.redundant_directory, unit));
  if (other != 0) store(TRY(tables_.change(other)), value);
  return {};
}

Outcome<> SparseExtent::link(uint64_t unit, uint64_t place) {
  return set_entry(unit, static_cast<uint32_t>(place / kSector));
}

Outcome<> SparseExtent::link_zero(uint64_t unit) {
  if ((header_.flags & kHasZeroGrains) == 0) return std::unexpected(Status::kUnsupported);
  return set_entry(unit, kZeroGrain);
}

// A grain of which a part was written only is still counted whole by its reader.
Outcome<> SparseExtent::write_tables(const std::vector<TableSectors::Run>& runs) {
  {
    const LockGuard lock(mutex_);
    if (file_end_ < end_) TRY(done(store_->truncate(end_)));
    file_end_ = end_;
  }
  return UnitImage::write_tables(runs);
}

Outcome<std::shared_ptr<const std::vector<uint8_t>>> SparseExtent::unpack(uint64_t place, uint64_t guest) {
  auto grain = std::make_shared<std::vector<uint8_t>>(unit_size_);
  uint64_t packed_at = place;
  uint64_t packed_size = 2 * unit_size_ + kSector;
  if ((header_.flags & kHasMarkers) != 0) {
    std::vector<uint8_t> marker(kMarkerBytes);
    TRY(done(store_->read(packed_at, marker)));
    const auto sector = load<uint64_t>(marker.data());
    packed_size = std::min<uint64_t>(packed_size, load<uint32_t>(&marker[8]));
    packed_at += kMarkerBytes;
    if (sector != guest / unit_size_ * header_.grain) {
      return std::unexpected(corrupt("marker of another grain", place, sector).error());
    }
  }
  std::vector<uint8_t> packed(packed_size);
  TRY(done(store_->read(packed_at, packed)));
  z_stream stream{};
  if (::inflateInit(&stream) != Z_OK) return std::unexpected(Status::kIoError);
  stream.next_in = packed.data();
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = grain->data();
  stream.avail_out = static_cast<uInt>(grain->size());
  const int result = ::inflate(&stream, Z_FINISH);
  const uint64_t unpacked = grain->size() - stream.avail_out;
  ::inflateEnd(&stream);
  if (result != Z_STREAM_END) return std::unexpected(corrupt("compressed grain", place, unpacked).error());
  grain->resize(unpacked);
  return grain;
}

Outcome<> SparseExtent::read_special(const Unit& unit, uint64_t guest, MutableByteSpan bytes) {
  std::shared_ptr<const std::vector<uint8_t>> grain;
  {
    const LockGuard lock(unpacked_mutex_);
    if (unpacked_at_ == unit.place) grain = unpacked_;
  }
  if (!grain) {
    grain = TRY(unpack(unit.place, guest));
    // There may be thousands of extents, each with one.
    if (grain->size() <= kMostKeptGrainBytes) {
      const LockGuard lock(unpacked_mutex_);
      unpacked_at_ = unit.place;
      unpacked_ = grain;
    }
  }
  const uint64_t within = guest % unit_size_;
  if (within + bytes.size() > grain->size()) return corrupt("compressed grain", unit.place, grain->size());
  std::memcpy(bytes.data(), grain->data() + within, bytes.size());
  return {};
}

void SparseExtent::keep_tables_within(uint64_t bytes) {
  const LockGuard lock(mutex_);
  tables_.keep_at_most(bytes / TableSectors::kSector);
}

}  // namespace bulkhead::block::vmdk
