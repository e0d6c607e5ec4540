// Persistent bitmaps. Those that are to be kept up to date are brought into memory when the image is opened for
// writing, and marked as being in use on the disk until it is closed: then all of them are written to new clusters, and
// one write of the header's first sector takes them into use. So after a crash they count as lost, and never as wrong.
// Source: QEMU's docs/interop/qcow2, "Bitmaps".
#include "block/format/qcow2/bitmaps.h"

#include <algorithm>

#include "block/format/big_endian.h"
#include "block/format/qcow2/count.h"

namespace bulkhead::block::qcow2 {
namespace {

constexpr size_t kEntryBytes = 24, kInUse = 1, kAutomatic = 2, kMostNameBytes = 1023;
constexpr uint32_t kFlagsAt = 12;
constexpr uint8_t kDirtyTracking = 1;
constexpr uint64_t kTableReserved = 0xFF000000000001FE, kAllOnes = 1;

}  // namespace

uint64_t BitmapEntry::bits_for(uint64_t disk_size) const {
  return (disk_size >> granularity_bits) + ((disk_size & ((uint64_t{1} << granularity_bits) - 1)) != 0);
}

void BitmapEntry::resize(uint64_t disk_size) {
  bit_count = bits_for(disk_size);
  bits.resize(bytes_for(disk_size));
  if (bit_count % 8 != 0) bits.back() &= static_cast<uint8_t>((1u << bit_count % 8) - 1);
}

void BitmapEntry::note(uint64_t offset, uint64_t size) {
  if (size == 0) return;
  const uint64_t last = (offset + size - 1) >> granularity_bits;
  for (uint64_t bit = offset >> granularity_bits; bit <= last && bit < bit_count; ++bit) {
    bits[bit / 8] |= static_cast<uint8_t>(1u << bit % 8);
  }
}

Result<std::vector<BitmapEntry>> Qcow2Image::read_bitmaps() {
  const uint64_t file_size = TRY(store_->size());
  std::vector<BitmapEntry> entries;
  std::vector<uint8_t> directory(header_.bitmaps.directory_size);
  TRY(store_->read_all(header_.bitmaps.directory_offset, directory));
  size_t at = 0;
  uint64_t entries_together = 0;
  for (uint32_t i = 0; i < header_.bitmaps.count; ++i) {
    if (!range_fits(at, kEntryBytes, directory.size())) return fail("bitmap {} lies outside its directory", i);
    const uint8_t* const from = &directory[at];
    BitmapEntry entry{.table_offset = load64(from),
                      .table_size = load32(from + 8),
                      .flags = load32(from + kFlagsAt),
                      .flags_at = header_.bitmaps.directory_offset + at + kFlagsAt,
                      .granularity_bits = from[17]};
    const uint64_t name_size = from[18] << 8 | from[19], extra = load32(from + 20);
    if (from[16] != kDirtyTracking || extra != 0 || entry.granularity_bits < 9 || entry.granularity_bits > 31 ||
        name_size == 0 || name_size > kMostNameBytes || !range_fits(at + kEntryBytes, name_size, directory.size())) {
      return fail("bitmap {}: type {}, granularity 2^{}, name of {} bytes, {} bytes more", i, from[16],
                  entry.granularity_bits, name_size, extra);
    }
    const uint64_t clusters = align_up(entry.bytes_for(geometry_.size), header_.cluster_size()) >> header_.cluster_bits;
    entries_together += entry.table_size;
    const bool lost = (entry.flags & kInUse) != 0;
    if ((!lost && entry.table_size != clusters) || entries_together > kLargestBitmap / 8 ||
        (entry.table_offset & (header_.cluster_size() - 1)) != 0 ||
        !range_fits(entry.table_offset, uint64_t{entry.table_size} * 8, file_size)) {
      return fail("bitmap {}: table of {} entries at {:#x}", i, entry.table_size, entry.table_offset);
    }
    entry.name.assign(reinterpret_cast<const char*>(from + kEntryBytes), name_size);
    at = align_up(at + kEntryBytes + name_size, 8);
    entries.push_back(std::move(entry));
  }
  return entries;
}

Result<std::vector<uint64_t>> Qcow2Image::read_bitmap_table(const BitmapEntry& entry) {
  std::vector<uint8_t> bytes(uint64_t{entry.table_size} * 8);
  TRY(store_->read_all(entry.table_offset, bytes));
  std::vector<uint64_t> table(entry.table_size);
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = load64(&bytes[i * 8]);
    const uint64_t offset = table[i] & kOffsetMask;
    if ((table[i] & kTableReserved) != 0 || (offset != 0 && (table[i] & kAllOnes) != 0) ||
        (offset & (header_.cluster_size() - 1)) != 0) {
      return fail("bitmap '{}': table entry {} at {:#x}: {:#x}", entry.name, i, entry.table_offset, table[i]);
    }
  }
  return table;
}

