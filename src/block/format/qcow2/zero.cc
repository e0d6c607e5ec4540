// Zeroes and discards: by the flags of whole clusters or subclusters, and by writing at a range's ends.
#include <algorithm>

#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {

// Within one cluster.
Outcome<> Qcow2Image::zero_piece(uint64_t guest, uint64_t size, bool discard) {
  const uint64_t unit = header_.unit_size(), end = guest + size, first = align_up(guest, unit);
  const uint64_t last = end == geometry_.size ? align_up(end, unit) : align_down(end, unit);
  const auto write_zeroes = [&](uint64_t from, uint64_t to) -> Outcome<> {
    if (discard || from >= to) return {};
    return done(write(from, std::vector<uint8_t>(to - from)));
  };
  // Version 2 has no flag that says zeroes.
  if (first >= last || (header_.version == 2 && backing_)) return write_zeroes(guest, end);
  TRY(write_zeroes(guest, first));
  TRY(zero_units(first, last - first));
  return write_zeroes(last, end);
}

Outcome<> Qcow2Image::zero_units(uint64_t guest, uint64_t size) {
  const uint64_t units = units_of(guest, size), cluster = guest >> header_.cluster_bits;
  bool packed = false;
  unsigned epoch = 0;
  {
    const LockGuard lock(mutex_);
    TRY(settle(guest));
    const TableRef there = TRY(l2_to_read(guest));
    if (!there && !backing_ && !header_.raw_data()) return {};
    const Leaf old = there ? leaf_at(there->bytes, l2_index(guest)) : Leaf();
    TRY(check_leaf(old, guest));
    packed = old.compressed() && units != Leaf::kAllData;
    if (!packed) {
      if (!header_.external()) return link_zeroes(guest, units);
      busy_.insert(cluster);
      begin_operation(epoch);
    }
  }
  // A part of a compressed cluster has no flag of its own.
  if (packed) return done(write(guest, std::vector<uint8_t>(std::min(size, geometry_.size - guest))));
  Outcome<> outcome = zero_data_file(guest, size);
  const LockGuard lock(mutex_);
  if (outcome) outcome = link_zeroes(guest, units);
  busy_.erase(cluster);
  operation_ended_.notify_all();
  end_operation(epoch);
  return outcome;
}

Outcome<> Qcow2Image::link_zeroes(uint64_t guest, uint64_t units) {
  const TableRef there = TRY(l2_to_read(guest));
  const Leaf old = there ? leaf_at(there->bytes, l2_index(guest)) : Leaf();
  Leaf next = old;
  next.bits = (old.bits & ~(units | units << 32)) | (backing_ ? units << 32 : 0);
  if ((next.bits & Leaf::kAllData) == 0) next.entry = 0;
  if (next == old || (!backing_ && old.entry == 0)) return {};
  const TableRef l2 = TRY(l2_to_write(guest));
  set_leaf(*l2, l2_index(guest), next);
  if (next.entry == 0) release(old);
  return {};
}

}  // namespace bulkhead::block::qcow2
