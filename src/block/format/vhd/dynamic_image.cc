#include "block/format/vhd/dynamic_image.h"

#include <algorithm>

#include "block/format/big_endian.h"
#include "block/format/utf16.h"

namespace bulkhead::block::vhd {
namespace {

constexpr uint32_t kMostNameBytes = 4096;
// Where the data of new blocks begins: at a page of the host. The bitmap in front of it, of one sector mostly, would
// have every 4 KiB of the guest lie across two pages, each of which is read before a part of it is written.
constexpr uint64_t kDataAlignment = 4096, kLeastAligned = uint64_t{1} << 20;
static_assert(kDataAlignment <= kLeastBlockBytes, "check() takes what is less than a block for a gap");

bool overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size) {
  return a < b + b_size && b < a + a_size;
}

}  // namespace

DynamicImage::DynamicImage(std::unique_ptr<Store> store, Footer footer, Header header, Access access,
                           const ImageOpener& opener)
    : UnitImage(std::move(store), footer.disk_size(), header.block_bytes, access),
      opener_(opener),
      footer_(std::move(footer)),
      header_(std::move(header)) {}

DynamicImage::~DynamicImage() {
  if (geometry_.read_only) return;
  close();
  const LockGuard lock(mutex_);
  if (footer_at_ != end_) (void)write_last_footer();
}

Result<std::unique_ptr<Image>> DynamicImage::open(std::unique_ptr<Store> store, const Footer& footer, Access access,
                                                  const ImageOpener& opener) {
  const uint64_t file_size = TRY(store->size());
  if (!range_fits(footer.header_offset, kHeaderBytes, file_size)) {
    return fail("open '{}': dynamic header at {:#x} lies outside the file ({} bytes)", store->name(),
                footer.header_offset, file_size);
  }
  std::vector<uint8_t> bytes(kHeaderBytes);
  TRY(store->read_all(footer.header_offset, bytes));
  Header header = TRY(parse_header(bytes, store->name(), footer.header_offset, footer, file_size));
  std::vector<uint8_t> tail(kSector);
  TRY(store->read_all(file_size - kSector, tail));
  const auto last = parse_footer(tail, store->name(), file_size - kSector);
  const bool good = last && *last && (*last)->id == footer.id && (*last)->current_size == footer.current_size;
  std::unique_ptr<DynamicImage> image(new DynamicImage(std::move(store), footer, std::move(header), access, opener));
  if (footer.type == DiskType::kDifferencing) TRY(image->open_parent());
  TRY(image->begin(good));
  return image;
}

Result<> DynamicImage::open_parent() {
  const uint64_t file_size = TRY(store_->size());
  parent_name_ = from_windows_name(header_.parent_name);
  for (const ParentLocator& locator : header_.locators) {
    if (locator.platform != kRelativeName) continue;
    if (locator.size > kMostNameBytes || !range_fits(locator.offset, locator.size, file_size)) {
      return fail("open '{}': parent locator of {} bytes at {:#x}", store_->name(), locator.size, locator.offset);
    }
    std::vector<uint8_t> name(locator.size);
    TRY(store_->read_all(locator.offset, name));
    parent_name_ = from_windows_name(from_utf16(name, ByteOrder::kLittle));
  }
  if (parent_name_.empty()) return fail("open '{}': its parent has no name", store_->name());
  parent_ = TRY(opener_.open_backing(parent_name_, "vhd"));
  if (!parent_) return {};
  const std::string expected = to_text(header_.parent_id, GuidOrder::kAsWritten);
  if (const std::string found = parent_->info().identity; found != expected) {
    return fail("open '{}': the parent '{}' is {}, made for was {}", store_->name(), parent_name_, found, expected);
  }
  show_through(parent_.get(), 0);
  return {};
}

