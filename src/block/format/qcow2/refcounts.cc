// How often each host cluster is used, and finding one that is not.
#include <algorithm>

#include "block/format/qcow2/big_endian.h"
#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {
namespace {

Outcome<> done(Status status) {
  if (status == Status::kOk) return {};
  return std::unexpected(status);
}

uint64_t get_count(const std::vector<uint8_t>& block, uint64_t index, uint32_t order) {
  if (order < 3) {
    const uint32_t bits = 1u << order;
    return block[index * bits / 8] >> (index * bits % 8) & ((1u << bits) - 1);
  }
  uint64_t count = 0;
  const size_t size = size_t{1} << (order - 3);
  for (size_t i = 0; i < size; ++i) count = count << 8 | block[index * size + i];
  return count;
}

void set_count(std::vector<uint8_t>& block, uint64_t index, uint32_t order, uint64_t count) {
  if (order < 3) {
    const uint32_t bits = 1u << order, shift = static_cast<uint32_t>(index * bits % 8);
    uint8_t& byte = block[index * bits / 8];
    byte = static_cast<uint8_t>((byte & ~(((1u << bits) - 1) << shift)) | count << shift);
    return;
  }
  const size_t size = size_t{1} << (order - 3);
  for (size_t i = size; i-- > 0; count >>= 8) block[index * size + i] = static_cast<uint8_t>(count);
}

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
  const TableRef block = TRY(new_table(at << header_.cluster_bits, TableKind::kRefcounts));
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
  entries.resize(clusters * header_.l2_entries());
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

Outcome<uint64_t> Qcow2Image::allocate() {
  for (uint64_t cluster = free_hint_;; ++cluster) {
    if (cluster << header_.cluster_bits > kOffsetMask - header_.cluster_size())
      return std::unexpected(Status::kNoSpace);
    if (TRY(refcount(cluster)) != 0) continue;
    TRY(add_refcount_block(cluster));
    // A block that was added may sit right there.
    if (TRY(refcount(cluster)) != 0) continue;
    TRY(set_refcount(cluster, 1));
    free_hint_ = cluster + 1;
    return cluster << header_.cluster_bits;
  }
}

void Qcow2Image::release(uint64_t entry) {
  if ((entry & kCompressed) != 0) {
    const uint32_t size_shift = 62 - (header_.cluster_bits - 8);
    const uint64_t offset = entry & ((uint64_t{1} << size_shift) - 1);
    const uint64_t sectors = (entry & (kCompressed - 1)) >> size_shift;
    const uint64_t last = align_down(offset, 512) + sectors * 512 + 511;
    for (uint64_t c = offset >> header_.cluster_bits; c <= last >> header_.cluster_bits; ++c) released_.push_back(c);
  } else if ((entry & kOffsetMask) != 0) {
    released_.push_back((entry & kOffsetMask) >> header_.cluster_bits);
  }
}

Outcome<> Qcow2Image::apply_releases() {
  if (in_flight_ != 0) return {};
  for (const uint64_t cluster : std::exchange(released_, {})) {
    const uint64_t count = TRY(refcount(cluster));
    if (count == 0) return corrupt("a freed cluster was not counted", cluster << header_.cluster_bits, count);
    TRY(set_refcount(cluster, count - 1));
    if (count != 1) continue;
    free_hint_ = std::min(free_hint_, cluster);
    if (const auto old = tables_.find(cluster << header_.cluster_bits); old != tables_.end()) {
      recent_.erase(old->second);
      tables_.erase(old);
    }
    // A hint; the cluster is free with its old bytes too.
    (void)store_->punch(cluster << header_.cluster_bits, header_.cluster_size());
  }
  return {};
}

}  // namespace bulkhead::block::qcow2
