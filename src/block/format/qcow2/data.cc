// Guest bytes: reading through tables, compression and the backing file; writing into clusters of our own.
#include <algorithm>

#include <zlib.h>
#include <zstd.h>

#include "block/format/qcow2/big_endian.h"
#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {
namespace {

Outcome<> done(Status status) {
  if (status == Status::kOk) return {};
  return std::unexpected(status);
}

// The compressed data ends somewhere in its last sector, so what follows it is no error.
bool inflate_cluster(ByteSpan from, MutableByteSpan to) {
  z_stream stream{};
  if (::inflateInit2(&stream, -15) != Z_OK) return false;
  stream.next_in = const_cast<Bytef*>(from.data());
  stream.avail_in = static_cast<uInt>(from.size());
  stream.next_out = to.data();
  stream.avail_out = static_cast<uInt>(to.size());
  const int result = ::inflate(&stream, Z_FINISH);
  const bool full = stream.avail_out == 0;
  ::inflateEnd(&stream);
  return full && (result == Z_STREAM_END || result == Z_BUF_ERROR || result == Z_OK);
}

bool unpack_zstd(ByteSpan from, MutableByteSpan to) {
  ZSTD_DCtx* const context = ::ZSTD_createDCtx();
  if (context == nullptr) return false;
  ZSTD_inBuffer in{from.data(), from.size(), 0};
  ZSTD_outBuffer out{to.data(), to.size(), 0};
  size_t result = 1;
  while (out.pos < out.size) {
    const size_t before = in.pos + out.pos;
    result = ::ZSTD_decompressStream(context, &out, &in);
    if (::ZSTD_isError(result) != 0 || in.pos + out.pos == before) break;
  }
  ::ZSTD_freeDCtx(context);
  return out.pos == out.size;
}

}  // namespace

ExtentKind Qcow2Image::kind_of(uint64_t entry) const {
  if ((entry & kCompressed) != 0) return ExtentKind::kData;
  if (header_.version == 3 && (entry & kZeroFlag) != 0) return ExtentKind::kZero;
  return (entry & kOffsetMask) != 0 ? ExtentKind::kData : ExtentKind::kAbsent;
}

Outcome<> Qcow2Image::check_host(uint64_t host) {
  if ((host & (header_.cluster_size() - 1)) != 0) return corrupt("cluster not aligned", host, host);
  // The header and the first-level tables are never data, whatever a damaged table says.
  const uint64_t cluster = header_.cluster_size();
  const auto inside = [&](uint64_t begin, uint64_t size) {
    return host >= begin && host - begin < align_up(size, cluster);
  };
  if (host == 0 || inside(header_.l1_offset, uint64_t{header_.l1_size} * 8) ||
      inside(header_.refcount_table_offset, uint64_t{header_.refcount_table_clusters} << header_.cluster_bits)) {
    return corrupt("cluster overlaps the header or a first-level table", host, host);
  }
  return {};
}

Outcome<> Qcow2Image::read_backing(uint64_t guest, MutableByteSpan bytes) {
  const uint64_t below = backing_ ? backing_->geometry().size : 0;
  const uint64_t there = guest < below ? std::min<uint64_t>(bytes.size(), below - guest) : 0;
  std::ranges::fill(bytes.subspan(there), uint8_t{0});
  if (there == 0) return {};
  return done(backing_->read(guest, bytes.first(there)));
}

Outcome<> Qcow2Image::read_compressed(uint64_t entry, uint64_t within, MutableByteSpan bytes) {
  const uint32_t size_shift = 62 - (header_.cluster_bits - 8);
  const uint64_t offset = entry & ((uint64_t{1} << size_shift) - 1);
  const uint64_t sectors = (entry & (kCompressed - 1)) >> size_shift;
  std::vector<uint8_t> packed((sectors + 1) * 512 - offset % 512), cluster(header_.cluster_size());
  TRY(done(store_->read(offset, packed)));
  const bool good =
      header_.compression == Compression::kZstd ? unpack_zstd(packed, cluster) : inflate_cluster(packed, cluster);
  if (!good) return corrupt("compressed cluster cannot be unpacked", offset, entry);
  std::memcpy(bytes.data(), cluster.data() + within, bytes.size());
  return {};
}

