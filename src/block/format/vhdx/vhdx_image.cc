#include "block/format/vhdx/vhdx_image.h"

#include <algorithm>

#include "block/format/vhdx/log.h"

namespace bulkhead::block::vhdx {
namespace {

// States of a block's entry; the lowest three bits. Behind bit 20 stands its offset in MiB.
enum State : uint64_t {
  kNotPresent = 0,
  kUndefined = 1,
  kZero = 2,
  kUnmapped = 3,
  kFullyPresent = 6,
  kPartiallyPresent = 7
};
constexpr uint64_t kStateMask = 7, kOffsetMask = ~uint64_t{0xFFFFF};

bool overlaps(uint64_t a, uint64_t a_size, const Region& b) {
  return a < b.offset + b.size && b.offset < a + a_size;
}

}  // namespace

VhdxImage::VhdxImage(std::unique_ptr<Store> store, CurrentHeader header, Regions regions, Metadata metadata,
                     Access access, const ImageOpener& opener)
    : UnitImage(std::move(store), metadata.disk_bytes, metadata.block_bytes, access),
      opener_(opener),
      keeps_id_(access == Access::kCommit),
      header_(header.header),
      header_slot_(header.slot),
      regions_(regions),
      metadata_(std::move(metadata)) {
  geometry_.size = metadata_.disk_bytes;
  geometry_.sector_size = metadata_.logical_sector;
  geometry_.physical_block_size = std::max<uint32_t>(metadata_.physical_sector, 4096);
}

VhdxImage::~VhdxImage() {
  if (!geometry_.read_only) close();
}

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener) {
  return VhdxImage::open(std::move(store), access, opener);
}

Result<std::unique_ptr<Image>> VhdxImage::open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener) {
  std::vector<uint8_t> magic(kFileMagic.size());
  TRY(store->read_all(0, magic));
  if (!std::ranges::equal(magic, kFileMagic)) return fail("open '{}': no VHDX image", store->name());
  CurrentHeader header = TRY(read_header(*store));
  if (header.header.has_log()) {
    Replay replay = TRY(read_log(*store, header.header));
    if (access == Access::kReadOnly) {
      store = look_through(std::move(store), std::move(replay));
    } else {
      TRY(carry_out(*store, replay));
      header.header.log_id = {};
      ++header.header.sequence;
      header.slot ^= 1;
      TRY(store->write_all(kHeaderAt[header.slot], make_header(header.header)));
      TRY(store->flush_all());
    }
  }
  if (access != Access::kReadOnly) TRY(repair_region_tables(*store));
  const Regions regions = TRY(read_regions(*store));
  Metadata metadata = TRY(read_metadata(*store, regions.metadata));
  if (metadata.entry_count() * 8 > regions.table.size) {
    return fail("open '{}': table of {} bytes, need {} entries", store->name(), regions.table.size,
                metadata.entry_count());
  }
  std::unique_ptr<VhdxImage> image(
      new VhdxImage(std::move(store), header, regions, std::move(metadata), access, opener));
  if (image->metadata_.has_parent) TRY(image->open_parent());
  TRY(image->find_end());
  return image;
}

Result<> VhdxImage::open_parent() {
  parent_ = TRY(opener_.open_backing(metadata_.parent_name, "vhdx"));
  if (!parent_) return {};
  if (const std::string found = parent_->info().identity; found != metadata_.parent_linkage) {
    return fail("open '{}': the parent '{}' is {}, made for was {}: it was changed since, or is another",
                store_->name(), metadata_.parent_name, found, metadata_.parent_linkage);
  }
  show_through(parent_.get(), 0);
  return {};
}

template <typename Each>
Result<> VhdxImage::each_bitmap(Each each) {
  for (uint64_t chunk = 0; chunk < chunks_with_bitmaps(); ++chunk) {
    const auto entry = tables_.look(bitmap_entry_at(chunk));
    if (!entry) return fail("open '{}': the table at {:#x} cannot be read", store_->name(), bitmap_entry_at(chunk));
    const auto value = load<uint64_t>(*entry);
    if ((value & kStateMask) == kFullyPresent) each(value & kOffsetMask);
  }
  return {};
}

