// Making a disk larger: a longer L1 table, taken into use by one write to the header, then the size.
#include "block/format/big_endian.h"
#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {
namespace {

constexpr int kTries = 1000;

}  // namespace

Outcome<Qcow2Image::ClusterRange> Qcow2Image::allocate_run(uint64_t wanted) {
  // Runs end at a refcount block's border, so one longer than that reaches has no place.
  std::vector<ClusterRange> too_short;
  ClusterRange place = TRY(allocate(wanted));
  for (int tries = 0; place.count < wanted && tries < kTries; ++tries) {
    too_short.push_back(place);
    place = TRY(allocate(wanted));
  }
  for (const ClusterRange& run : too_short) give_back(run);
  if (place.count < wanted) {
    give_back(place);
    return std::unexpected(Status::kNoSpace);
  }
  return place;
}

Outcome<> Qcow2Image::grow_l1(uint64_t entries) {
  const uint64_t bits = header_.cluster_bits;
  const ClusterRange place = TRY(allocate_run(align_up(entries * 8, header_.cluster_size()) >> bits));
  const ClusterRange old{header_.l1_offset >> bits,
                         align_up(uint64_t{header_.l1_size} * 8, header_.cluster_size()) >> bits};
  // The refcounts of the new place are on the disk before the header names it.
  TRY(commit());
  std::vector<uint8_t> bytes(place.count << bits), field(12);
  for (size_t i = 0; i < l1_.size(); ++i) store64(&bytes[i * 8], l1_[i]);
  TRY(done(store_->write(place.first << bits, bytes)));
  TRY(done(store_->flush()));
  store32(field.data(), static_cast<uint32_t>(entries));
  store64(&field[4], place.first << bits);
  TRY(done(store_->write(kL1Field, field)));
  TRY(done(store_->flush()));
  header_.l1_size = static_cast<uint32_t>(entries);
  header_.l1_offset = place.first << bits;
  l1_.resize(entries);
  for (uint64_t i = 0; i < old.count; ++i) released_.push_back(old.first + i);
  return {};
}

Result<> Qcow2Image::grow(uint64_t new_size) {
  const uint64_t old_size = geometry_.size;
  new_size = align_up(new_size, 512);
  if (geometry_.read_only) return fail("resize '{}': opened read-only", store_->name());
  if (new_size < old_size)
    return fail("resize '{}': from {} to {} bytes would lose data", store_->name(), old_size, new_size);
  std::vector<BitmapEntry> bitmaps = TRY(resized_bitmaps(new_size));
  {
    const LockGuard lock(mutex_);
    if (in_flight_[0] + in_flight_[1] != 0) return fail("resize '{}': requests are under way", store_->name());
    const uint64_t reach = header_.cluster_size() * header_.l2_entries();
    const uint64_t entries = new_size / reach + (new_size % reach != 0);
    if (entries * 8 > kMaxL1Bytes) {
      return fail("resize '{}': {} bytes are too many for clusters of {}", store_->name(), new_size,
                  header_.cluster_size());
    }
    if (entries > header_.l1_size) {
      if (const auto grown = grow_l1(entries); !grown) {
        return fail("resize '{}': a new L1 table: {}", store_->name(), to_string(grown.error()));
      }
    }
  }
  geometry_.size = new_size;
  Result<> grown = write_grown(old_size, bitmaps);
  if (!grown) geometry_.size = old_size;
  return grown;
}

Result<> Qcow2Image::write_grown(uint64_t old_size, std::vector<BitmapEntry>& bitmaps) {
  // What lies below must not show through where there was no disk before; that is so before the header says the size.
  const uint64_t below = backing_ ? std::min(backing_->geometry().size, geometry_.size) : 0;
  if (below > old_size && zero(old_size, below - old_size, false) != Status::kOk) {
    return fail("resize '{}': the new part cannot be zeroed", store_->name());
  }
  // Nor what a shrink that was cut off left behind the old end.
  for (uint64_t offset = std::max(below, old_size); offset < geometry_.size;) {
    const Extent extent = TRY(map(offset));
    if (extent.kind == ExtentKind::kData && zero(offset, extent.size, false) != Status::kOk) {
      return fail("resize '{}': the new part cannot be zeroed", store_->name());
    }
    offset += extent.size;
  }
  TRY(resize_data_file(old_size, geometry_.size));
  if (flush() != Status::kOk) return fail("resize '{}': flush", store_->name());
  return write_size(geometry_.size, bitmaps);
}

}  // namespace bulkhead::block::qcow2
