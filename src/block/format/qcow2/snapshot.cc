// Internal snapshots of an image at rest. Everything that changes (the disk's tables, where their flags do, the list of
// snapshots, all refcounts) is written anew behind the end of the file and taken into use by one write to the header's
// first sector. So a power cut leaves the state before or the state after, in both versions of the format.
#include <algorithm>
#include <charconv>

#include "block/format/big_endian.h"
#include "block/format/qcow2/count.h"

namespace bulkhead::block::qcow2 {
namespace {

constexpr size_t kFixedBytes = 40, kExtraBytes = 16, kMostExtraBytes = 1024, kMostNameBytes = 255;

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

// All is on the disk, nothing is wrong, nobody else is at work, and each cluster may get so many users more.
Result<> Qcow2Image::begin_snapshot_change(uint64_t more_users) {
  if (geometry_.read_only) return fail("snapshot '{}': opened read-only", store_->name());
  if (header_.external()) return fail("snapshot '{}': its data is in '{}'", store_->name(), header_.data_name);
  if (in_flight_[0] + in_flight_[1] != 0) return fail("snapshot '{}': requests are under way", store_->name());
  if (!commit() || !commit()) return fail("snapshot '{}': tables cannot be written", store_->name());
  Count count;
  TRY(count_everything(count));
  if (count.report.errors != 0) return fail("snapshot '{}': {} errors; check it", store_->name(), count.report.errors);
  const uint64_t width = uint64_t{1} << header_.refcount_order;
  const uint64_t most = width >= 32 ? UINT32_MAX : (uint64_t{1} << width) - 1;
  for (uint64_t cluster = 0; cluster < count.uses.size(); ++cluster) {
    if (count.uses[cluster] + more_users <= most) continue;
    return fail("snapshot '{}': refcounts of {} bits hold no more users of cluster {:#x}", store_->name(), width,
                cluster);
  }
  return {};
}

// The tables that are in use, in clusters that nothing on the disk names yet: their flags may be changed there.
Result<> Qcow2Image::copy_tables(Header& header) {
  std::vector<uint8_t> l1(l1_.size() * 8), l2(header_.cluster_size());
  for (size_t i = 0; i < l1_.size(); ++i) {
    if ((l1_[i] & kOffsetMask) == 0) continue;
    TRY(store_->read_all(l1_[i] & kOffsetMask, l2));
    store64(&l1[i * 8], TRY(write_at_end(l2)));
  }
  header.l1_offset = TRY(write_at_end(l1));
  return {};
}

Result<> Qcow2Image::take_into_use(const Header& header) {
  const Header before = header_;
  header_ = header;
  auto switched = count_and_switch();
  if (!switched) header_ = before;
  TRY(load_tables());
  free_hint_ = 1;
  packed_at_ = 0;
  if (!switched) return switched;
  geometry_.size = align_up(header_.size, 512);
  Count after;
  TRY(count_everything(after));
  if (after.report.errors != 0) return fail("snapshot '{}': {} errors are left", store_->name(), after.report.errors);
  for (uint64_t first = 0, next = 0; first < after.uses.size(); first = next) {
    next = first + 1;
    if (after.uses[first] != 0) continue;
    while (next < after.uses.size() && after.uses[next] == 0) ++next;
    // A hint; the clusters are free with their old bytes too.
    (void)store_->punch(first << header_.cluster_bits, (next - first) << header_.cluster_bits);
  }
  return {};
}

// Counts who is used by what the header in memory names. The flags come before the switch: of the tables that the disk
// uses until then, they only change where a snapshot's, whose flags nobody reads, are to become the disk's too.
Result<> Qcow2Image::count_and_switch() {
  TRY(load_tables());
  Count count;
  TRY(count_everything(count));
  TRY(repair_flags(count));
  return rebuild_refcounts(count);
}

Result<uint64_t> Qcow2Image::write_at_end(ByteSpan bytes) {
  const uint64_t at = align_up(TRY(store_->size()), header_.cluster_size());
  std::vector<uint8_t> whole(bytes.begin(), bytes.end());
  whole.resize(align_up(std::max<uint64_t>(whole.size(), 1), header_.cluster_size()));
  TRY(store_->write_all(at, whole));
  return at;
}

Result<> Qcow2Image::put_snapshots(const std::vector<SnapshotEntry>& entries, Header& header) {
  std::vector<uint8_t> table;
  for (const SnapshotEntry& entry : entries) entry.append_to(table);
  header.snapshot_count = static_cast<uint32_t>(entries.size());
  header.snapshots_offset = entries.empty() ? 0 : TRY(write_at_end(table));
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
  TRY(begin_snapshot_change(1));
  Header next = header_;
  TRY(copy_tables(next));
  std::vector<uint8_t> l1(l1_.size() * 8);
  TRY(store_->read_all(next.l1_offset, l1));
  SnapshotEntry entry{.id = std::to_string(id + 1), .name = name};
  store64(&entry.fixed[0], TRY(write_at_end(l1)));
  store32(&entry.fixed[8], header_.l1_size);
  store32(&entry.fixed[12], static_cast<uint32_t>(entry.id.size() << 16 | name.size()));
  store32(&entry.fixed[16], static_cast<uint32_t>(seconds));
  store32(&entry.fixed[36], kExtraBytes);
  store64(&entry.extra[8], geometry_.size);
  entries.push_back(std::move(entry));
  TRY(put_snapshots(entries, next));
  return take_into_use(next);
}

Result<> Qcow2Image::remove(const std::string& name) {
  const LockGuard lock(mutex_);
  std::vector<SnapshotEntry> entries = TRY(read_snapshots());
  const auto found = std::ranges::find_if(entries, [&](const SnapshotEntry& entry) { return entry.is(name); });
  if (found == entries.end()) return fail("snapshot '{}': there is none of this name", name);
  TRY(begin_snapshot_change(0));
  entries.erase(found);
  Header next = header_;
  TRY(copy_tables(next));
  TRY(put_snapshots(entries, next));
  return take_into_use(next);
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
  if (header_.bitmaps.count != 0 || tracks_) {
    return fail("snapshot '{}': '{}' has bitmaps, which would not know what changes; remove them", name,
                store_->name());
  }
  TRY(begin_snapshot_change(0));
  std::vector<uint8_t> l1(uint64_t{found->l1_size()} * 8);
  TRY(store_->read_all(found->l1_offset(), l1));
  Header next = header_;
  next.size = size;
  next.l1_size = found->l1_size();
  next.l1_offset = TRY(write_at_end(l1));
  return take_into_use(next);
}

}  // namespace bulkhead::block::qcow2