// Behind the last thing that the table or a header names.
Result<uint64_t> VhdxImage::used_end(uint64_t file_size) {
  uint64_t end = kMiB;
  for (const Region& region : {regions_.table, regions_.metadata, Region{header_.log_offset, header_.log_bytes}}) {
    end = std::max(end, region.offset + region.size);
  }
  TRY(each_bitmap([&](uint64_t place) {
    if (place < file_size) end = std::max(end, place + kMiB);
  }));
  for (uint64_t unit = 0; unit < unit_count(); ++unit) {
    const auto entry = tables_.look(entry_at(unit));
    if (!entry) return fail("open '{}': the table at {:#x} cannot be read", store_->name(), entry_at(unit));
    const auto value = load<uint64_t>(*entry);
    const uint64_t place = value & kOffsetMask;
    if ((value & kStateMask) >= kFullyPresent && place < file_size) end = std::max(end, place + unit_size_);
  }
  return end;
}

// What a power cut left behind the last block is used again.
Result<> VhdxImage::find_end() {
  const LockGuard lock(mutex_);
  file_end_ = TRY(store_->size());
  end_ = geometry_.read_only ? align_up(file_end_, kMiB) : TRY(used_end(file_end_));
  return {};
}

ImageInfo VhdxImage::info() const {
  ImageInfo info;
  info.format = "vhdx";
  info.virtual_size = geometry_.size;
  info.identity = to_text(header_.data_write_id, GuidOrder::kMicrosoft);
  info.backing_name = metadata_.parent_name;
  if (metadata_.has_parent) info.backing_format = "vhdx";
  const char* const kind = metadata_.leaves_blocks_allocated ? "fixed" : "dynamic";
  info.details = {{"subformat", metadata_.has_parent ? "differencing" : kind},
                  {"block_size", std::to_string(metadata_.block_bytes)},
                  {"logical_sector_size", std::to_string(metadata_.logical_sector)},
                  {"physical_sector_size", std::to_string(metadata_.physical_sector)},
                  {"id", to_text(metadata_.disk_id, GuidOrder::kMicrosoft)},
                  {"log", header_.has_log() ? "to be replayed" : "empty"}};
  return info;
}

Outcome<UnitImage::Unit> VhdxImage::find_unit(uint64_t unit) {
  const auto entry = load<uint64_t>(TRY(tables_.look(entry_at(unit))));
  switch (entry & kStateMask) {
    case kNotPresent:
      return Unit{};
    case kFullyPresent:
      return Unit{UnitKind::kData, entry & kOffsetMask};
    case kPartiallyPresent:
      return Unit{metadata_.has_parent ? UnitKind::kPartial : UnitKind::kData, entry & kOffsetMask};
    default:
      return Unit{UnitKind::kZero};
  }
}

bool VhdxImage::may_be_data(uint64_t place) const {
  return place >= kMiB && place < end_ && !overlaps(place, unit_size_, regions_.table) &&
         !overlaps(place, unit_size_, regions_.metadata) &&
         !overlaps(place, unit_size_, {header_.log_offset, header_.log_bytes});
}

Outcome<> VhdxImage::begin_writing() {
  Header header = header_;
  ++header.sequence;
  header.file_write_id = random_guid(GuidOrder::kMicrosoft);
  if (!keeps_id_) header.data_write_id = random_guid(GuidOrder::kMicrosoft);
  const size_t slot = header_slot_ ^ 1;
  TRY(done(store_->write(kHeaderAt[slot], make_header(header))));
  TRY(done(store_->flush()));
  header_ = header;
  header_slot_ = slot;
  return {};
}

Outcome<UnitImage::Place> VhdxImage::allocate() {
  if (!tail_is_clean_) {
    TRY(done(store_->truncate(end_)));
    file_end_ = end_;
  }
  tail_is_clean_ = true;
  const Place place{.offset = end_, .clean = true};
  end_ += unit_size_;
  return place;
}

Outcome<> VhdxImage::link(uint64_t unit, uint64_t place) {
  store(TRY(tables_.change(entry_at(unit))), place | kFullyPresent);
  return {};
}

Outcome<> VhdxImage::link_zero(uint64_t unit) {
  store(TRY(tables_.change(entry_at(unit))), uint64_t{kZero});
  return {};
}

// The file is a whole number of MiB long, however little of its last block was written.
Outcome<> VhdxImage::write_tables(const std::vector<TableSectors::Run>& runs) {
  {
    const LockGuard lock(mutex_);
    if (file_end_ < end_) TRY(done(store_->truncate(end_)));
    file_end_ = std::max(file_end_, end_);
  }
  return UnitImage::write_tables(runs);
}

