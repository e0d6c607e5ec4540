// What an L2 entry says of a guest cluster: of 64 bits, or of 128 that speak of 32 subclusters each by itself.
#include <algorithm>
#include <bit>

#include "block/format/big_endian.h"
#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {

Leaf Qcow2Image::leaf_at(ByteSpan l2, uint64_t index) const {
  Leaf leaf{.entry = load64(&l2[index * header_.l2_entry_size()])};
  if (header_.extended()) {
    leaf.bits = load64(&l2[index * 16 + 8]);
  } else if (!leaf.compressed()) {
    const bool zero = header_.version == 3 && (leaf.entry & kZeroFlag) != 0;
    leaf.entry &= ~kZeroFlag;
    leaf.bits = zero ? Leaf::kAllZero : has_host(leaf) ? Leaf::kAllData : 0;
  }
  return leaf;
}

void Qcow2Image::set_leaf(Table& l2, uint64_t index, const Leaf& leaf) const {
  uint8_t* const slot = &l2.bytes[index * header_.l2_entry_size()];
  if (header_.extended()) {
    store64(slot, leaf.entry);
    store64(slot + 8, leaf.bits);
  } else {
    store64(slot, leaf.entry | (leaf.bits == Leaf::kAllZero ? kZeroFlag : 0));
  }
  l2.dirty = true;
}

const char* Qcow2Image::fault_of(const Leaf& leaf) const {
  if (leaf.compressed()) {
    if (header_.external()) return "compressed cluster of an external data file";
    return leaf.bits != 0 ? "compressed cluster with subclusters" : nullptr;
  }
  if ((leaf.bits >> 32 & leaf.bits) != 0) return "subclusters that are data and zeroes at once";
  if ((leaf.bits & Leaf::kAllData) != 0 && !has_host(leaf)) return "subclusters of no host cluster";
  return header_.extended() && (leaf.entry & kZeroFlag) != 0 ? "flag of zeroes beside subclusters" : nullptr;
}

uint64_t Qcow2Image::units_of(uint64_t guest, uint64_t size) const {
  if (!header_.extended()) return Leaf::kAllData;
  const uint64_t unit = header_.unit_size(), within = guest & (header_.cluster_size() - 1);
  const uint64_t first = within / unit, end = (within + size + unit - 1) / unit;
  return (Leaf::kAllData >> (32 - (end - first))) << first;
}

ExtentKind Qcow2Image::kind_of(const Leaf& leaf, uint64_t guest) const {
  const uint64_t unit = (guest & (header_.cluster_size() - 1)) / header_.unit_size();
  if (leaf.compressed() || (leaf.bits >> unit & 1) != 0) return ExtentKind::kData;
  return (leaf.bits >> (32 + unit) & 1) != 0 ? ExtentKind::kZero : ExtentKind::kAbsent;
}

uint64_t Qcow2Image::run_of(const Leaf& leaf, uint64_t guest) const {
  const uint64_t unit = header_.unit_size(), end = align_down(guest, header_.cluster_size()) + header_.cluster_size();
  const ExtentKind kind = kind_of(leaf, guest);
  uint64_t at = align_down(guest, unit) + unit;
  while (at != end && kind_of(leaf, at) == kind) at += unit;
  return at - guest;
}

Outcome<> Qcow2Image::check_leaf(const Leaf& leaf, uint64_t guest) {
  if (const char* const fault = fault_of(leaf)) return corrupt(fault, guest, leaf.entry);
  if (!has_host(leaf)) return {};
  if (!header_.external()) return check_host(leaf.host());
  if (leaf.host() == align_down(guest, header_.cluster_size())) return {};
  return corrupt("cluster of the data file that is not where the guest's is", guest, leaf.entry);
}

}  // namespace bulkhead::block::qcow2