Result<> Qcow2Image::load_bitmap(BitmapEntry& entry) {
  const uint64_t size = entry.bytes_for(geometry_.size), cluster = header_.cluster_size();
  if (size > kLargestBitmap) return fail("bitmap '{}' has {} bytes, {} is the most", entry.name, size, kLargestBitmap);
  const std::vector<uint64_t> table = TRY(read_bitmap_table(entry));
  entry.bits.assign(size, 0);
  for (size_t i = 0; i < table.size(); ++i) {
    const MutableByteSpan part =
        MutableByteSpan(entry.bits).subspan(i * cluster, std::min(cluster, size - i * cluster));
    if ((table[i] & kOffsetMask) != 0) TRY(store_->read_all(table[i] & kOffsetMask, part));
    if (table[i] == kAllOnes) std::ranges::fill(part, uint8_t{0xFF});
  }
  entry.resize(geometry_.size);
  entry.loaded = true;
  return {};
}

// Before anything is written: from here on, what is on the disk is no longer what is so.
Result<> Qcow2Image::take_bitmaps() {
  const LockGuard lock(mutex_);
  auto entries = read_bitmaps();
  if (!entries) {
    log::warning("image '{}': {}; its bitmaps are lost", store_->name(), entries.error().message);
    return forget_bitmaps();
  }
  uint64_t memory = 0;
  bool changed = false;
  for (BitmapEntry& entry : *entries) {
    if ((entry.flags & kAutomatic) == 0 || (entry.flags & kInUse) != 0) continue;
    memory += entry.bytes_for(geometry_.size);
    if (memory <= kLargestBitmap) {
      if (auto loaded = load_bitmap(entry); !loaded) {
        log::warning("image '{}': {}; it is lost", store_->name(), loaded.error().message);
      }
    }
    entry.flags |= kInUse;
    std::vector<uint8_t> field(4);
    store32(field.data(), entry.flags);
    TRY(store_->write_all(entry.flags_at, field));
    changed = true;
  }
  if (changed) TRY(store_->flush_all());
  const LockGuard bitmaps_lock(bitmaps_mutex_);
  bitmaps_ = std::move(*entries);
  tracks_ = std::ranges::any_of(bitmaps_, &BitmapEntry::loaded);
  return {};
}

// Whoever knows bitmaps takes them for lost then.
Result<> Qcow2Image::forget_bitmaps() {
  header_.autoclear &= ~kAutoclearBitmaps;
  TRY(write_autoclear());
  header_.bitmaps = {};
  return {};
}

void Qcow2Image::track(uint64_t offset, uint64_t size) {
  if (!tracks_.load(std::memory_order_relaxed)) return;
  const LockGuard lock(bitmaps_mutex_);
  for (BitmapEntry& entry : bitmaps_) {
    if (entry.loaded) entry.note(offset, size);
  }
}

// A run of clusters in one piece, filled; counted when the next commit has ended.
Outcome<uint64_t> Qcow2Image::write_run(ByteSpan bytes) {
  const uint64_t wanted = align_up(bytes.size(), header_.cluster_size()) >> header_.cluster_bits;
  const ClusterRange place = TRY(allocate_run(wanted));
  std::vector<uint8_t> whole(bytes.begin(), bytes.end());
  whole.resize(wanted << header_.cluster_bits);
  TRY(done(store_->write(place.first << header_.cluster_bits, whole)));
  return place.first << header_.cluster_bits;
}

