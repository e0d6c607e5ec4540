// The metadata region of a VHDX file: what the disk is like, and which file is its parent. Source: [MS-VHDX] 2.6.
#pragma once

#include "block/format/vhdx/header.h"

namespace bulkhead::block::vhdx {

inline constexpr uint64_t kLargestDisk = uint64_t{64} << 40;
inline constexpr uint32_t kMostBlockBytes = 256 << 20;

struct Metadata {
  uint32_t block_bytes = 32 << 20;
  bool leaves_blocks_allocated = false;  // a fixed disk
  bool has_parent = false;
  uint64_t disk_bytes = 0;
  Guid disk_id{};
  uint32_t logical_sector = 512, physical_sector = 4096;
  std::string parent_linkage;  // the parent's data_write_id, as text
  std::string parent_name;     // in our notation, relative
  uint64_t disk_bytes_at = 0;  // where it stands in the file

  // Blocks whose sectors one bitmap block covers.
  [[nodiscard]] uint64_t chunk_ratio() const { return (uint64_t{1} << 23) * logical_sector / block_bytes; }
  [[nodiscard]] uint64_t block_count() const { return (disk_bytes + block_bytes - 1) / block_bytes; }
  // Entries that the table needs.
  [[nodiscard]] uint64_t entry_count() const {
    const uint64_t chunks = (block_count() + chunk_ratio() - 1) / chunk_ratio();
    return has_parent ? chunks * (chunk_ratio() + 1) : block_count() + (chunks == 0 ? 0 : chunks - 1);
  }
};

Result<Metadata> read_metadata(Store& store, const Region& region);
// The whole region.
Result<std::vector<uint8_t>> make_metadata(const Metadata& metadata);

}  // namespace bulkhead::block::vhdx
