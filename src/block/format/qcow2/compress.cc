// Writing compressed clusters: packed one behind the other, several to a host cluster, each of which counts once.
#include <zstd.h>

#include "block/format/big_endian.h"
#include "block/format/deflate.h"
#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {
namespace {

constexpr int kZstdLevel = 3;

// Empty when the result would not be smaller.
std::vector<uint8_t> pack_zstd(ByteSpan from) {
  thread_local const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context(::ZSTD_createCCtx(), ::ZSTD_freeCCtx);
  if (!context) return {};
  std::vector<uint8_t> to(from.size() - 1);
  const size_t size = ::ZSTD_compressCCtx(context.get(), to.data(), to.size(), from.data(), from.size(), kZstdLevel);
  to.resize(::ZSTD_isError(size) != 0 ? 0 : size);
  return to;
}

}  // namespace

Outcome<uint64_t> Qcow2Image::allocate_packed(uint64_t size) {
  const uint32_t bits = header_.cluster_bits, size_shift = 62 - (bits - 8);
  uint64_t at = packed_at_;
  bool shares = at != 0;
  if (shares) {
    const uint64_t count = TRY(refcount(at >> bits));
    const uint64_t width = uint64_t{1} << header_.refcount_order;
    shares = count != 0 && (width == 64 || count + 1 < uint64_t{1} << width);
  }
  const uint64_t room = shares ? header_.cluster_size() - (at & (header_.cluster_size() - 1)) : 0;
  if (room < size) {
    const ClusterRange fresh = TRY(allocate(1));
    // A neighbour lets data cross the border.
    if (fresh.first != (at >> bits) + 1) shares = false;
    if (!shares) at = fresh.first << bits;
  }
  if (shares) TRY(set_refcount(at >> bits, TRY(refcount(at >> bits)) + 1));
  if (at + size > uint64_t{1} << size_shift) return std::unexpected(Status::kNoSpace);
  packed_at_ = at + size;
  if ((packed_at_ & (header_.cluster_size() - 1)) == 0) packed_at_ = 0;
  const uint64_t more_sectors = ((at + size - 1) >> 9) - (at >> 9);
  return kCompressed | more_sectors << size_shift | at;
}

Outcome<> Qcow2Image::write_packed(uint64_t guest, ByteSpan packed) {
  const uint64_t number = guest >> header_.cluster_bits;
  const uint32_t size_shift = 62 - (header_.cluster_bits - 8);
  uint64_t entry = 0;
  unsigned epoch = 0;
  {
    const LockGuard lock(mutex_);
    TRY(settle(guest));
    entry = TRY(allocate_packed(packed.size()));
    busy_.insert(number);
    begin_operation(epoch);
  }
  Outcome<> outcome = done(store_->write(entry & ((uint64_t{1} << size_shift) - 1), packed));
  const LockGuard lock(mutex_);
  if (outcome) {
    if (const auto l2 = l2_to_write(guest)) {
      release(leaf_at((*l2)->bytes, l2_index(guest)));
      set_leaf(**l2, l2_index(guest), {.entry = entry});
    } else {
      outcome = std::unexpected(l2.error());
    }
  }
  if (!outcome) release({.entry = entry});
  busy_.erase(number);
  operation_ended_.notify_all();
  end_operation(epoch);
  return outcome;
}

Status Qcow2Image::write_compressed(uint64_t offset, ByteSpan bytes) {
  if (compression_unit() == 0) return write(offset, bytes);
  track(offset, bytes.size());
  const uint64_t cluster = header_.cluster_size();
  while (!bytes.empty()) {
    const uint64_t part = std::min<uint64_t>(bytes.size(), cluster - (offset & (cluster - 1)));
    ByteSpan piece = bytes.first(part);
    std::vector<uint8_t> padded, packed;
    const bool whole = (offset & (cluster - 1)) == 0 && (part == cluster || offset + part == geometry_.size);
    if (whole && part != cluster) {
      padded.assign(piece.begin(), piece.end());
      padded.resize(cluster);
      piece = padded;
    }
    if (whole && header_.compression == Compression::kZstd) packed = pack_zstd(piece);
    if (whole && header_.compression == Compression::kZlib) {
      packed = deflate(piece, DeflateForm::kRaw, piece.size() - 1);
    }
    if (packed.empty()) {
      if (const Status status = write(offset, bytes.first(part)); status != Status::kOk) return status;
    } else if (const Outcome<> outcome = write_packed(offset, packed); !outcome) {
      return outcome.error();
    }
    offset += part;
    bytes = bytes.subspan(part);
  }
  return Status::kOk;
}

}  // namespace bulkhead::block::qcow2
