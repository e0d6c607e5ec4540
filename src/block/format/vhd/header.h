// The footer and the dynamic header of a VHD file as plain values. Nothing in them is used before it has been checked
// against its checksum, the limits here and the size of the file. Source: Microsoft's Virtual Hard Disk Image Format
// Specification of 2006.
#pragma once

#include <optional>
#include <string>

#include "block/format/guid.h"
#include "block/format/image.h"

namespace bulkhead::block::vhd {

inline constexpr uint64_t kSector = 512;
inline constexpr uint64_t kHeaderBytes = 1024;
inline constexpr uint64_t kLargestDisk = uint64_t{2040} << 30;
inline constexpr uint32_t kUnused = 0xFFFFFFFF;
inline constexpr uint32_t kDefaultBlockBytes = 2 << 20;
inline constexpr uint32_t kLeastBlockBytes = 4096, kMostBlockBytes = 256 << 20;

enum class DiskType : uint32_t { kFixed = 2, kDynamic = 3, kDifferencing = 4 };

struct Footer {
  uint64_t header_offset = UINT64_MAX;  // of the dynamic header
  uint32_t timestamp = 0;               // seconds since the year 2000
  std::string creator = "win ";         // four letters; "vpc " and "qemu" mean that the geometry is the size
  uint64_t original_size = 0, current_size = 0;
  uint16_t cylinders = 0;
  uint8_t heads = 0, sectors = 0;
  DiskType type = DiskType::kFixed;
  Guid id{};

  // Of the disk that a guest sees.
  [[nodiscard]] uint64_t disk_size() const;
};

struct ParentLocator {
  uint32_t platform = 0;  // four letters
  uint32_t size = 0;      // bytes
  uint64_t offset = 0;
};
inline constexpr uint32_t kRelativeName = 0x57327275;  // W2ru
inline constexpr uint32_t kAbsoluteName = 0x57326B75;  // W2ku

struct Header {
  uint64_t table_offset = 0;
  uint32_t entries = 0;
  uint32_t block_bytes = kDefaultBlockBytes;
  Guid parent_id{};
  uint32_t parent_timestamp = 0;
  std::string parent_name;
  std::array<ParentLocator, 8> locators{};

  // The bits that say which sectors of a block count, in front of it.
  [[nodiscard]] uint64_t bitmap_bytes() const { return align_up((block_bytes / kSector + 7) / 8, kSector); }
  [[nodiscard]] uint64_t table_bytes() const { return align_up(uint64_t{entries} * 4, kSector); }
};

// 512 bytes. Empty when they are no footer; an error when they are one that makes no sense.
Result<std::optional<Footer>> parse_footer(ByteSpan bytes, const std::string& name, uint64_t offset);
std::vector<uint8_t> make_footer(const Footer& footer);
void set_geometry(Footer& footer);

// kHeaderBytes bytes that stand at an offset of the file.
Result<Header> parse_header(ByteSpan bytes, const std::string& name, uint64_t offset, const Footer& footer,
                            uint64_t file_size);
std::vector<uint8_t> make_header(const Header& header);
// Puts into the header which file its parent is, by the identity that this says of itself; gives what the header's
// first locator leads to, whose offset is left to the caller.
Result<std::vector<uint8_t>> name_parent(Header& header, const std::string& name, const std::string& identity);
[[nodiscard]] uint32_t seconds_since_2000();

}  // namespace bulkhead::block::vhd
