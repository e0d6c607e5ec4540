#include "block/format/qcow2/header.h"

#include <algorithm>
#include <utility>

#include "block/format/big_endian.h"

namespace bulkhead::block::qcow2 {
namespace {

constexpr size_t kVersion2Length = 72, kVersion3Length = 104, kOurLength = 112;
constexpr uint32_t kBackingFormatExtension = 0xE2792ACA, kBitmapsExtension = 0x23852875, kCryptoExtension = 0x0537BE77,
                   kDataExtension = 0x44415441;

std::string text(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Result<> parse_extensions(ByteSpan bytes, size_t at, Header& header, const std::string& name) {
  while (bytes.size() - at >= 8) {
    const uint32_t type = load32(&bytes[at]), length = load32(&bytes[at + 4]);
    if (type == 0) return {};
    at += 8;
    if (length > bytes.size() - at) {
      return fail("open '{}': header extension {:#x} at byte {} has length {}, beyond the first cluster", name, type,
                  at - 8, length);
    }
    if (type == kBackingFormatExtension) header.backing_format = text(bytes.subspan(at, length));
    if (type == kDataExtension && header.external()) header.data_name = text(bytes.subspan(at, length));
    // Without the bit, whoever wrote last did not know of them.
    if (type == kBitmapsExtension && length >= 24 && (header.autoclear & kAutoclearBitmaps) != 0) {
      // With a count of none, nothing else of it means anything.
      if (const uint32_t count = load32(&bytes[at]); count != 0) {
        header.bitmaps = {count, load64(&bytes[at + 8]), load64(&bytes[at + 16])};
      }
    }
    if (type == kCryptoExtension && length >= 16 && header.encryption == Encryption::kLuks) {
      header.crypto_offset = load64(&bytes[at]);
      header.crypto_length = load64(&bytes[at + 8]);
    }
    at += std::min<size_t>(align_up(length, 8), bytes.size() - at);
  }
  return {};
}

Result<> check_limits(const Header& header, const std::string& name, uint64_t file_size) {
  const uint64_t mask = header.cluster_size() - 1;
  if (header.size > (uint64_t{1} << 62)) return fail("open '{}': virtual size {} at byte 24", name, header.size);
  const uint64_t l1_needed =
      (header.size + header.cluster_size() * header.l2_entries() - 1) / (header.cluster_size() * header.l2_entries());
  const uint64_t l1_bytes = uint64_t{header.l1_size} * 8;
  if (header.l1_size < l1_needed || l1_bytes > kMaxL1Bytes) {
    return fail("open '{}': L1 table of {} entries at byte 36, need {}, limit {}", name, header.l1_size, l1_needed,
                kMaxL1Bytes / 8);
  }
  if ((header.l1_offset & mask) != 0 || !range_fits(header.l1_offset, l1_bytes, file_size)) {
    return fail("open '{}': L1 table at {:#x} (byte 40) lies outside the file ({} bytes) or is not aligned", name,
                header.l1_offset, file_size);
  }
  const uint64_t table_bytes = uint64_t{header.refcount_table_clusters} << header.cluster_bits;
  if (table_bytes == 0 || table_bytes > kMaxRefcountTableBytes) {
    return fail("open '{}': refcount table of {} clusters at byte 56", name, header.refcount_table_clusters);
  }
  if (header.refcount_table_offset == 0 || (header.refcount_table_offset & mask) != 0 ||
      !range_fits(header.refcount_table_offset, table_bytes, align_up(file_size, header.cluster_size()))) {
    return fail("open '{}': refcount table at {:#x} (byte 48) lies outside the file ({} bytes) or is not aligned", name,
                header.refcount_table_offset, file_size);
  }
  if (header.snapshot_count > kMaxSnapshots || (header.snapshots_offset & mask) != 0) {
    return fail("open '{}': {} snapshots at {:#x}", name, header.snapshot_count, header.snapshots_offset);
  }
  return {};
}

Result<> check_crypto(const Header& header, const std::string& name, uint64_t file_size) {
  if (header.encryption == Encryption::kNone) return {};
  const uint64_t cluster = header.cluster_size();
  if (header.crypto_length != 0 && header.crypto_length <= kLargestCrypto && header.crypto_offset != 0 &&
      header.crypto_offset % cluster == 0 && range_fits(header.crypto_offset, header.crypto_length, file_size)) {
    return {};
  }
  return fail("open '{}': encryption header of {} bytes at {:#x} lies outside the file ({} bytes) or is not aligned",
              name, header.crypto_length, header.crypto_offset, file_size);
}

Result<> check_data_file(const Header& header, const std::string& name) {
  if (!header.external()) return {};
  if (header.data_name.empty() || header.data_name.size() > kMaxBackingName ||
      header.data_name.find('\0') != std::string::npos) {
    return fail("open '{}': external data file (bit 2 at byte 72), whose name has {} bytes or a zero in it", name,
                header.data_name.size());
  }
  return {};
}

Result<> check_bitmaps(const Header& header, const std::string& name, uint64_t file_size) {
  const auto& [count, size, offset] = header.bitmaps;
  if (count == 0) return {};
  if (size <= kLargestBitmapDirectory && offset != 0 && offset % header.cluster_size() == 0 &&
      range_fits(offset, size, file_size)) {
    return {};
  }
  return fail("open '{}': bitmap directory of {} bytes at {:#x} lies outside the file ({} bytes) or is not aligned",
              name, size, offset, file_size);
}

Result<size_t> parse_version3(ByteSpan bytes, Header& header, const std::string& name) {
  header.incompatible = load64(&bytes[72]);
  header.compatible = load64(&bytes[80]);
  header.autoclear = load64(&bytes[88]);
  header.refcount_order = load32(&bytes[96]);
  const size_t length = load32(&bytes[100]);
  if (length < kVersion3Length || length % 8 != 0 || length > std::min<size_t>(bytes.size(), header.cluster_size())) {
    return fail("open '{}': header length {} at byte 100", name, length);
  }
  if (header.refcount_order > 6) return fail("open '{}': refcount order {} at byte 96", name, header.refcount_order);
  if (header.extended() && header.cluster_bits < kMinExtendedBits) {
    return fail("open '{}': extended L2 entries (bit 4 at byte 72) with cluster bits {} at byte 20, from {} on", name,
                header.cluster_bits, kMinExtendedBits);
  }
  const uint64_t unknown = header.incompatible & ~(kDirty | kCorrupt | kExternalData | kCompressionType | kExtendedL2);
  if (unknown != 0) return fail("open '{}': unknown incompatible features {:#x} at byte 72", name, unknown);
  const uint8_t compression = length > 104 ? bytes[104] : 0;
  if (((header.incompatible & kCompressionType) != 0) != (compression != 0) || compression > 1) {
    return fail("open '{}': compression type {} at byte 104", name, compression);
  }
  header.compression = Compression{compression};
  return length;
}

}  // namespace

Result<Header> parse_header(ByteSpan bytes, const std::string& name, uint64_t file_size) {
  if (bytes.size() < kVersion2Length || load32(&bytes[0]) != kMagic) return fail("open '{}': no qcow2 image", name);
  Header header;
  header.version = load32(&bytes[4]);
  if (header.version != 2 && header.version != 3) return fail("open '{}': version {} at byte 4", name, header.version);
  header.cluster_bits = load32(&bytes[20]);
  if (header.cluster_bits < kMinClusterBits || header.cluster_bits > kMaxClusterBits) {
    return fail("open '{}': cluster bits {} at byte 20, allowed are {} to {}", name, header.cluster_bits,
                kMinClusterBits, kMaxClusterBits);
  }
  bytes = bytes.first(std::min<size_t>(bytes.size(), header.cluster_size()));
  header.size = load64(&bytes[24]);
  header.encryption = Encryption{load32(&bytes[32])};
  if (header.encryption != Encryption::kNone && header.encryption != Encryption::kLuks) {
    return fail("open '{}': encryption method {} at byte 32; known is 2, LUKS", name, load32(&bytes[32]));
  }
  header.l1_size = load32(&bytes[36]);
  header.l1_offset = load64(&bytes[40]);
  header.refcount_table_offset = load64(&bytes[48]);
  header.refcount_table_clusters = load32(&bytes[56]);
  header.snapshot_count = load32(&bytes[60]);
  header.snapshots_offset = load64(&bytes[64]);
  size_t length = kVersion2Length;
  if (header.version == 3) {
    if (bytes.size() < kVersion3Length) return fail("open '{}': the file ends in the header", name);
    length = TRY(parse_version3(bytes, header, name));
  }
  TRY(check_limits(header, name, file_size));
  TRY(parse_extensions(bytes, length, header, name));
  TRY(check_crypto(header, name, file_size));
  TRY(check_bitmaps(header, name, file_size));
  TRY(check_data_file(header, name));
  const uint64_t at = load64(&bytes[8]);
  const uint32_t size = load32(&bytes[16]);
  if (at != 0) {
    if (size == 0 || size > kMaxBackingName || !range_fits(at, size, bytes.size())) {
      return fail("open '{}': backing file name of {} bytes at {:#x} lies outside the first cluster", name, size, at);
    }
    if (header.raw_data()) return fail("open '{}': raw external data (bit 1 at byte 88) and a backing file", name);
    header.backing_name = text(bytes.subspan(at, size));
    if (header.backing_name.find('\0') != std::string::npos) {
      return fail("open '{}': zero byte in the backing file name at {:#x}", name, at);
    }
  }
  return header;
}

Result<std::vector<uint8_t>> make_header(const Header& header) {
  std::vector<uint8_t> bytes(header.cluster_size());
  const size_t length = header.version == 3 ? kOurLength : kVersion2Length;
  const std::string& format = header.backing_format;
  const size_t crypto_end = length + (header.encryption == Encryption::kNone ? 0 : 24);
  const size_t bitmaps_end = crypto_end + (header.bitmaps.count == 0 ? 0 : 32);
  const size_t data_end = bitmaps_end + (header.external() ? 8 + align_up(header.data_name.size(), 8) : 0);
  const size_t format_end = data_end + (format.empty() ? 0 : 8 + align_up(format.size(), 8));
  const size_t name_at = format_end + 8;
  if (header.backing_name.size() > kMaxBackingName || name_at + header.backing_name.size() > bytes.size()) {
    return fail("backing file name of {} bytes, or data file name of {}, does not fit the header",
                header.backing_name.size(), header.data_name.size());
  }
  store32(&bytes[0], kMagic);
  store32(&bytes[4], header.version);
  if (!header.backing_name.empty()) {
    store64(&bytes[8], name_at);
    store32(&bytes[16], static_cast<uint32_t>(header.backing_name.size()));
    std::memcpy(&bytes[name_at], header.backing_name.data(), header.backing_name.size());
  }
  store32(&bytes[20], header.cluster_bits);
  store64(&bytes[24], header.size);
  store32(&bytes[32], std::to_underlying(header.encryption));
  store32(&bytes[36], header.l1_size);
  store64(&bytes[40], header.l1_offset);
  store64(&bytes[48], header.refcount_table_offset);
  store32(&bytes[56], header.refcount_table_clusters);
  store32(&bytes[60], header.snapshot_count);
  store64(&bytes[64], header.snapshots_offset);
  if (header.version == 3) {
    store64(&bytes[72], header.incompatible);
    store64(&bytes[80], header.compatible);
    store64(&bytes[88], header.autoclear);
    store32(&bytes[96], header.refcount_order);
    store32(&bytes[100], kOurLength);
    bytes[104] = static_cast<uint8_t>(header.compression);
  }
  if (header.encryption != Encryption::kNone) {
    store32(&bytes[length], kCryptoExtension);
    store32(&bytes[length + 4], 16);
    store64(&bytes[length + 8], header.crypto_offset);
    store64(&bytes[length + 16], header.crypto_length);
  }
  if (header.bitmaps.count != 0) {
    store32(&bytes[crypto_end], kBitmapsExtension);
    store32(&bytes[crypto_end + 4], 24);
    store32(&bytes[crypto_end + 8], header.bitmaps.count);
    store64(&bytes[crypto_end + 16], header.bitmaps.directory_size);
    store64(&bytes[crypto_end + 24], header.bitmaps.directory_offset);
  }
  const auto put_text = [&bytes](size_t at, uint32_t type, const std::string& value) {
    store32(&bytes[at], type);
    store32(&bytes[at + 4], static_cast<uint32_t>(value.size()));
    std::memcpy(&bytes[at + 8], value.data(), value.size());
  };
  if (header.external()) put_text(bitmaps_end, kDataExtension, header.data_name);
  if (!format.empty()) put_text(data_end, kBackingFormatExtension, format);
  return bytes;
}

}  // namespace bulkhead::block::qcow2
