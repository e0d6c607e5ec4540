// The first sector of a VMDK sparse extent as a plain value, checked against the limits here and the size of the file:
// of hosted products ("KDMV"), and of ESXi, which makes its snapshots so ("COWD"). Source: VMware's Virtual Disk Format
// 5.0.
#pragma once

#include "block/format/image.h"

namespace bulkhead::block::vmdk {

inline constexpr uint64_t kSector = 512;
inline constexpr uint64_t kUncleanField = 72;
inline constexpr uint32_t kHasRedundantTables = 2, kHasZeroGrains = 4, kCompressed = 1 << 16, kHasMarkers = 1 << 17;
inline constexpr uint64_t kDirectoryAtEnd = UINT64_MAX;
inline constexpr uint32_t kOurTableEntries = 512;
inline constexpr uint64_t kOurGrainSectors = 128;
inline constexpr uint32_t kServerTableEntries = 4096;
inline constexpr uint64_t kLargestDiskSectors = uint64_t{1} << 32;  // 2 TiB
inline constexpr uint64_t kMostDescriptorBytes = 1 << 20;

// Offsets and sizes in sectors.
struct SparseHeader {
  uint32_t version = 1;
  uint32_t flags = 1;
  uint64_t capacity = 0;
  uint64_t grain = kOurGrainSectors;
  uint64_t descriptor_at = 0, descriptor_size = 0;
  uint32_t table_entries = kOurTableEntries;
  uint64_t redundant_directory = 0, directory = 0;
  uint64_t overhead = 0;
  bool unclean = false;
  bool of_server = false;  // ESXi's, which are read only

  [[nodiscard]] uint64_t table_count() const {
    const uint64_t reach = grain * table_entries;
    return (capacity + reach - 1) / reach;
  }
  [[nodiscard]] uint64_t table_bytes() const { return uint64_t{table_entries} * 4; }
  [[nodiscard]] uint64_t directory_bytes() const { return align_up(table_count() * 4, kSector); }
  [[nodiscard]] bool has_redundant() const { return (flags & kHasRedundantTables) != 0 && redundant_directory != 0; }
};

// bytes: one sector, read at an offset of the file.
[[nodiscard]] bool is_sparse_header(ByteSpan bytes);
Result<SparseHeader> parse_sparse_header(ByteSpan bytes, const std::string& name, uint64_t offset, uint64_t file_size);
std::vector<uint8_t> make_sparse_header(const SparseHeader& header);

}  // namespace bulkhead::block::vmdk
