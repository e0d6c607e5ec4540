// Internal snapshots of an image at rest. The new state is written behind the end of the file and taken into use by one
// write to the header, while the image is marked dirty; refcounts and flags are built anew then, as they are when an
// image is found dirty. So a power cut leaves the state before or the state after.
#include <algorithm>
#include <charconv>
#include <utility>

#include "block/format/big_endian.h"
#include "block/format/qcow2/count.h"

namespace bulkhead::block::qcow2 {
namespace {

constexpr size_t kFixedBytes = 40, kExtraBytes = 16, kMostExtraBytes = 1024, kMostNameBytes = 255;
constexpr uint64_t kSnapshotsField = 60;

}  // namespace

struct Qcow2Image::SnapshotEntry {
  std::vector<uint8_t> fixed = std::vector<uint8_t>(kFixedBytes), extra = std::vector<uint8_t>(kExtraBytes);
  std::string id, name;

  [[nodiscard]] uint64_t l1_offset() const { return load64(&fixed[0]); }
  [[nodiscard]] uint32_t l1_size() const { return load32(&fixed[8]); }
  // 0 when it is not stated: the disk's size has not changed since.
  [[nodiscard]] uint64_t disk_size() const { return extra.size() >= kExtraBytes ? load64(&extra[8]) : 0; }
  [[nodiscard]] bool is(const std::string& wanted) const { return name == wanted || id == wanted; }
  void append_to(std::vector<uint8_t>& table) const {
    table.insert(table.end(), fixed.begin(), fixed.end());
    table.insert(table.end(), extra.begin(), extra.end());
    table.insert(table.end(), id.begin(), id.end());
    table.insert(table.end(), name.begin(), name.end());
    table.resize(align_up(table.size(), 8));
  }
};

Result<std::vector<Qcow2Image::SnapshotEntry>> Qcow2Image::read_snapshots() {
  const uint64_t file_size = TRY(store_->size());
  std::vector<SnapshotEntry> entries;
  uint64_t at = header_.snapshots_offset;
  for (uint32_t i = 0; i < header_.snapshot_count; ++i) {
    SnapshotEntry entry;
    if (!range_fits(at, kFixedBytes, file_size)) {
      return fail("snapshot {} of '{}' at {:#x} lies outside the file", i, store_->name(), at);
    }
    TRY(store_->read_all(at, entry.fixed));
    const uint64_t extra = load32(&entry.fixed[36]), id = load32(&entry.fixed[12]) >> 16;
    const uint64_t name = load32(&entry.fixed[12]) & 0xFFFF;
    if (extra > kMostExtraBytes || !range_fits(at + kFixedBytes, extra + id + name, file_size)) {
      return fail("snapshot {} of '{}' at {:#x} has {} extra bytes", i, store_->name(), at, extra);
    }
    entry.extra.resize(extra);
    TRY(store_->read_all(at + kFixedBytes, entry.extra));
    std::vector<uint8_t> names(id + name);
    TRY(store_->read_all(at + kFixedBytes + extra, names));
    entry.id.assign(names.begin(), names.begin() + static_cast<ptrdiff_t>(id));
    entry.name.assign(names.begin() + static_cast<ptrdiff_t>(id), names.end());
    at = align_up(at + kFixedBytes + extra + id + name, 8);
    entries.push_back(std::move(entry));
  }
  return entries;
}

Result<std::vector<Snapshot>> Qcow2Image::list() {
  const LockGuard lock(mutex_);
  std::vector<Snapshot> found;
  for (const SnapshotEntry& entry : TRY(read_snapshots())) {
    const uint64_t size = entry.disk_size();
    found.push_back({entry.id, entry.name, size == 0 ? geometry_.size : size, load32(&entry.fixed[16])});
  }
  return found;
}

// All is on the disk, nothing is wrong, and nobody else is at work.
Result<> Qcow2Image::begin_snapshot_change() {
  if (geometry_.read_only) return fail("snapshot '{}': opened read-only", store_->name());
  if (header_.version < 3) return fail("snapshot '{}': needs version 3, convert it", store_->name());
  if (header_.external()) return fail("snapshot '{}': its data is in '{}'", store_->name(), header_.data_name);
  if (header_.bitmaps.count != 0 || tracks_) return fail("snapshot '{}': it has bitmaps; remove them", store_->name());
  if (in_flight_[0] + in_flight_[1] != 0) return fail("snapshot '{}': requests are under way", store_->name());
  if (!commit() || !commit()) return fail("snapshot '{}': tables cannot be written", store_->name());
  Count count;
  TRY(count_everything(count));
  if (count.report.errors != 0) return fail("snapshot '{}': {} errors; check it", store_->name(), count.report.errors);
  const uint64_t width = uint64_t{1} << header_.refcount_order;
  const uint64_t most = width >= 32 ? UINT32_MAX : (uint64_t{1} << width) - 1;
  for (uint64_t cluster = 0; cluster < count.uses.size(); ++cluster) {
    if (count.uses[cluster] < most) continue;
    return fail("snapshot '{}': refcounts of {} bits hold no more users of cluster {:#x}", store_->name(), width,
                cluster);
  }
  return write_incompatible(header_.incompatible | kDirty);
}

// Counts everything anew and gives back what nothing uses any more.
Result<> Qcow2Image::end_snapshot_change() {
  TRY(load_tables());
  Count count;
  TRY(count_everything(count));
  TRY(repair(count));
  if (count.report.left != 0) return fail("snapshot '{}': {} errors are left", store_->name(), count.report.left);
  Count after;
  TRY(count_everything(after));
  for (uint64_t first = 0, next = 0; first < after.uses.size(); first = next) {
    next = first + 1;
    if (after.uses[first] != 0) continue;
    while (next < after.uses.size() && after.uses[next] == 0) ++next;
    // A hint; the clusters are free with their old bytes too.
    (void)store_->punch(first << header_.cluster_bits, (next - first) << header_.cluster_bits);
  }
  return {};
}

Result<uint64_t> Qcow2Image::write_at_end(ByteSpan bytes) {
  const uint64_t at = align_up(TRY(store_->size()), header_.cluster_size());
  std::vector<uint8_t> whole(bytes.begin(), bytes.end());
  whole.resize(align_up(std::max<uint64_t>(whole.size(), 1), header_.cluster_size()));
  TRY(store_->write_all(at, whole));
  return at;
}

Result<> Qcow2Image::write_snapshots(const std::vector<SnapshotEntry>& entries) {
  std::vector<uint8_t> table, field(12);
  for (const SnapshotEntry& entry : entries) entry.append_to(table);
  const uint64_t at = entries.empty() ? 0 : TRY(write_at_end(table));
  TRY(store_->flush_all());
  store32(field.data(), static_cast<uint32_t>(entries.size()));
  store64(&field[4], at);
  TRY(store_->write_all(kSnapshotsField, field));
  TRY(store_->flush_all());
  header_.snapshot_count = static_cast<uint32_t>(entries.size());
  header_.snapshots_offset = at;
  return {};
}

Result<> Qcow2Image::create(const std::string& name, uint64_t seconds) {
  const LockGuard lock(mutex_);
  std::vector<SnapshotEntry> entries = TRY(read_snapshots());
  if (name.empty() || name.size() > kMostNameBytes) {
    return fail("snapshot '{}': a name has 1 to {} bytes", name, kMostNameBytes);
  }
  uint64_t id = 0;
  for (const SnapshotEntry& entry : entries) {
    if (entry.name == name) return fail("snapshot '{}' exists", name);
    uint64_t number = 0;
    std::from_chars(entry.id.data(), entry.id.data() + entry.id.size(), number);
    id = std::max(id, number);
  }
  if (entries.size() >= kMaxSnapshots) return fail("snapshot '{}': there are {}, the limit", name, entries.size());
  TRY(begin_snapshot_change());
  std::vector<uint8_t> l1(l1_.size() * 8);
  for (size_t i = 0; i < l1_.size(); ++i) store64(&l1[i * 8], l1_[i] & ~kCopied);
  SnapshotEntry entry{.id = std::to_string(id + 1), .name = name};
  store64(&entry.fixed[0], TRY(write_at_end(l1)));
  store32(&entry.fixed[8], header_.l1_size);
  store32(&entry.fixed[12], static_cast<uint32_t>(entry.id.size() << 16 | name.size()));
  store32(&entry.fixed[16], static_cast<uint32_t>(seconds));
  store32(&entry.fixed[36], kExtraBytes);
  store64(&entry.extra[8], geometry_.size);
  entries.push_back(std::move(entry));
  TRY(write_snapshots(entries));
  return end_snapshot_change();
}

Result<> Qcow2Image::remove(const std::string& name) {
  const LockGuard lock(mutex_);
  std::vector<SnapshotEntry> entries = TRY(read_snapshots());
  const auto found = std::ranges::find_if(entries, [&](const SnapshotEntry& entry) { return entry.is(name); });
  if (found == entries.end()) return fail("snapshot '{}': there is none of this name", name);
  TRY(begin_snapshot_change());
  entries.erase(found);
  TRY(write_snapshots(entries));
  return end_snapshot_change();
}

Result<> Qcow2Image::apply(const std::string& name) {
  const LockGuard lock(mutex_);
  const std::vector<SnapshotEntry> entries = TRY(read_snapshots());
  const auto found = std::ranges::find_if(entries, [&](const SnapshotEntry& entry) { return entry.is(name); });
  if (found == entries.end()) return fail("snapshot '{}': there is none of this name", name);
  const uint64_t size = found->disk_size() == 0 ? geometry_.size : found->disk_size();
  const uint64_t reach = header_.cluster_size() * header_.l2_entries(), entries_needed = (size + reach - 1) / reach;
  if (found->l1_size() < entries_needed || uint64_t{found->l1_size()} * 8 > kMaxL1Bytes || size > kLargestDisk) {
    return fail("snapshot '{}': L1 table of {} entries for a disk of {} bytes", name, found->l1_size(), size);
  }
  TRY(begin_snapshot_change());
  std::vector<uint8_t> l1(uint64_t{found->l1_size()} * 8), field(24);
  TRY(store_->read_all(found->l1_offset(), l1));
  const uint64_t at = TRY(write_at_end(l1));
  TRY(store_->flush_all());
  // Size, encryption, and the table stand side by side.
  store64(&field[0], size);
  store32(&field[8], std::to_underlying(header_.encryption));
  store32(&field[12], found->l1_size());
  store64(&field[16], at);
  TRY(store_->write_all(kSizeField, field));
  TRY(store_->flush_all());
  header_.size = size;
  header_.l1_size = found->l1_size();
  header_.l1_offset = at;
  geometry_.size = align_up(size, 512);
  return end_snapshot_change();
}

}  // namespace bulkhead::block::qcow2
