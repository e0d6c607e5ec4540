// How often each host cluster is used, and finding one that is not.
#include <algorithm>

#include "block/format/big_endian.h"
#include "block/format/qcow2/qcow2_image.h"
#include "block/format/qcow2/refcount_field.h"

namespace bulkhead::block::qcow2 {
namespace {

constexpr uint64_t kAllocationLooks = uint64_t{1} << 28, kAllocationLooksBeyond = uint64_t{1} << 20;

}  // namespace

Outcome<uint64_t> Qcow2Image::refcount(uint64_t cluster) {
  const uint64_t a_block = header_.refcounts_a_block();
  if (cluster / a_block >= refcount_table_.size()) return 0;
  const uint64_t offset = refcount_table_[cluster / a_block];
  if (offset == 0) return 0;
  const TableRef block = TRY(table(offset, TableKind::kRefcounts));
  return get_count(block->bytes, cluster % a_block, header_.refcount_order);
}

Outcome<> Qcow2Image::set_refcount(uint64_t cluster, uint64_t count) {
  const uint64_t a_block = header_.refcounts_a_block();
  if (header_.refcount_order < 6 && count >> (1u << header_.refcount_order) != 0) {
    return corrupt("refcount too large for its width", cluster << header_.cluster_bits, count);
  }
  if (cluster / a_block >= refcount_table_.size() || refcount_table_[cluster / a_block] == 0) {
    return corrupt("no refcount block", cluster << header_.cluster_bits, count);
  }
  const TableRef block = TRY(table(refcount_table_[cluster / a_block], TableKind::kRefcounts));
  set_count(block->bytes, cluster % a_block, header_.refcount_order, count);
  block->dirty = true;
  return {};
}

// A block that is missing says that its whole range is free, so it takes the first cluster of that range.
Outcome<> Qcow2Image::add_refcount_block(uint64_t cluster) {
  const uint64_t a_block = header_.refcounts_a_block(), index = cluster / a_block;
  while (index >= refcount_table_.size()) TRY(grow_refcount_table());
  if (refcount_table_[index] != 0) return {};
  const uint64_t at = index * a_block;
  if (at == 0) return corrupt("no refcount block for the header", 0, 0);
  TRY(check_host(at << header_.cluster_bits));
  const TableRef block =
      add_table(at << header_.cluster_bits, TableKind::kRefcounts, std::vector<uint8_t>(header_.cluster_size()));
  set_count(block->bytes, 0, header_.refcount_order, 1);
  TRY(done(store_->write(block->offset, block->bytes)));
  TRY(done(store_->flush()));
  std::vector<uint8_t> entry(8);
  store64(entry.data(), block->offset);
  TRY(done(store_->write(header_.refcount_table_offset + index * 8, entry)));
  refcount_table_[index] = block->offset;
  return {};
}

// The new table and the blocks that count it go behind everything; then one sector of the header changes.
Outcome<> Qcow2Image::grow_refcount_table() {
  const uint64_t a_block = header_.refcounts_a_block(), bits = header_.cluster_bits;
  const auto end = store_->size();
  if (!end) return std::unexpected(Status::kIoError);
  const uint64_t start =
      std::max<uint64_t>(refcount_table_.size() * a_block, align_up(*end, header_.cluster_size()) >> bits);
  const uint64_t clusters = uint64_t{header_.refcount_table_clusters} * 2;
  uint64_t blocks = 1;
  while ((start + clusters + blocks - 1) / a_block - start / a_block + 1 > blocks) ++blocks;
  std::vector<uint64_t> entries = refcount_table_;
  entries.resize(clusters << bits >> 3);
  if (clusters << bits > kMaxRefcountTableBytes || start / a_block + blocks > entries.size()) {
    return std::unexpected(Status::kNoSpace);
  }
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t first = (start / a_block + i) * a_block, at = start + clusters + i;
    std::vector<uint8_t> block(header_.cluster_size());
    for (uint64_t c = std::max(first, start); c < std::min(first + a_block, start + clusters + blocks); ++c) {
      set_count(block, c - first, header_.refcount_order, 1);
    }
    TRY(done(store_->write(at << bits, block)));
    entries[start / a_block + i] = at << bits;
  }
  std::vector<uint8_t> bytes(entries.size() * 8);
  for (size_t i = 0; i < entries.size(); ++i) store64(&bytes[i * 8], entries[i]);
  TRY(done(store_->write(start << bits, bytes)));
  TRY(done(store_->flush()));
  std::vector<uint8_t> field(12);
  store64(field.data(), start << bits);
  store32(&field[8], static_cast<uint32_t>(clusters));
  TRY(done(store_->write(kRefcountTableField, field)));
  TRY(done(store_->flush()));
  for (uint32_t i = 0; i < header_.refcount_table_clusters; ++i) {
    released_.push_back((header_.refcount_table_offset >> bits) + i);
  }
  header_.refcount_table_offset = start << bits;
  header_.refcount_table_clusters = static_cast<uint32_t>(clusters);
  refcount_table_ = std::move(entries);
  return {};
}

