// Counts who uses each host cluster, compares with the refcounts that the image states, and can set those right.
#include <algorithm>

#include "block/format/qcow2/big_endian.h"
#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {

struct Qcow2Image::Count {
  static constexpr uint64_t kClusterLimit = kMetadataLimit / sizeof(uint32_t);
  std::vector<uint32_t> uses;
  CheckReport report;
  void add(uint64_t cluster, std::string_view what) {
    if (cluster < uses.size()) {
      ++uses[cluster];
      return;
    }
    ++report.errors;
    report.say(fmt::format("{}: cluster {:#x} lies outside the file ({:#x} clusters)", what, cluster, uses.size()));
  }
};

Result<> Qcow2Image::count_l1(Count& count, uint64_t offset, uint64_t entries, bool active) {
  const uint32_t bits = header_.cluster_bits;
  if (entries * 8 > kMaxL1Bytes) return fail("check '{}': L1 table of {} entries", store_->name(), entries);
  std::vector<uint8_t> l1(entries * 8), l2(header_.cluster_size());
  TRY(store_->read_all(offset, l1));
  for (uint64_t c = offset >> bits; c < (align_up(offset + l1.size(), header_.cluster_size()) >> bits); ++c) {
    count.add(c, "L1 table");
  }
  const auto copied_is_right = [&](uint64_t entry, uint64_t host) REQUIRES(mutex_) -> bool {
    const auto stored = refcount(host >> bits);
    return !active || !stored || ((entry & kCopied) != 0) == (*stored == 1);
  };
  for (uint64_t i = 0; i < entries; ++i) {
    const uint64_t entry = load64(&l1[i * 8]), table_offset = entry & kOffsetMask;
    if (table_offset == 0) continue;
    count.add(table_offset >> bits, "L2 table");
    if (!copied_is_right(entry, table_offset)) {
      ++count.report.errors;
      count.report.say(fmt::format("L1 entry {}: flag 'copied' is wrong: {:#x}", i, entry));
    }
    TRY(store_->read_all(table_offset, l2));
    for (uint64_t j = 0; j < header_.l2_entries(); ++j) {
      const uint64_t leaf = load64(&l2[j * 8]);
      if ((leaf & kCompressed) != 0) {
        const uint32_t shift = 62 - (bits - 8);
        const uint64_t at = leaf & ((uint64_t{1} << shift) - 1), sectors = (leaf & (kCompressed - 1)) >> shift;
        const uint64_t last = align_down(at, 512) + sectors * 512 + 511;
        for (uint64_t c = at >> bits; c <= last >> bits; ++c) count.add(c, "compressed cluster");
      } else if ((leaf & kOffsetMask) != 0) {
        count.add((leaf & kOffsetMask) >> bits, "data cluster");
        if (copied_is_right(leaf, leaf & kOffsetMask)) continue;
        ++count.report.errors;
        count.report.say(fmt::format("L2 entry {} at {:#x}: flag 'copied' is wrong: {:#x}", j, table_offset, leaf));
      }
    }
  }
  return {};
}

Result<> Qcow2Image::count_snapshots(Count& count) {
  uint64_t at = header_.snapshots_offset;
  for (uint32_t i = 0; i < header_.snapshot_count; ++i) {
    std::vector<uint8_t> entry(40);
    TRY(store_->read_all(at, entry));
    const uint64_t names = uint64_t{load32(&entry[12]) >> 16} + (load32(&entry[12]) & 0xFFFF);
    const uint64_t extra = load32(&entry[36]);
    if (extra > 1024) return fail("check '{}': snapshot at {:#x} has {} extra bytes", store_->name(), at, extra);
    TRY(count_l1(count, load64(&entry[0]), load32(&entry[8]), false));
    at = align_up(at + 40 + extra + names, 8);
  }
  for (uint64_t c = header_.snapshots_offset; c < at; c += header_.cluster_size()) {
    count.add(c >> header_.cluster_bits, "snapshot table");
  }
  return {};
}

Result<> Qcow2Image::count_everything(Count& count) {
  const uint32_t bits = header_.cluster_bits;
  count.add(0, "header");
  TRY(count_l1(count, header_.l1_offset, header_.l1_size, true));
  if (header_.snapshot_count != 0) TRY(count_snapshots(count));
  for (uint64_t c = 0; c < header_.refcount_table_clusters; ++c) {
    count.add((header_.refcount_table_offset >> bits) + c, "refcount table");
  }
  for (const uint64_t block : refcount_table_) {
    if (block != 0) count.add(block >> bits, "refcount block");
  }
  return {};
}

Result<CheckReport> Qcow2Image::check(Repair repair) {
  const LockGuard lock(mutex_);
  if (header_.has_bitmaps) return fail("check '{}': images with persistent bitmaps are not supported", store_->name());
  if (repair == Repair::kAll && geometry_.read_only) return fail("repair '{}': opened read-only", store_->name());
  if (!geometry_.read_only && !commit()) return fail("check '{}': tables cannot be written", store_->name());
  const uint64_t clusters = align_up(TRY(store_->size()), header_.cluster_size()) >> header_.cluster_bits;
  if (clusters > Count::kClusterLimit) {
    return fail("check '{}': {} clusters need more than {} bytes of memory", store_->name(), clusters, kMetadataLimit);
  }
  Count count;
  count.uses.resize(clusters);
  TRY(count_everything(count));
  for (uint64_t cluster = 0; cluster < clusters; ++cluster) {
    const auto stored = refcount(cluster);
    if (!stored) return fail("check '{}': refcount of cluster {:#x} cannot be read", store_->name(), cluster);
    const uint64_t uses = count.uses[cluster];
    if (*stored == uses) continue;
    ++(*stored > uses ? count.report.leaks : count.report.errors);
    count.report.say(fmt::format("cluster {:#x}: refcount {}, used {} times", cluster, *stored, uses));
    // A block that is missing cannot be put anywhere before all that is in use is known to be counted.
    const uint64_t block = cluster / header_.refcounts_a_block();
    if (repair == Repair::kNone || block >= refcount_table_.size() || refcount_table_[block] == 0) continue;
    if (!set_refcount(cluster, uses)) {
      return fail("repair '{}': refcount of cluster {:#x} cannot be written", store_->name(), cluster);
    }
    ++count.report.repaired;
  }
  if (repair == Repair::kAll && !commit()) return fail("repair '{}': tables cannot be written", store_->name());
  return std::move(count.report);
}

}  // namespace bulkhead::block::qcow2