Outcome<> Qcow2Image::write_bitmap(BitmapEntry& entry) {
  const uint64_t cluster = header_.cluster_size();
  std::vector<uint8_t> table(align_up(std::max<size_t>(entry.bits.size(), 1), cluster) / cluster * 8);
  for (uint64_t at = 0; at < entry.bits.size(); at += cluster) {
    const ByteSpan part = ByteSpan(entry.bits).subspan(at, std::min<uint64_t>(cluster, entry.bits.size() - at));
    if (std::ranges::all_of(part, [](uint8_t byte) { return byte == 0; })) continue;
    store64(&table[at / cluster * 8], TRY(write_run(part)));
  }
  entry.table_size = static_cast<uint32_t>(table.size() / 8);
  entry.table_offset = TRY(write_run(table));
  entry.flags &= ~uint32_t{kInUse};
  return {};
}

// What the directory on the disk names; of one that is kept as it is, only the directory's own clusters.
std::vector<uint64_t> Qcow2Image::clusters_of_bitmaps(const std::vector<BitmapEntry>& entries) {
  std::vector<uint64_t> clusters;
  const auto add = [&](uint64_t offset, uint64_t size) {
    for (uint64_t at = 0; at < size; at += header_.cluster_size())
      clusters.push_back((offset + at) >> header_.cluster_bits);
  };
  add(header_.bitmaps.directory_offset, header_.bitmaps.directory_size);
  for (const BitmapEntry& entry : entries) {
    if (entry.table_offset == 0) continue;
    if (const auto table = read_bitmap_table(entry)) {
      for (const uint64_t one : *table) {
        if ((one & kOffsetMask) != 0) add(one & kOffsetMask, 1);
      }
    }
    add(entry.table_offset, uint64_t{entry.table_size} * 8);
  }
  return clusters;
}

// With nothing under way. What was there before is given back when the header no longer names it.
Result<> Qcow2Image::write_bitmaps(std::vector<BitmapEntry>& entries, const std::vector<BitmapEntry>& gone,
                                   uint64_t disk_size) {
  std::vector<BitmapEntry> old = gone;
  std::vector<uint8_t> directory;
  for (BitmapEntry& entry : entries) {
    if (entry.loaded) {
      if (entry.table_offset != 0) old.push_back({.table_offset = entry.table_offset, .table_size = entry.table_size});
      if (!write_bitmap(entry)) return fail("bitmap '{}' of '{}' cannot be written", entry.name, store_->name());
    }
    const size_t at = directory.size();
    directory.resize(align_up(at + kEntryBytes + entry.name.size(), 8));
    store64(&directory[at], entry.table_offset);
    store32(&directory[at + 8], entry.table_size);
    store32(&directory[at + kFlagsAt], entry.flags);
    directory[at + 16] = kDirtyTracking;
    directory[at + 17] = entry.granularity_bits;
    directory[at + 18] = static_cast<uint8_t>(entry.name.size() >> 8);
    directory[at + 19] = static_cast<uint8_t>(entry.name.size());
    std::memcpy(&directory[at + kEntryBytes], entry.name.data(), entry.name.size());
  }
  const std::vector<uint64_t> released = clusters_of_bitmaps(old);
  Header header = header_;
  header.size = disk_size;
  header.bitmaps = {.count = static_cast<uint32_t>(entries.size()), .directory_size = directory.size()};
  if (!entries.empty()) {
    const auto place = write_run(directory);
    if (!place) return fail("the bitmap directory of '{}' cannot be written", store_->name());
    header.bitmaps.directory_offset = *place;
  }
  header.autoclear = (header.autoclear & ~kAutoclearBitmaps) | (entries.empty() ? 0 : kAutoclearBitmaps);
  const std::vector<uint8_t> sector = TRY(first_sector(header));
  if (!commit()) return fail("bitmaps of '{}': flush", store_->name());
  TRY(store_->write_all(0, sector));
  TRY(store_->flush_all());
  header_ = std::move(header);
  released_.insert(released_.end(), released.begin(), released.end());
  return {};
}

