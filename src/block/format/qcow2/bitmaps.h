// A persistent bitmap as its directory states it, and what is in memory of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bulkhead::block::qcow2 {

// Of all that an image keeps in memory, and of one in the file.
inline constexpr uint64_t kLargestBitmap = uint64_t{16} << 20;

struct BitmapEntry {
  uint64_t table_offset = 0;  // 0: not on the disk yet
  uint32_t table_size = 0;    // entries
  uint32_t flags = 0;
  uint64_t flags_at = 0;  // in the file
  uint8_t granularity_bits = 16;
  std::string name;
  bool loaded = false;  // bits says what is so, and not the disk
  uint64_t bit_count = 0;
  std::vector<uint8_t> bits = {};

  [[nodiscard]] uint64_t bits_for(uint64_t disk_size) const;
  [[nodiscard]] uint64_t bytes_for(uint64_t disk_size) const { return (bits_for(disk_size) + 7) / 8; }
  // The bits for a disk of that size: those that are there stay, others are clear.
  void resize(uint64_t disk_size);
  void note(uint64_t offset, uint64_t size);
};

}  // namespace bulkhead::block::qcow2
