// Counts who uses each host cluster and compares with the refcounts and flags that the image states. The work is
// bounded by what the file holds: an L2 table is read once however often it is named, and a hole is not read at all.
#include <algorithm>

#include "block/format/big_endian.h"
#include "block/format/qcow2/count.h"

namespace bulkhead::block::qcow2 {

Result<> Qcow2Image::count_l1(Count& count, uint64_t offset, uint64_t entries, bool active) {
  const uint32_t bits = header_.cluster_bits;
  const uint64_t file_size = uint64_t{count.uses.size()} << bits;
  if (entries * 8 > kMaxL1Bytes || (offset & (header_.cluster_size() - 1)) != 0 ||
      !range_fits(offset, entries * 8, file_size)) {
    count.error(
        fmt::format("L1 table of {} entries at {:#x} lies outside the file or is not aligned", entries, offset));
    return {};
  }
  // Tables that do not share clusters are together no larger than the file.
  count.l1_bytes += entries * 8;
  if (count.l1_bytes > file_size || count.l1_bytes / 8 > Count::kL2Limit) {
    return fail("check '{}': L1 tables of {} bytes together", store_->name(), count.l1_bytes);
  }
  std::vector<uint8_t> l1(entries * 8);
  TRY(store_->read_all(offset, l1));
  for (uint64_t c = offset >> bits; c < (align_up(offset + l1.size(), header_.cluster_size()) >> bits); ++c) {
    count.add(c, 1, "L1 table");
  }
  for (uint64_t i = 0; i < entries; ++i) {
    const uint64_t entry = load64(&l1[i * 8]), table_offset = entry & kOffsetMask;
    if (table_offset == 0) continue;
    if ((table_offset & (header_.cluster_size() - 1)) != 0) {
      count.error(fmt::format("L1 entry {} at {:#x}: not aligned: {:#x}", i, offset, entry));
      continue;
    }
    count.add(table_offset >> bits, 1, "L2 table");
    if (table_offset >> bits >= count.uses.size()) continue;
    count.l2_tables.push_back({table_offset >> bits, active ? 1u : 0u});
    if (active && ((entry & kCopied) != 0) != count.counted_once[table_offset >> bits]) {
      count.flags_wrong = true;
      count.error(fmt::format("L1 entry {}: flag 'copied' is wrong: {:#x}", i, entry));
    }
  }
  return {};
}

// Whether the first-level table says that the table is the one of that place on the guest's disk.
bool Qcow2Image::is_place_in_data_file(uint64_t l2_offset, uint64_t index, const Leaf& leaf) const {
  const uint64_t host = leaf.host(), l1 = l1_index(host);
  return l2_index(host) == index && l1 < l1_.size() && (l1_[l1] & kOffsetMask) == l2_offset;
}

Result<> Qcow2Image::count_l2_tables(Count& count) {
  const uint32_t bits = header_.cluster_bits;
  std::vector<Count::L2Use>& tables = count.l2_tables;
  std::ranges::sort(tables, {}, &Count::L2Use::order);
  std::vector<uint8_t> l2(header_.cluster_size());
  const uint64_t reach = header_.cluster_size() * header_.l2_entries();
  for (size_t i = 0, next = 0; i < tables.size(); i = next) {
    while (next < tables.size() && tables[next].cluster == tables[i].cluster) ++next;
    tell(i * reach, tables.size() * reach);
    const uint64_t offset = uint64_t{tables[i].cluster} << bits, times = next - i;
    const bool active = tables[next - 1].active != 0;
    if (const StoreExtent extent = store_->extent(offset); extent.hole && extent.size >= l2.size()) continue;
    TRY(store_->read_all(offset, l2));
    for (uint64_t j = 0; j < header_.l2_entries(); ++j) {
      const Leaf leaf = leaf_at(l2, j);
      const auto error = [&](std::string_view what) {
        count.error(fmt::format("L2 entry {} at {:#x}: {}: {:#x}", j, offset, what, leaf.entry));
      };
      if (const char* const fault = fault_of(leaf)) error(fault);
      const ClusterRange clusters = clusters_of(leaf);
      if (!leaf.compressed() && (leaf.host() & (header_.cluster_size() - 1)) != 0) {
        error("not aligned");
        continue;
      }
      for (uint64_t c = 0; c < clusters.count; ++c) count.add(clusters.first + c, times, "data cluster");
      if (!active || !has_host(leaf)) continue;
      if (header_.external() ? !is_place_in_data_file(offset, j, leaf) : clusters.first >= count.uses.size()) {
        if (header_.external()) error("cluster of the data file that is not where the guest's is");
        continue;
      }
      if (((leaf.entry & kCopied) != 0) == (header_.external() || count.counted_once[clusters.first])) continue;
      count.flags_wrong = true;
      error("flag 'copied' is wrong");
    }
  }
  return {};
}

Result<> Qcow2Image::count_snapshots(Count& count) {
  const uint64_t file_size = uint64_t{count.uses.size()} << header_.cluster_bits;
  uint64_t at = header_.snapshots_offset;
  for (uint32_t i = 0; i < header_.snapshot_count; ++i) {
    std::vector<uint8_t> entry(40);
    if (!range_fits(at, entry.size(), file_size)) {
      return fail("check '{}': snapshot {} at {:#x} lies outside the file", store_->name(), i, at);
    }
    TRY(store_->read_all(at, entry));
    const uint64_t names = uint64_t{load32(&entry[12]) >> 16} + (load32(&entry[12]) & 0xFFFF);
    const uint64_t extra = load32(&entry[36]);
    if (extra > 1024) return fail("check '{}': snapshot at {:#x} has {} extra bytes", store_->name(), at, extra);
    TRY(count_l1(count, load64(&entry[0]), load32(&entry[8]), false));
    at = align_up(at + 40 + extra + names, 8);
  }
  for (uint64_t c = header_.snapshots_offset; c < at; c += header_.cluster_size()) {
    count.add(c >> header_.cluster_bits, 1, "snapshot table");
  }
  return {};
}

Result<> Qcow2Image::count_everything(Count& count) {
  const uint32_t bits = header_.cluster_bits;
  const uint64_t clusters = align_up(TRY(store_->size()), header_.cluster_size()) >> bits;
  if (clusters > Count::kClusterLimit) {
    return fail("check '{}': {} clusters need more than {} bytes of memory", store_->name(), clusters, kMetadataLimit);
  }
  count.uses = DenseCounts(clusters, kMetadataLimit - clusters / 8);
  count.counted_once.resize(clusters);
  each_refcount(
      clusters, [&](uint64_t cluster, uint64_t stored) { count.counted_once[cluster] = stored == 1; },
      [&](uint64_t index, uint64_t offset) {
        count.refcounts_wrong = true;
        count.error(fmt::format("refcount block {} at {:#x} cannot be read", index, offset));
      });
  count.add(0, 1, "header");
  for (uint64_t c = 0; c < header_.crypto_length; c += header_.cluster_size()) {
    count.add((header_.crypto_offset + c) >> bits, 1, "encryption header");
  }
  TRY(count_l1(count, header_.l1_offset, header_.l1_size, true));
  if (header_.snapshot_count != 0) TRY(count_snapshots(count));
  TRY(count_bitmaps(count));
  TRY(count_l2_tables(count));
  for (uint64_t c = 0; c < header_.refcount_table_clusters; ++c) {
    count.add((header_.refcount_table_offset >> bits) + c, 1, "refcount table");
  }
  for (const uint64_t block : refcount_table_) {
    if (block != 0) count.add(block >> bits, 1, "refcount block");
  }
  if (count.uses.overflowed()) {
    return fail("check '{}': {} clusters that are used so often need more than {} bytes of memory", store_->name(),
                clusters, kMetadataLimit);
  }
  each_refcount(
      clusters,
      [&](uint64_t cluster, uint64_t stored) {
        const uint64_t uses = count.uses[cluster];
        if (stored == uses) return;
        count.refcounts_wrong = true;
        ++(stored > uses ? count.report.leaks : count.report.errors);
        count.report.say(fmt::format("cluster {:#x}: refcount {}, used {} times", cluster, stored, uses));
      },
      [](uint64_t, uint64_t) {});
  return {};
}

Result<CheckReport> Qcow2Image::check(Repair mode) {
  const LockGuard lock(mutex_);
  if (mode == Repair::kAll && geometry_.read_only) return fail("repair '{}': opened read-only", store_->name());
  if (in_flight_[0] + in_flight_[1] != 0) return fail("check '{}': requests are under way", store_->name());
  if (!geometry_.read_only && (!commit() || !commit())) {
    return fail("check '{}': tables cannot be written", store_->name());
  }
  Count count;
  TRY(count_everything(count));
  if (mode == Repair::kAll) TRY(repair(count));
  return std::move(count.report);
}

}  // namespace bulkhead::block::qcow2