// Those that are in use count as lost on the disk, whatever its size, until the image is closed. The others have to fit
// the size at every moment.
Result<std::vector<BitmapEntry>> Qcow2Image::resized_bitmaps(uint64_t size) {
  const LockGuard lock(mutex_);
  const LockGuard bitmaps_lock(bitmaps_mutex_);
  std::vector<BitmapEntry> entries;
  uint64_t memory = 0;
  bool changes = false;
  for (const BitmapEntry& entry : bitmaps_) {
    const bool known_on_disk = !entry.loaded && (entry.flags & kInUse) == 0;
    if (entry.loaded || known_on_disk) memory += entry.bytes_for(size);
    if (memory > kLargestBitmap) {
      return fail("resize '{}': its bitmaps would have more than {} bytes, remove bitmap '{}'", store_->name(),
                  kLargestBitmap, entry.name);
    }
    if (entry.table_offset == 0) continue;
    entries.push_back({.table_offset = entry.table_offset,
                       .table_size = entry.table_size,
                       .flags = entry.flags,
                       .granularity_bits = entry.granularity_bits,
                       .name = entry.name});
    if (!known_on_disk) continue;
    TRY_IN(fmt::format("resize '{}'", store_->name()), load_bitmap(entries.back()));
    entries.back().resize(size);
    changes = true;
  }
  if (!changes) entries.clear();
  return entries;
}

Result<> Qcow2Image::write_size(uint64_t size, std::vector<BitmapEntry>& entries) {
  const LockGuard lock(mutex_);
  if (entries.empty()) {
    std::vector<uint8_t> field(8);
    store64(field.data(), size);
    TRY(store_->write_all(kSizeField, field));
    TRY(store_->flush_all());
    header_.size = size;
  } else {
    TRY(write_bitmaps(entries, {}, size));
  }
  const LockGuard bitmaps_lock(bitmaps_mutex_);
  for (BitmapEntry& entry : bitmaps_) {
    if (entry.loaded) entry.resize(size);
    const auto written = std::ranges::find(entries, entry.name, &BitmapEntry::name);
    if (written == entries.end()) continue;
    entry.table_offset = written->table_offset;
    entry.table_size = written->table_size;
  }
  return {};
}

// As the image is closed.
void Qcow2Image::store_bitmaps() {
  std::vector<BitmapEntry> entries;
  {
    const LockGuard lock(bitmaps_mutex_);
    if (!tracks_) return;
    entries = std::move(bitmaps_);
    tracks_ = false;
  }
  if (auto written = write_bitmaps(entries, {}, header_.size); !written) {
    log::error("image '{}': {}; its bitmaps are lost", store_->name(), written.error().message);
  }
}

Result<std::vector<Bitmap>> Qcow2Image::list_bitmaps() {
  std::vector<BitmapEntry> entries;
  {
    const LockGuard lock(bitmaps_mutex_);
    entries = bitmaps_;
  }
  if (geometry_.read_only && header_.bitmaps.count != 0) {
    const LockGuard lock(mutex_);
    entries = TRY_IN(fmt::format("bitmaps of '{}'", store_->name()), read_bitmaps());
  }
  std::vector<Bitmap> found;
  for (const BitmapEntry& entry : entries) {
    found.push_back({.name = entry.name,
                     .granularity = uint64_t{1} << entry.granularity_bits,
                     .automatic = (entry.flags & kAutomatic) != 0,
                     .known = entry.loaded || (entry.flags & kInUse) == 0});
  }
  return found;
}

Result<> Qcow2Image::add_bitmap(const std::string& name, uint64_t granularity) {
  if (geometry_.read_only) return fail("bitmap '{}': '{}' is opened read-only", name, store_->name());
  if (header_.version < 3) return fail("bitmap '{}': '{}' is a version 2 image, convert it", name, store_->name());
  if (name.empty() || name.size() > kMostNameBytes)
    return fail("bitmap '{}': a name has 1 to {} bytes", name, kMostNameBytes);
  if (!std::has_single_bit(granularity) || granularity < 512 || granularity > uint64_t{1} << 31) {
    return fail("bitmap '{}': granularity {}; a power of two from 512 to 2147483648", name, granularity);
  }
  BitmapEntry entry{.flags = kAutomatic | kInUse,
                    .granularity_bits = static_cast<uint8_t>(std::countr_zero(granularity)),
                    .name = name,
                    .loaded = true};
  entry.resize(geometry_.size);
  const LockGuard lock(bitmaps_mutex_);
  uint64_t memory = entry.bits.size(), directory = 0;
  for (const BitmapEntry& other : bitmaps_) {
    if (other.name == name) return fail("bitmap '{}' exists in '{}'", name, store_->name());
    memory += other.bits.size();
    directory += kEntryBytes + kMostNameBytes;
  }
  if (memory > kLargestBitmap || directory > kLargestBitmapDirectory / 2) {
    return fail("bitmap '{}': {} bytes of bitmaps are too many", name, memory);
  }
  bitmaps_.push_back(std::move(entry));
  tracks_ = true;
  return {};
}