Outcome<> Qcow2Image::read_entry(uint64_t entry, uint64_t guest, MutableByteSpan bytes) {
  const uint64_t within = guest & (header_.cluster_size() - 1);
  if ((entry & kCompressed) != 0) return read_compressed(entry, within, bytes);
  switch (kind_of(entry)) {
    case ExtentKind::kZero:
      std::ranges::fill(bytes, uint8_t{0});
      return {};
    case ExtentKind::kAbsent:
      return read_backing(guest, bytes);
    case ExtentKind::kData:
      break;
  }
  TRY(check_host(entry & kOffsetMask));
  return done(store_->read((entry & kOffsetMask) + within, bytes));
}

Outcome<> Qcow2Image::read_piece(uint64_t guest, MutableByteSpan bytes) {
  uint64_t entry = 0;
  {
    const LockGuard lock(mutex_);
    const TableRef l2 = TRY(l2_to_read(guest));
    if (l2) entry = load64(&l2->bytes[l2_index(guest) * 8]);
    ++in_flight_;
  }
  const Outcome<> outcome = read_entry(entry, guest, bytes);
  const LockGuard lock(mutex_);
  --in_flight_;
  return outcome;
}

Outcome<> Qcow2Image::write_piece(uint64_t guest, ByteSpan bytes) {
  const uint64_t within = guest & (header_.cluster_size() - 1);
  uint64_t in_place = 0;
  {
    const LockGuard lock(mutex_);
    const TableRef l2 = TRY(l2_to_write(guest));
    uint8_t* const slot = &l2->bytes[l2_index(guest) * 8];
    const uint64_t old = load64(slot);
    if ((old & kCopied) != 0 && kind_of(old) == ExtentKind::kData && (old & kCompressed) == 0) {
      TRY(check_host(old & kOffsetMask));
      in_place = (old & kOffsetMask) + within;
      ++in_flight_;
    } else {
      const uint64_t host = TRY(allocate());
      if (bytes.size() == header_.cluster_size()) {
        TRY(done(store_->write(host, bytes)));
      } else {
        std::vector<uint8_t> cluster(header_.cluster_size());
        // The guest's last cluster may reach beyond the disk.
        const uint64_t start = guest - within;
        const uint64_t used = std::min<uint64_t>(cluster.size(), geometry_.size - start);
        TRY(read_entry(old, start, MutableByteSpan(cluster).first(used)));
        std::memcpy(cluster.data() + within, bytes.data(), bytes.size());
        TRY(done(store_->write(host, cluster)));
      }
      store64(slot, host | kCopied);
      l2->dirty = true;
      release(old);
    }
  }
  if (in_place == 0) return {};
  const Outcome<> outcome = done(store_->write(in_place, bytes));
  const LockGuard lock(mutex_);
  --in_flight_;
  return outcome;
}

Outcome<> Qcow2Image::zero_piece(uint64_t guest, uint64_t size, bool discard) {
  const uint64_t within = guest & (header_.cluster_size() - 1);
  const bool whole = within == 0 && (size == header_.cluster_size() || guest + size == geometry_.size);
  if (discard && (!whole || (header_.version == 2 && backing_))) return {};
  if (whole && (header_.version == 3 || !backing_)) {
    const LockGuard lock(mutex_);
    const TableRef there = TRY(l2_to_read(guest));
    if (!there && !backing_) return {};
    const TableRef l2 = TRY(l2_to_write(guest));
    uint8_t* const slot = &l2->bytes[l2_index(guest) * 8];
    const uint64_t old = load64(slot), wanted = header_.version == 3 && backing_ ? kZeroFlag : 0;
    if (old == wanted || (!backing_ && old == kZeroFlag)) return {};
    store64(slot, wanted);
    l2->dirty = true;
    release(old);
    return {};
  }
  const std::vector<uint8_t> zeroes(size);
  return write_piece(guest, zeroes);
}

}  // namespace bulkhead::block::qcow2