Result<> DynamicImage::begin(bool footer_is_good) {
  const LockGuard lock(mutex_);
  const uint64_t file_size = TRY(store_->size());
  end_ = file_size;
  if (geometry_.read_only) return {};
  uint64_t end = std::max(footer_.header_offset + kHeaderBytes, header_.table_offset + header_.table_bytes());
  for (const ParentLocator& locator : header_.locators) {
    if (locator.platform == 0 || !range_fits(locator.offset, locator.size, file_size)) continue;
    end = std::max(end, align_up(locator.offset + locator.size, kSector));
  }
  for (uint64_t unit = 0; unit < unit_count(); ++unit) {
    const auto entry = tables_.look(entry_at(unit));
    if (!entry) return fail("open '{}': the table at {:#x} cannot be read", store_->name(), entry_at(unit));
    const uint64_t begin = uint64_t{load32(*entry)} * kSector;
    if (load32(*entry) != kUnused && begin < file_size)
      end = std::max(end, begin + header_.bitmap_bytes() + unit_size_);
  }
  end_ = end;
  footer_at_ = end;
  if (footer_is_good) return {};
  // What a power cut left behind the last block belongs to nothing.
  if (store_->truncate(end_) != Status::kOk) return fail("resize '{}' to {} bytes", store_->name(), end_);
  tail_is_clean_ = true;
  if (!write_last_footer()) return fail("write '{}' at byte {}", store_->name(), end_);
  return store_->flush_all();
}

ImageInfo DynamicImage::info() const {
  ImageInfo info;
  info.format = "vhd";
  info.virtual_size = geometry_.size;
  info.identity = to_text(footer_.id, GuidOrder::kAsWritten);
  info.backing_name = parent_name_;
  const bool differs = footer_.type == DiskType::kDifferencing;
  if (differs) info.backing_format = "vhd";
  info.details = {{"subformat", differs ? "differencing" : "dynamic"},
                  {"block_size", std::to_string(header_.block_bytes)},
                  {"creator", footer_.creator},
                  {"id", info.identity}};
  return info;
}

Outcome<UnitImage::Unit> DynamicImage::find_unit(uint64_t unit) {
  const uint8_t* const entry = TRY(tables_.look(entry_at(unit)));
  const uint32_t sector = load32(entry);
  if (sector == kUnused) return Unit{};
  Unit found{UnitKind::kPartial, uint64_t{sector} * kSector + header_.bitmap_bytes()};
  const uint64_t bits = unit_size_ / kSector;
  for (uint64_t bit = 0; bit < bits; bit += kSector * 8) {
    const uint8_t* const bitmap = TRY(tables_.look(found.place - header_.bitmap_bytes() + bit / 8));
    const auto part = ByteSpan(bitmap, std::min(kSector, bits / 8 - bit / 8));
    if (!std::ranges::all_of(part, [](uint8_t byte) { return byte == 0xFF; })) return found;
  }
  found.kind = UnitKind::kData;
  return found;
}

bool DynamicImage::may_be_data(uint64_t place) const {
  const uint64_t before = header_.bitmap_bytes(), all = before + unit_size_;
  return place >= before + kSector && place < end_ &&
         !overlaps(place - before, all, footer_.header_offset, kHeaderBytes) &&
         !overlaps(place - before, all, header_.table_offset, header_.table_bytes());
}

Outcome<UnitImage::Place> DynamicImage::allocate() {
  if (!tail_is_clean_) TRY(done(store_->truncate(end_)));
  tail_is_clean_ = true;
  // Small blocks would pay for it with much of the 2 TiB that a table can name.
  const uint64_t alignment = unit_size_ >= kLeastAligned ? kDataAlignment : kSector;
  const uint64_t begin = align_up(end_ + header_.bitmap_bytes(), alignment) - header_.bitmap_bytes();
  if (begin / kSector >= kUnused) return std::unexpected(Status::kNoSpace);
  end_ = begin + header_.bitmap_bytes() + unit_size_;
  return Place{.offset = begin + header_.bitmap_bytes(), .clean = true};
}

