// L1, L2 tables and refcount blocks in memory, and the order in which they reach the disk.
#include <algorithm>

#include "block/format/qcow2/big_endian.h"
#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {
namespace {

Outcome<> done(Status status) {
  if (status == Status::kOk) return {};
  return std::unexpected(status);
}

}  // namespace

Outcome<> Qcow2Image::make_room() {
  const size_t limit = std::max<size_t>(8, kCacheBytes / header_.cluster_size());
  if (recent_.size() < limit) return {};
  // Tables that an operation holds on to are not the oldest, except in the tiniest cache; those stay a while longer.
  for (auto i = std::prev(recent_.end()); i != recent_.begin(); --i) {
    if (i->use_count() != 1) continue;
    if ((*i)->dirty) {
      TRY(commit());
      // Applying releases may have touched and dirtied this very table, and others.
      return make_room();
    }
    tables_.erase((*i)->offset);
    recent_.erase(i);
    return {};
  }
  return {};
}

Outcome<Qcow2Image::TableRef> Qcow2Image::new_table(uint64_t offset, TableKind kind) {
  TRY(make_room());
  if (const auto old = tables_.find(offset); old != tables_.end()) {
    recent_.erase(old->second);
    tables_.erase(old);
  }
  auto table = std::make_shared<Table>();
  table->offset = offset;
  table->kind = kind;
  table->bytes.resize(header_.cluster_size());
  recent_.push_front(table);
  tables_[offset] = recent_.begin();
  return table;
}

Outcome<Qcow2Image::TableRef> Qcow2Image::table(uint64_t offset, TableKind kind) {
  if (const auto found = tables_.find(offset); found != tables_.end()) {
    recent_.splice(recent_.begin(), recent_, found->second);
    if ((*found->second)->kind != kind) {
      TRY(corrupt("table used as two kinds", offset, offset));
    }
    return *found->second;
  }
  if (offset == 0 || (offset & (header_.cluster_size() - 1)) != 0) TRY(corrupt("table not aligned", offset, offset));
  TRY(check_host(offset));
  std::vector<uint8_t> bytes(header_.cluster_size());
  TRY(done(store_->read(offset, bytes)));
  TableRef made = TRY(new_table(offset, kind));
  made->bytes = std::move(bytes);
  return made;
}

Outcome<> Qcow2Image::write_dirty(TableKind kind) {
  std::vector<TableRef> dirty;
  for (const TableRef& table : recent_) {
    if (table->dirty && table->kind == kind) dirty.push_back(table);
  }
  std::ranges::sort(dirty, {}, &Table::offset);
  for (const TableRef& table : dirty) {
    TRY(done(store_->write(table->offset, table->bytes)));
    table->dirty = false;
  }
  return {};
}

Outcome<> Qcow2Image::commit() {
  TRY(write_dirty(TableKind::kRefcounts));
  TRY(done(store_->flush()));
  const bool l2 = std::ranges::any_of(recent_, [](const TableRef& t) { return t->dirty && t->kind == TableKind::kL2; });
  TRY(write_dirty(TableKind::kL2));
  const bool l1 = l1_dirty_first_ <= l1_dirty_last_;
  if (l1) {
    TRY(done(store_->flush()));
    // Whole sectors, which a power cut leaves old or new.
    const uint64_t first = align_down(l1_dirty_first_, 64), last = std::min(l1_dirty_last_ | 63, l1_.size() - 1);
    std::vector<uint8_t> bytes((last - first + 1) * 8);
    for (uint64_t i = first; i <= last; ++i) store64(&bytes[(i - first) * 8], l1_[i]);
    TRY(done(store_->write(header_.l1_offset + first * 8, bytes)));
    l1_dirty_first_ = UINT64_MAX;
    l1_dirty_last_ = 0;
  }
  if (l1 || l2) TRY(done(store_->flush()));
  return apply_releases();
}

void Qcow2Image::set_l1(uint64_t index, uint64_t entry) {
  l1_[index] = entry;
  l1_dirty_first_ = std::min(l1_dirty_first_, index);
  l1_dirty_last_ = std::max(l1_dirty_last_, index);
}

Outcome<Qcow2Image::TableRef> Qcow2Image::l2_to_read(uint64_t guest) {
  const uint64_t entry = l1_[guest >> header_.cluster_bits >> (header_.cluster_bits - 3)] & kOffsetMask;
  if (entry == 0) return TableRef();
  return table(entry, TableKind::kL2);
}

Outcome<Qcow2Image::TableRef> Qcow2Image::l2_to_write(uint64_t guest) {
  const uint64_t index = guest >> header_.cluster_bits >> (header_.cluster_bits - 3);
  const uint64_t entry = l1_[index];
  if ((entry & kCopied) != 0 && (entry & kOffsetMask) != 0) return l2_to_read(guest);
  const TableRef old = TRY(l2_to_read(guest));
  const uint64_t offset = TRY(allocate());
  TableRef made = TRY(new_table(offset, TableKind::kL2));
  if (old) made->bytes = old->bytes;
  made->dirty = true;
  set_l1(index, offset | kCopied);
  if (old) released_.push_back(old->offset >> header_.cluster_bits);
  return made;
}

}  // namespace bulkhead::block::qcow2
