// Reading guest bytes: through tables, compression and the backing file.
#include <algorithm>

#include <zlib.h>
#include <zstd.h>

#include "block/format/big_endian.h"
#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {
namespace {

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
  // A frame may ask for a window of its own choice, and gets what every decoder has to offer (RFC 8878, 3.1.1.1.2).
  (void)::ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, 23);
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

bool Qcow2Image::may_be_data(uint64_t host) const {
  const uint64_t cluster = header_.cluster_size();
  const auto inside = [&](uint64_t begin, uint64_t size) {
    return host >= begin && host - begin < align_up(size, cluster);
  };
  return host != 0 && (host & (cluster - 1)) == 0 && !inside(header_.l1_offset, uint64_t{header_.l1_size} * 8) &&
         !inside(header_.crypto_offset, header_.crypto_length) &&
         !inside(header_.refcount_table_offset, uint64_t{header_.refcount_table_clusters} << header_.cluster_bits);
}

Outcome<> Qcow2Image::check_host(uint64_t host) {
  if (may_be_data(host)) return {};
  return corrupt("cluster not aligned, or over the header or a first-level table", host, host);
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

Outcome<> Qcow2Image::read_leaf(const Leaf& leaf, uint64_t guest, MutableByteSpan bytes) {
  const uint64_t within = guest & (header_.cluster_size() - 1);
  if (leaf.compressed()) return read_compressed(leaf.entry, within, bytes);
  switch (kind_of(leaf, guest)) {
    case ExtentKind::kZero:
      std::ranges::fill(bytes, uint8_t{0});
      return {};
    case ExtentKind::kAbsent:
      return read_backing(guest, bytes);
    case ExtentKind::kData:
      break;
  }
  return done(data().read(leaf.host() + within, bytes));
}

Outcome<Qcow2Image::Piece> Qcow2Image::find(uint64_t guest, uint64_t size) {
  const uint64_t cluster = header_.cluster_size(), within = guest & (cluster - 1);
  const TableRef l2 = TRY(l2_to_read(guest));
  if (!l2) return Piece{{}, std::min(size, (header_.l2_entries() - l2_index(guest)) * cluster - within)};
  uint64_t index = l2_index(guest);
  Piece piece{leaf_at(l2->bytes, index), 0};
  TRY(check_leaf(piece.leaf, guest));
  piece.size = std::min(size, run_of(piece.leaf, guest));
  const ExtentKind kind = kind_of(piece.leaf, guest);
  if (piece.leaf.compressed()) return piece;
  for (uint64_t at = guest + piece.size; piece.size < size && (at & (cluster - 1)) == 0; at = guest + piece.size) {
    if (++index == header_.l2_entries()) break;
    const Leaf next = leaf_at(l2->bytes, index);
    if (next.compressed() || fault_of(next) != nullptr || kind_of(next, at) != kind) break;
    const uint64_t host = piece.leaf.host() + (at - (guest - within));
    if (kind == ExtentKind::kData && (next.host() != host || (!header_.external() && !may_be_data(host)))) break;
    piece.size += std::min(size - piece.size, run_of(next, at));
  }
  return piece;
}

Outcome<uint64_t> Qcow2Image::read_some(uint64_t guest, MutableByteSpan bytes) {
  Piece piece;
  unsigned epoch = 0;
  {
    const LockGuard lock(mutex_);
    TRY(fetch_l2(guest));
    piece = TRY(find(guest, bytes.size()));
    begin_operation(epoch);
  }
  const Outcome<> outcome = read_leaf(piece.leaf, guest, bytes.first(piece.size));
  const LockGuard lock(mutex_);
  end_operation(epoch);
  if (!outcome) return std::unexpected(outcome.error());
  return piece.size;
}

}  // namespace bulkhead::block::qcow2