Result<> Qcow2Image::remove_bitmap(const std::string& name) {
  const LockGuard lock(mutex_);
  std::vector<BitmapEntry> entries, gone;
  {
    const LockGuard bitmaps_lock(bitmaps_mutex_);
    const auto found = std::ranges::find(bitmaps_, name, &BitmapEntry::name);
    if (found == bitmaps_.end()) return fail("bitmap '{}': '{}' has none of this name", name, store_->name());
    if (geometry_.read_only) return fail("bitmap '{}': '{}' is opened read-only", name, store_->name());
    gone.push_back(*found);
    bitmaps_.erase(found);
    tracks_ = std::ranges::any_of(bitmaps_, &BitmapEntry::loaded);
    // On the disk, the others stay what they were: in use.
    for (const BitmapEntry& entry : bitmaps_) {
      if (entry.table_offset == 0) continue;
      entries.push_back(entry);
      entries.back().loaded = false;
    }
  }
  return gone.front().table_offset == 0 ? Result<>() : write_bitmaps(entries, gone, header_.size);
}

// With its bits.
Result<BitmapEntry> Qcow2Image::find_bitmap(const std::string& name) {
  std::vector<BitmapEntry> entries;
  const LockGuard lock(mutex_);
  if (geometry_.read_only) {
    if (header_.bitmaps.count != 0) entries = TRY(read_bitmaps());
  } else {
    const LockGuard bitmaps_lock(bitmaps_mutex_);
    entries = bitmaps_;
  }
  const auto found = std::ranges::find(entries, name, &BitmapEntry::name);
  if (found == entries.end()) return fail("bitmap '{}': '{}' has none of this name", name, store_->name());
  if (!found->loaded && (found->flags & kInUse) != 0) return fail("bitmap '{}' of '{}' is lost", name, store_->name());
  if (!found->loaded) TRY(load_bitmap(*found));
  return std::move(*found);
}

Result<> Qcow2Image::each_changed(const std::string& name, const Run& run) {
  const BitmapEntry found = TRY(find_bitmap(name));
  const std::vector<uint8_t>& bits = found.bits;
  const uint32_t shift = found.granularity_bits;
  const auto is_set = [&](uint64_t bit) { return bit / 8 < bits.size() && (bits[bit / 8] >> bit % 8 & 1) != 0; };
  for (uint64_t bit = 0, end = 0; bit / 8 < bits.size(); bit = end) {
    end = bit + (bit % 8 == 0 && bits[bit / 8] == 0 ? 8 : 1);
    if (!is_set(bit)) continue;
    while (is_set(end)) ++end;
    const uint64_t offset = bit << shift;
    if (offset < geometry_.size) run(offset, std::min(end << shift, geometry_.size) - offset);
  }
  return {};
}

Result<> Qcow2Image::note_changed(const std::string& name, uint64_t offset, uint64_t size) {
  const LockGuard lock(bitmaps_mutex_);
  const auto found = std::ranges::find(bitmaps_, name, &BitmapEntry::name);
  if (found == bitmaps_.end() || !found->loaded) return fail("bitmap '{}' of '{}' is lost", name, store_->name());
  found->note(offset, size);
  return {};
}

// For check().
Result<> Qcow2Image::count_bitmaps(Count& count) {
  if (header_.bitmaps.count == 0) return {};
  const auto entries = read_bitmaps();
  if (!entries) {
    count.error(entries.error().message);
    return {};
  }
  for (const uint64_t cluster : clusters_of_bitmaps(*entries)) count.add(cluster, 1, "bitmap");
  return {};
}

}  // namespace bulkhead::block::qcow2
