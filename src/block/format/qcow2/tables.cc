// L1, L2 tables and refcount blocks in memory.
#include <algorithm>

#include "block/format/big_endian.h"
#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {

void Qcow2Image::forget_table(uint64_t offset) {
  const auto found = tables_.find(offset);
  if (found == tables_.end()) return;
  if (found->second->use_count() == 1) keep_buffer(std::move((*found->second)->bytes));
  recent_.erase(found->second);
  tables_.erase(found);
  ++table_changes_;
}

std::vector<uint8_t> Qcow2Image::take_buffer() {
  if (buffers_.empty()) return std::vector<uint8_t>(header_.cluster_size());
  std::vector<uint8_t> bytes = std::move(buffers_.back());
  buffers_.pop_back();
  return bytes;
}

// Tables with changes stay; keep_bounds() sees to it that there are not too many of them.
void Qcow2Image::make_room() {
  const size_t limit = std::max<size_t>(8, kCacheBytes / header_.cluster_size());
  if (recent_.size() < limit) return;
  for (auto i = recent_.rbegin(); i != recent_.rend(); ++i) {
    if ((*i)->dirty || (*i)->being_written || i->use_count() != 1) continue;
    forget_table((*i)->offset);
    return;
  }
}

Qcow2Image::TableRef Qcow2Image::add_table(uint64_t offset, TableKind kind, std::vector<uint8_t> bytes) {
  make_room();
  forget_table(offset);
  auto table = std::make_shared<Table>();
  table->offset = offset;
  table->kind = kind;
  table->bytes = std::move(bytes);
  recent_.push_front(table);
  tables_[offset] = recent_.begin();
  ++table_changes_;
  return table;
}

Outcome<Qcow2Image::TableRef> Qcow2Image::table(uint64_t offset, TableKind kind) {
  if (const auto found = tables_.find(offset); found != tables_.end()) {
    recent_.splice(recent_.begin(), recent_, found->second);
    if ((*found->second)->kind != kind) TRY(corrupt("table used as two kinds", offset, offset));
    return *found->second;
  }
  if (offset == 0 || (offset & (header_.cluster_size() - 1)) != 0) TRY(corrupt("table not aligned", offset, offset));
  TRY(check_host(offset));
  // A table is written before anything names it, so one beyond the end is a lie that would cost memory and time.
  const auto end = store_->size();
  if (!end) return std::unexpected(Status::kIoError);
  if (offset >= *end) TRY(corrupt("table outside the file", offset, *end));
  std::vector<uint8_t> bytes = take_buffer();
  TRY(done(store_->read(offset, bytes)));
  return add_table(offset, kind, std::move(bytes));
}

Outcome<> Qcow2Image::fetch_l2(uint64_t guest) {
  // With luck nothing moves meanwhile; without it, table() reads under the lock.
  for (int attempt = 0; attempt < 3; ++attempt) {
    const uint64_t offset = l1_[l1_index(guest)] & kOffsetMask;
    if (offset == 0 || tables_.contains(offset) || (offset & (header_.cluster_size() - 1)) != 0) return {};
    const uint64_t changes = table_changes_;
    std::vector<uint8_t> bytes = take_buffer();
    mutex_.unlock();
    const auto end = store_->size();
    const Status status = end && offset < *end ? store_->read(offset, bytes) : Status::kIoError;
    mutex_.lock();
    if (status != Status::kOk || changes != table_changes_) {
      keep_buffer(std::move(bytes));
      if (status != Status::kOk) return {};
      continue;
    }
    TRY(check_host(offset));
    add_table(offset, TableKind::kL2, std::move(bytes));
    return {};
  }
  return {};
}

void Qcow2Image::set_l1(uint64_t index, uint64_t entry) {
  l1_[index] = entry;
  l1_dirty_first_ = std::min(l1_dirty_first_, index);
  l1_dirty_last_ = std::max(l1_dirty_last_, index);
}

Outcome<Qcow2Image::TableRef> Qcow2Image::l2_to_read(uint64_t guest) {
  const uint64_t entry = l1_[l1_index(guest)] & kOffsetMask;
  if (entry == 0) return TableRef();
  return table(entry, TableKind::kL2);
}

Outcome<Qcow2Image::TableRef> Qcow2Image::l2_to_write(uint64_t guest) {
  const uint64_t index = l1_index(guest), entry = l1_[index];
  if ((entry & kCopied) != 0 && (entry & kOffsetMask) != 0) return l2_to_read(guest);
  const TableRef old = TRY(l2_to_read(guest));
  const uint64_t offset = TRY(allocate(1)).first << header_.cluster_bits;
  std::vector<uint8_t> bytes = take_buffer();
  if (old) {
    std::ranges::copy(old->bytes, bytes.begin());
  } else {
    std::ranges::fill(bytes, uint8_t{0});
  }
  TableRef made = add_table(offset, TableKind::kL2, std::move(bytes));
  made->dirty = true;
  set_l1(index, offset | kCopied);
  if (old) released_.push_back(old->offset >> header_.cluster_bits);
  return made;
}

}  // namespace bulkhead::block::qcow2