Outcome<> DynamicImage::prepare(uint64_t place) {
  const std::vector<uint8_t> bitmap(header_.bitmap_bytes(), 0xFF);
  return done(store_->write(place - bitmap.size(), bitmap));
}

Outcome<> DynamicImage::link(uint64_t unit, uint64_t place) {
  uint8_t* const entry = TRY(tables_.change(entry_at(unit)));
  const uint64_t begin = place - header_.bitmap_bytes();
  if (load32(entry) == begin / kSector) {
    // A block that had some of its sectors only has all of them now.
    tables_.add(begin, header_.bitmap_bytes(), 0xFF);
    return {};
  }
  store32(entry, static_cast<uint32_t>(begin / kSector));
  return {};
}

Outcome<> DynamicImage::read_special(const Unit& unit, uint64_t guest, MutableByteSpan bytes) {
  if (unit.kind != UnitKind::kPartial) return corrupt("packed unit", guest, unit.place);
  std::vector<uint8_t> bitmap(header_.bitmap_bytes());
  {
    const LockGuard lock(mutex_);
    for (uint64_t at = 0; at < bitmap.size(); at += kSector) {
      const uint8_t* const sector = TRY(tables_.look(unit.place - bitmap.size() + at));
      std::memcpy(&bitmap[at], sector, kSector);
    }
  }
  while (!bytes.empty()) {
    const uint64_t within = guest % unit_size_, first = within / kSector;
    const auto here = [&](uint64_t sector) { return (bitmap[sector / 8] >> (7 - sector % 8) & 1) != 0; };
    uint64_t last = first + 1;
    while (last * kSector - within < bytes.size() && here(last) == here(first)) ++last;
    const uint64_t size = std::min<uint64_t>(bytes.size(), last * kSector - within);
    if (here(first)) {
      TRY(done(store_->read(unit.place + within, bytes.first(size))));
    } else {
      TRY(read_backing(guest, bytes.first(size)));
    }
    guest += size;
    bytes = bytes.subspan(size);
  }
  return {};
}

// With the lock, so that no block is put where the footer goes.
Outcome<> DynamicImage::write_last_footer() {
  TRY(done(store_->write(end_, make_footer(footer_))));
  footer_at_ = end_;
  return {};
}

Outcome<> DynamicImage::write_tables(const std::vector<TableSectors::Run>& runs) {
  TRY(UnitImage::write_tables(runs));
  const LockGuard lock(mutex_);
  if (footer_at_ == end_) return {};
  return write_last_footer();
}

Result<CheckReport> DynamicImage::check(Repair) {
  CheckReport report;
  const LockGuard lock(mutex_);
  if (!geometry_.read_only && !commit()) return fail("check '{}': flush", store_->name());
  const uint64_t file_size = TRY(store_->size());
  uint64_t used = 0;
  TRY(check_units(report, header_.bitmap_bytes(), file_size, used));
  std::vector<uint8_t> bytes(kSector);
  for (const uint64_t at : {uint64_t{0}, file_size - kSector}) {
    TRY(store_->read_all(at, bytes));
    const auto footer = parse_footer(bytes, store_->name(), at);
    if (footer && *footer && (*footer)->id == footer_.id && (*footer)->current_size == footer_.current_size) continue;
    ++report.errors;
    ++report.left;
    report.say(fmt::format("the footer at {:#x} is damaged", at));
  }
  const uint64_t all = used + header_.table_bytes() + 2 * kSector + kHeaderBytes;
  const uint64_t block = header_.bitmap_bytes() + unit_size_;
  report.leaks = file_size > all ? (file_size - all) / block : 0;
  return report;
}