// The bits of all sectors of a chunk stand behind one another, from the lowest bit of a byte on.
Outcome<> VhdxImage::read_special(const Unit& unit, uint64_t guest, MutableByteSpan bytes) {
  if (unit.kind != UnitKind::kPartial) return corrupt("packed block", guest, unit.place);
  const uint64_t sector_size = metadata_.logical_sector, chunk = guest / unit_size_ / metadata_.chunk_ratio();
  const uint64_t chunk_start = chunk * metadata_.chunk_ratio() * unit_size_;
  while (!bytes.empty()) {
    const uint64_t sector = (guest - chunk_start) / sector_size;
    uint64_t size = 0;
    bool here = false;
    {
      const LockGuard lock(mutex_);
      const auto entry = load<uint64_t>(TRY(tables_.look(bitmap_entry_at(chunk))));
      if ((entry & kStateMask) != kFullyPresent) return corrupt("block without its sector bitmap", guest, entry);
      const uint8_t* const bits = TRY(tables_.look((entry & kOffsetMask) + sector / 8));
      // As far as this sector of bits reaches.
      const uint64_t most = (TableSectors::kSector - sector / 8 % TableSectors::kSector) * 8 - sector % 8;
      const auto bit = [&](uint64_t i) { return (bits[(sector % 8 + i) / 8] >> ((sector % 8 + i) % 8) & 1) != 0; };
      here = bit(0);
      uint64_t count = 1;
      while (count < most && count * sector_size - guest % sector_size < bytes.size() && bit(count) == here) ++count;
      size = std::min<uint64_t>(bytes.size(), count * sector_size - guest % sector_size);
    }
    if (here) {
      TRY(done(store_->read(unit.place + guest % unit_size_, bytes.first(size))));
    } else {
      TRY(read_backing(guest, bytes.first(size)));
    }
    guest += size;
    bytes = bytes.subspan(size);
  }
  return {};
}

Result<CheckReport> VhdxImage::check(Repair) {
  CheckReport report;
  const LockGuard lock(mutex_);
  if (!geometry_.read_only && !commit()) return fail("check '{}': flush", store_->name());
  const uint64_t file_size = TRY(store_->size());
  uint64_t used = 0;
  TRY(check_units(report, 0, align_up(file_size, kMiB), used));
  TRY(each_bitmap([&](uint64_t place) {
    if (place >= kMiB && place < file_size) return;
    ++report.errors;
    ++report.left;
    report.say(fmt::format("a sector bitmap lies at {:#x}, outside the file", place));
  }));
  const uint64_t end = TRY(used_end(file_size));
  report.leaks = file_size > end ? (file_size - end + unit_size_ - 1) / unit_size_ : 0;
  return report;
}

// The new table is complete before a region table names it. The old one's place is given back to the host.
Result<> VhdxImage::move_table(uint64_t entries) {
  const Region table{end_, align_up(entries * 8, kMiB)};
  const auto failed = [&] { return fail("resize '{}': no room for a table of {} bytes", store_->name(), table.size); };
  if (table.size > UINT32_MAX) return failed();
  if (store_->truncate(end_) != Status::kOk || store_->truncate(end_ + table.size) != Status::kOk) return failed();
  tail_is_clean_ = true;
  std::vector<uint8_t> piece(kMiB);
  for (uint64_t done = 0, all = metadata_.entry_count() * 8; done < all; done += kMiB) {
    piece.resize(std::min(kMiB, all - done));
    TRY(store_->read_all(regions_.table.offset + done, piece));
    TRY(store_->write_all(table.offset + done, piece));
  }
  TRY(store_->flush_all());
  end_ = file_end_ = table.offset + table.size;
  return name_regions({table, regions_.metadata});
}

Result<> VhdxImage::name_regions(const Regions& regions) {
  TRY(move_regions(*store_, regions));
  const Regions old = std::exchange(regions_, regions);
  if (old.table.offset != regions.table.offset) (void)store_->punch(old.table.offset, old.table.size);
  if (old.metadata.offset != regions.metadata.offset) (void)store_->punch(old.metadata.offset, old.metadata.size);
  return {};
}

Metadata VhdxImage::on_another(const std::string& name, const std::string& identity) const {
  Metadata metadata = metadata_;
  metadata.has_parent = !name.empty();
  metadata.parent_name = name;
  metadata.parent_linkage = identity;
  return metadata;
}

