// The first cluster of a QCOW2 image (versions 2 and 3), as one plain value. Nothing that it holds is used before
// parse_header has checked it against the limits here and the size of the file. Source: QEMU's docs/interop/qcow2.
#pragma once

#include <string>

#include "block/format/image.h"

namespace bulkhead::block::qcow2 {

inline constexpr uint32_t kMagic = 0x514649FB;
inline constexpr uint32_t kMinClusterBits = 9, kMaxClusterBits = 21;
inline constexpr uint64_t kMaxL1Bytes = uint64_t{32} << 20;
inline constexpr uint64_t kMaxRefcountTableBytes = uint64_t{8} << 20;
inline constexpr uint32_t kMaxSnapshots = 65536;
inline constexpr uint64_t kLargestDisk = uint64_t{1} << 62;
inline constexpr uint32_t kMaxBackingName = 1023;  // of a data file too
inline constexpr uint32_t kMinExtendedBits = 14;   // 32 subclusters of a sector at least

inline constexpr uint64_t kDirty = 1, kCorrupt = 2, kExternalData = 4, kCompressionType = 8, kExtendedL2 = 16;
inline constexpr uint64_t kLazyRefcounts = 1;  // compatible
inline constexpr uint64_t kAutoclearBitmaps = 1, kRawData = 2;

// Where fields lie that are rewritten alone.
inline constexpr uint64_t kSizeField = 24, kL1Field = 36;
inline constexpr uint64_t kRefcountTableField = 48, kIncompatibleField = 72, kAutoclearField = 88;

enum class Encryption : uint32_t { kNone = 0, kLuks = 2 };  // 1 was broken by design, and is refused
inline constexpr uint64_t kLargestBitmapDirectory = uint64_t{256} << 10;
inline constexpr uint64_t kLargestCrypto = uint64_t{64} << 20;

enum class Compression : uint8_t { kZlib = 0, kZstd = 1 };

struct Header {
  uint32_t version = 3;
  uint32_t cluster_bits = 16;
  uint64_t size = 0;
  uint32_t l1_size = 0;
  uint64_t l1_offset = 0;
  uint64_t refcount_table_offset = 0;
  uint32_t refcount_table_clusters = 0;
  uint32_t snapshot_count = 0;
  uint64_t snapshots_offset = 0;
  uint64_t incompatible = 0, compatible = 0, autoclear = 0;
  uint32_t refcount_order = 4;
  Compression compression = Compression::kZlib;
  Encryption encryption = Encryption::kNone;
  uint64_t crypto_offset = 0, crypto_length = 0;  // where the LUKS1 header and its keyslots lie
  struct {
    uint32_t count = 0;  // 0: none, or none that counts
    uint64_t directory_size = 0, directory_offset = 0;
  } bitmaps;
  std::string backing_name, backing_format;
  std::string data_name;  // of the file that holds guest clusters; empty: this one does

  [[nodiscard]] uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  [[nodiscard]] bool extended() const { return (incompatible & kExtendedL2) != 0; }
  [[nodiscard]] bool external() const { return (incompatible & kExternalData) != 0; }
  [[nodiscard]] bool raw_data() const { return external() && (autoclear & kRawData) != 0; }
  [[nodiscard]] uint64_t l2_entry_size() const { return extended() ? 16 : 8; }
  [[nodiscard]] uint64_t l2_entries() const { return cluster_size() / l2_entry_size(); }
  // What an L2 entry says something of by itself: a subcluster, or the cluster.
  [[nodiscard]] uint64_t unit_size() const { return extended() ? cluster_size() / 32 : cluster_size(); }
  [[nodiscard]] uint64_t refcounts_a_block() const { return cluster_size() * 8 >> refcount_order; }
};

// bytes: the beginning of the file, up to one cluster of the largest size. The error names the file, the place and the
// value.
Result<Header> parse_header(ByteSpan bytes, const std::string& name, uint64_t file_size);
// One cluster; fails when the backing file's name does not fit.
Result<std::vector<uint8_t>> make_header(const Header& header);

}  // namespace bulkhead::block::qcow2
