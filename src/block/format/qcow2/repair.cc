// Sets right what check() found wrong: refcounts are built anew beside the old ones and taken into use by one write to
// the header, so a power cut leaves either. Entries that name clusters outside the file stay, because what they named
// is lost and somebody must be told.
#include <algorithm>
#include <utility>

#include "block/format/big_endian.h"
#include "block/format/qcow2/count.h"

namespace bulkhead::block::qcow2 {

Result<> Qcow2Image::rebuild_refcounts(Count& count) {
  const uint64_t bits = header_.cluster_bits, cluster = header_.cluster_size(), a_block = header_.refcounts_a_block();
  const auto forget = [&](uint64_t old) {
    if (old < count.uses.size() && count.uses[old] != 0) count.uses.set(old, count.uses[old] - 1);
  };
  for (uint64_t c = 0; c < header_.refcount_table_clusters; ++c) forget((header_.refcount_table_offset >> bits) + c);
  for (const uint64_t block : refcount_table_) {
    if (block != 0) forget(block >> bits);
  }
  const uint64_t width = uint64_t{1} << header_.refcount_order;
  const uint64_t most = width >= 32 ? UINT32_MAX : (uint64_t{1} << width) - 1;
  for (uint64_t c = 0; c < count.uses.size(); ++c) {
    if (count.uses[c] > most) {
      return fail("refcounts of '{}': cluster {:#x} is used {} times, more than a refcount of {} bits holds",
                  store_->name(), c, count.uses[c], width);
    }
  }
  const uint64_t start = count.uses.size();
  uint64_t table = 1, blocks = 1;
  for (;;) {
    const uint64_t blocks_needed = (start + table + blocks + a_block - 1) / a_block;
    const uint64_t table_needed = align_up(blocks_needed * 8, cluster) / cluster;
    if (blocks_needed <= blocks && table_needed <= table) break;
    blocks = std::max(blocks, blocks_needed);
    table = std::max(table, table_needed);
  }
  if (table << bits > kMaxRefcountTableBytes) {
    return fail("refcounts of '{}': a table of {} bytes", store_->name(), table << bits);
  }
  count.uses.resize(start + table + blocks, 1);
  std::vector<uint8_t> entries(table << bits), block(cluster);
  for (uint64_t i = 0; i < blocks; ++i) {
    std::ranges::fill(block, uint8_t{0});
    for (uint64_t c = i * a_block; c < std::min((i + 1) * a_block, uint64_t{count.uses.size()}); ++c) {
      set_count(block, c - i * a_block, header_.refcount_order, count.uses[c]);
    }
    TRY(store_->write_all((start + table + i) << bits, block));
    store64(&entries[i * 8], (start + table + i) << bits);
  }
  TRY(store_->write_all(start << bits, entries));
  TRY(store_->flush_all());
  header_.refcount_table_offset = start << bits;
  header_.refcount_table_clusters = static_cast<uint32_t>(table);
  // All that says where the disk and its snapshots are stands side by side.
  std::vector<uint8_t> fields(48);
  store64(&fields[0], header_.size);
  store32(&fields[8], std::to_underlying(header_.encryption));
  store32(&fields[12], header_.l1_size);
  store64(&fields[16], header_.l1_offset);
  store64(&fields[24], header_.refcount_table_offset);
  store32(&fields[32], header_.refcount_table_clusters);
  store32(&fields[36], header_.snapshot_count);
  store64(&fields[40], header_.snapshots_offset);
  TRY(store_->write_all(kSizeField, fields));
  return store_->flush_all();
}

// The refcounts are right by now; a flag that is set wrongly would let a shared cluster be written in place.
Result<> Qcow2Image::repair_flags(const Count& count) {
  const uint32_t bits = header_.cluster_bits;
  const auto set_right = [&](uint8_t* slot, bool names_data) {
    if (names_data && header_.external()) {
      const Leaf leaf = leaf_at(ByteSpan(slot, header_.l2_entry_size()), 0);
      if (has_host(leaf)) store64(slot, load64(slot) | kCopied);
      return has_host(leaf) && (leaf.entry & kCopied) == 0;
    }
    const uint64_t entry = load64(slot), cluster = (entry & kOffsetMask) >> bits;
    if ((entry & kCompressed) != 0 || (entry & kOffsetMask) == 0 || cluster >= count.uses.size()) return false;
    const uint64_t right = (entry & ~kCopied) | (count.uses[cluster] == 1 ? kCopied : 0);
    store64(slot, right);
    return right != entry;
  };
  std::vector<uint8_t> l2(header_.cluster_size()), l1(l1_.size() * 8);
  for (size_t i = 0; i < count.l2_tables.size(); ++i) {
    const Count::L2Use& table = count.l2_tables[i];
    const bool again = i != 0 && count.l2_tables[i - 1].order() == table.order();
    if (table.active == 0 || again) continue;
    const uint64_t offset = uint64_t{table.cluster} << bits;
    TRY(store_->read_all(offset, l2));
    bool changed = false;
    for (uint64_t at = 0; at < l2.size(); at += header_.l2_entry_size()) changed |= set_right(&l2[at], true);
    if (changed) TRY(store_->write_all(offset, l2));
  }
  TRY(store_->read_all(header_.l1_offset, l1));
  bool changed = false;
  for (size_t i = 0; i < l1_.size(); ++i) changed |= set_right(&l1[i * 8], false);
  if (changed) TRY(store_->write_all(header_.l1_offset, l1));
  return store_->flush_all();
}

Result<> Qcow2Image::repair(Count& count) {
  if (count.refcounts_wrong) TRY(rebuild_refcounts(count));
  if (count.refcounts_wrong || count.flags_wrong) TRY(repair_flags(count));
  TRY(load_tables());
  free_hint_ = 1;
  count.uses = {};
  count.counted_once = {};
  Count left;
  TRY(count_everything(left));
  const uint64_t found = count.report.errors + count.report.leaks;
  count.report.left = left.report.errors;
  count.report.repaired = found - std::min(found, left.report.errors + left.report.leaks);
  if (left.report.errors != 0) return {};
  return write_incompatible(header_.incompatible & ~(kDirty | kCorrupt));
}

}  // namespace bulkhead::block::qcow2