// Of an image by itself; no block needs them any more.
Result<> VhdxImage::forget_bitmaps() {
  for (uint64_t chunk = 0; chunk < chunks_with_bitmaps(); ++chunk) {
    const auto entry = tables_.look(bitmap_entry_at(chunk));
    if (entry && load<uint64_t>(*entry) == 0) continue;
    const auto changed = tables_.change(bitmap_entry_at(chunk));
    if (!changed) return fail("rebase '{}': the table at {:#x}", store_->name(), bitmap_entry_at(chunk));
    store(*changed, uint64_t{0});
  }
  return {};
}

Result<> VhdxImage::check_no_partial_blocks() {
  const LockGuard lock(mutex_);
  for (uint64_t unit = 0; unit < unit_count(); ++unit) {
    const auto found = find_unit(unit);
    if (!found) return fail("rebase '{}': the table at {:#x} cannot be read", store_->name(), entry_at(unit));
    if (found->kind != UnitKind::kPartial) continue;
    return fail(
        "rebase '{}': some sectors of its block at byte {} are the backing file's, which must be looked at (no -u)",
        store_->name(), unit * unit_size_);
  }
  return {};
}

Result<> VhdxImage::may_set_backing(const std::string& name, const std::string& format) {
  if (geometry_.read_only) return fail("rebase '{}': opened read-only", store_->name());
  if (!name.empty() && format != "vhdx") {
    return fail("a VHDX image's backing file must be a VHDX image, not {}", format);
  }
  if (!name.empty() && metadata_.leaves_blocks_allocated) {
    return fail("rebase '{}': a fixed VHDX image cannot have a backing file", store_->name());
  }
  const Metadata metadata = on_another(name, "");
  TRY_IN(fmt::format("rebase '{}'", store_->name()), make_metadata(metadata));
  if (metadata.entry_count() * 8 > regions_.table.size) {
    return fail("rebase '{}': its table has no room for {} entries; convert it", store_->name(),
                metadata.entry_count());
  }
  if (name.empty() && !opener_.opens_backing()) TRY(check_no_partial_blocks());
  return {};
}

// The new metadata are complete before a region table names them.
Result<> VhdxImage::set_backing(const std::string& name, const std::string& format) {
  TRY(may_set_backing(name, format));
  const Metadata metadata = on_another(name, name.empty() ? "" : TRY(opener_.identity_of(name, format)));
  if (parent_) TRY(fill_partial_units());
  const LockGuard lock(mutex_);
  if (name.empty()) TRY(forget_bitmaps());
  if (!begin_writing() || !commit()) return fail("rebase '{}': flush", store_->name());
  const std::vector<uint8_t> bytes = TRY(make_metadata(metadata));
  const Region region{end_, bytes.size()};
  if (store_->truncate(end_) != Status::kOk) return fail("rebase '{}': {} bytes", store_->name(), end_);
  tail_is_clean_ = true;
  TRY(store_->write_all(region.offset, bytes));
  TRY(store_->flush_all());
  end_ = file_end_ = region.offset + region.size;
  TRY(name_regions({regions_.table, region}));
  metadata_ = TRY(read_metadata(*store_, region));
  return {};
}

Result<> VhdxImage::write_grown(const Metadata& metadata) {
  for (uint64_t unit = unit_count(); metadata_.leaves_blocks_allocated && unit < metadata.block_count(); ++unit) {
    const auto place = allocate();
    if (!place || !link(unit, place->offset)) {
      return fail("resize '{}' to {} bytes", store_->name(), metadata.disk_bytes);
    }
  }
  if (!commit()) return fail("resize '{}': flush", store_->name());
  TRY(store_->write_all(metadata.disk_bytes_at, as_bytes(metadata.disk_bytes)));
  return store_->flush_all();
}

Result<> VhdxImage::grow(uint64_t new_size) {
  Metadata metadata = metadata_;
  metadata.disk_bytes = align_up(new_size, metadata.logical_sector);
  TRY(check_nothing_below(metadata.disk_bytes));
  {
    const LockGuard lock(mutex_);
    if (geometry_.read_only) return fail("resize '{}': opened read-only", store_->name());
    if (metadata.disk_bytes > kLargestDisk) {
      return fail("resize '{}' to {} bytes: the limit is {}", store_->name(), new_size, kLargestDisk);
    }
    if (!begin_writing() || !commit()) return fail("resize '{}': flush", store_->name());
    if (metadata.entry_count() * 8 > regions_.table.size) TRY(move_table(metadata.entry_count()));
  }
  const LockGuard lock(mutex_);
  TRY(write_grown(metadata));
  metadata_ = metadata;
  geometry_.size = metadata.disk_bytes;
  return {};
}

}  // namespace bulkhead::block::vhdx