// The new table is complete before the header names it; one sector of the header changes.
Result<> DynamicImage::move_table(uint64_t entries) {
  Header header = header_;
  header.table_offset = end_;
  header.entries = static_cast<uint32_t>(entries);
  std::vector<uint8_t> table(header.table_bytes(), 0xFF);
  for (uint64_t unit = 0; unit < unit_count(); ++unit) {
    const auto entry = tables_.look(entry_at(unit));
    if (!entry) return fail("resize '{}': the table at {:#x} cannot be read", store_->name(), entry_at(unit));
    std::memcpy(&table[unit * 4], *entry, 4);
  }
  TRY(store_->write_all(header.table_offset, table));
  TRY(store_->flush_all());
  TRY(store_->write_all(footer_.header_offset, make_header(header)));
  TRY(store_->flush_all());
  header_ = std::move(header);
  end_ += table.size();
  return {};
}

Result<> DynamicImage::may_set_backing(const std::string& name, const std::string& format) {
  if (geometry_.read_only) return fail("rebase '{}': opened read-only", store_->name());
  if (name.empty()) return {};
  if (format != "vhd") return fail("a VHD image's backing file must be a VHD image, not {}", format);
  Header header = header_;
  TRY_IN(fmt::format("rebase '{}'", store_->name()), name_parent(header, name, info().identity));
  return {};
}

// A new header behind everything else; one sector, the first footer, makes it count.
Result<> DynamicImage::set_backing(const std::string& name, const std::string& format) {
  TRY(may_set_backing(name, format));
  Header header = header_;
  header.parent_id = {};
  header.parent_timestamp = 0;
  header.parent_name.clear();
  header.locators = {};
  std::vector<uint8_t> locator;
  if (!name.empty()) locator = TRY(name_parent(header, name, TRY(opener_.identity_of(name, format))));
  // What an image without a parent lacks of a block shows zeroes, and has to go on so. One that was opened alone does
  // not see what it shows.
  if (parent_ || (opener_.opens_backing() && !name.empty())) TRY(fill_partial_units());
  const LockGuard lock(mutex_);
  if (!commit()) return fail("rebase '{}': flush", store_->name());
  if (store_->truncate(end_) != Status::kOk) return fail("rebase '{}': {} bytes", store_->name(), end_);
  tail_is_clean_ = true;
  Footer footer = footer_;
  footer.header_offset = end_;
  footer.type = name.empty() ? DiskType::kDynamic : DiskType::kDifferencing;
  if (!locator.empty()) {
    header.locators[0].offset = end_ + kHeaderBytes;
    TRY(store_->write_all(header.locators[0].offset, locator));
  }
  TRY(store_->write_all(end_, make_header(header)));
  TRY(store_->flush_all());
  TRY(store_->write_all(0, make_footer(footer)));
  TRY(store_->flush_all());
  footer_ = std::move(footer);
  header_ = std::move(header);
  parent_name_ = name;
  end_ += kHeaderBytes + locator.size();
  if (!write_last_footer()) return fail("write '{}' at byte {}", store_->name(), end_);
  return store_->flush_all();
}

Result<> DynamicImage::grow(uint64_t new_size) {
  if (new_size > kLargestDisk)
    return fail("resize '{}' to {} bytes: the limit is {}", store_->name(), new_size, kLargestDisk);
  TRY(check_nothing_below(align_up(new_size, kSector)));
  {
    const LockGuard lock(mutex_);
    if (!commit()) return fail("resize '{}': flush", store_->name());
    const uint64_t entries = (align_up(new_size, kSector) + unit_size_ - 1) / unit_size_;
    if (entries > header_.entries) {
      if (store_->truncate(end_) != Status::kOk) return fail("resize '{}' to {} bytes", store_->name(), end_);
      tail_is_clean_ = true;
      TRY(move_table(entries));
    }
  }
  const LockGuard lock(mutex_);
  footer_.current_size = align_up(new_size, kSector);
  // Whoever takes the geometry for the size would not see it grow.
  footer_.creator = "win ";
  set_geometry(footer_);
  if (!write_last_footer()) return fail("write '{}' at byte {}", store_->name(), end_);
  TRY(store_->write_all(0, make_footer(footer_)));
  TRY(store_->flush_all());
  geometry_.size = footer_.current_size;
  return {};
}

}  // namespace bulkhead::block::vhd