Outcome<Qcow2Image::ClusterRange> Qcow2Image::allocate(uint64_t limit) {
  const uint64_t a_block = header_.refcounts_a_block(), bits = header_.cluster_bits;
  const auto end = store_->size();
  if (!end) return std::unexpected(Status::kIoError);
  // Counts beyond the end of the file are lies; a file may hold many of them, so looking has a limit.
  uint64_t looks = std::min(*end >> bits, kAllocationLooks) + kAllocationLooksBeyond;
  for (uint64_t cluster = free_hint_;;) {
    if (cluster << bits > kOffsetMask - header_.cluster_size()) return std::unexpected(Status::kNoSpace);
    const uint64_t index = cluster / a_block, start = index * a_block;
    TRY(add_refcount_block(cluster));
    const TableRef block = TRY(table(refcount_table_[index], TableKind::kRefcounts));
    uint64_t i = cluster - start;
    for (; i < a_block && get_count(block->bytes, i, header_.refcount_order) != 0; ++i) {
      if (--looks == 0) TRY(corrupt("no free cluster", cluster << bits, *end));
    }
    uint64_t count = 0;
    for (; count < limit && i + count < a_block; ++count) {
      if (get_count(block->bytes, i + count, header_.refcount_order) != 0) break;
      set_count(block->bytes, i + count, header_.refcount_order, 1);
    }
    cluster = start + i;
    if (count == 0) continue;
    block->dirty = true;
    free_hint_ = cluster + count;
    return ClusterRange{cluster, count};
  }
}

void Qcow2Image::give_back(const ClusterRange& clusters) {
  for (uint64_t i = 0; i < clusters.count; ++i) {
    // Else they are leaked, which check() can repair.
    (void)set_refcount(clusters.first + i, 0);
  }
  free_hint_ = std::min(free_hint_, clusters.first);
}

Qcow2Image::ClusterRange Qcow2Image::clusters_of(const Leaf& leaf) const {
  if (header_.external()) return {};
  if (!leaf.compressed()) return {leaf.host() >> header_.cluster_bits, leaf.host() != 0 ? 1u : 0u};
  const uint64_t entry = leaf.entry;
  const uint32_t size_shift = 62 - (header_.cluster_bits - 8);
  const uint64_t offset = entry & ((uint64_t{1} << size_shift) - 1);
  const uint64_t sectors = (entry & (kCompressed - 1)) >> size_shift;
  const uint64_t first = offset >> header_.cluster_bits;
  return {first, ((align_down(offset, 512) + sectors * 512 + 511) >> header_.cluster_bits) - first + 1};
}

void Qcow2Image::release(const Leaf& leaf) {
  const ClusterRange clusters = clusters_of(leaf);
  for (uint64_t i = 0; i < clusters.count; ++i) released_.push_back(clusters.first + i);
}

}  // namespace bulkhead::block::qcow2
