#include "block/format/vmdk/sparse_header.h"

#include <algorithm>
#include <bit>

namespace bulkhead::block::vmdk {
namespace {

constexpr uint32_t kMagic = 0x564D444B, kServerMagic = 0x44574F43;
constexpr uint64_t kMostGrainSectors = (uint64_t{64} << 20) / kSector;
// A compressed grain is unpacked whole for each piece of it; the specification knows those of 64 KiB only.
constexpr uint64_t kMostCompressedGrainSectors = (uint64_t{2} << 20) / kSector;
constexpr std::array<uint8_t, 4> kLineEnds{'\n', ' ', '\r', '\n'};

bool inside(uint64_t sector, uint64_t bytes, uint64_t file_size) {
  return sector <= file_size / kSector && range_fits(sector * kSector, bytes, align_up(file_size, kSector));
}

// byte: where in the file its size stands.
Result<> check_grain(const SparseHeader& header, const std::string& name, uint64_t byte, uint64_t most_sectors) {
  if (std::has_single_bit(header.grain) && header.grain <= most_sectors) return {};
  return fail("open '{}': grain of {} sectors at byte {}, allowed are powers of two up to {}", name, header.grain, byte,
              most_sectors);
}

Result<> check_places(const SparseHeader& header, const std::string& name, uint64_t offset, uint64_t file_size) {
  if (header.directory != kDirectoryAtEnd && !inside(header.directory, header.directory_bytes(), file_size)) {
    return fail("open '{}': grain directory at sector {:#x} (byte {}) lies outside the file ({} bytes)", name,
                header.directory, offset + 56, file_size);
  }
  if (header.has_redundant() && !inside(header.redundant_directory, header.directory_bytes(), file_size)) {
    return fail("open '{}': redundant grain directory at sector {:#x} (byte {}) lies outside the file ({} bytes)", name,
                header.redundant_directory, offset + 48, file_size);
  }
  if (header.descriptor_at != 0 && (header.descriptor_size > kMostDescriptorBytes / kSector ||
                                    !inside(header.descriptor_at, header.descriptor_size * kSector, file_size))) {
    return fail("open '{}': descriptor of {} sectors at sector {:#x} (byte {})", name, header.descriptor_size,
                header.descriptor_at, offset + 28);
  }
  return {};
}

// All fields have 32 bits; there is one directory, and no descriptor inside.
Result<SparseHeader> parse_server_header(ByteSpan bytes, const std::string& name, uint64_t file_size) {
  SparseHeader header{.version = load<uint32_t>(&bytes[4]),
                      .flags = 0,
                      .capacity = load<uint32_t>(&bytes[12]),
                      .grain = load<uint32_t>(&bytes[16]),
                      .table_entries = kServerTableEntries,
                      .directory = load<uint32_t>(&bytes[20]),
                      .of_server = true};
  const auto entries = load<uint32_t>(&bytes[24]);
  // Version 3 is of Workstation 3, with other tables.
  if (header.version != 1) return fail("open '{}': version {} of COWD at byte 4", name, header.version);
  TRY(check_grain(header, name, 16, kMostGrainSectors));
  if (entries < header.table_count()) {
    return fail("open '{}': a grain directory of {} entries at byte 24, {} sectors need {}", name, entries,
                header.capacity, header.table_count());
  }
  if (header.directory == 0 || !inside(header.directory, header.directory_bytes(), file_size)) {
    return fail("open '{}': grain directory at sector {:#x} (byte 20) lies outside the file ({} bytes)", name,
                header.directory, file_size);
  }
  return header;
}

bool has_magic(ByteSpan bytes, uint32_t magic) {
  return bytes.size() >= kSector && load<uint32_t>(&bytes[0]) == magic;
}

}  // namespace

bool is_sparse_header(ByteSpan bytes) {
  return has_magic(bytes, kMagic) || has_magic(bytes, kServerMagic);
}

Result<SparseHeader> parse_sparse_header(ByteSpan bytes, const std::string& name, uint64_t offset, uint64_t file_size) {
  if (has_magic(bytes, kServerMagic)) return parse_server_header(bytes, name, file_size);
  if (!has_magic(bytes, kMagic)) return fail("open '{}': no VMDK sparse extent", name);
  SparseHeader header;
  header.version = load<uint32_t>(&bytes[4]);
  header.flags = load<uint32_t>(&bytes[8]);
  header.capacity = load<uint64_t>(&bytes[12]);
  header.grain = load<uint64_t>(&bytes[20]);
  header.descriptor_at = load<uint64_t>(&bytes[28]);
  header.descriptor_size = load<uint64_t>(&bytes[36]);
  header.table_entries = load<uint32_t>(&bytes[44]);
  header.redundant_directory = load<uint64_t>(&bytes[48]);
  header.directory = load<uint64_t>(&bytes[56]);
  header.overhead = load<uint64_t>(&bytes[64]);
  header.unclean = bytes[kUncleanField] != 0;
  if (header.version < 1 || header.version > 3) {
    return fail("open '{}': version {} at byte {}", name, header.version, offset + 4);
  }
  if (header.capacity > kLargestDiskSectors) {
    return fail("open '{}': capacity of {} sectors at byte {}", name, header.capacity, offset + 12);
  }
  const bool compressed = (header.flags & kCompressed) != 0;
  TRY(check_grain(header, name, offset + 20, compressed ? kMostCompressedGrainSectors : kMostGrainSectors));
  if (!std::has_single_bit(header.table_entries) || header.table_entries > 4096) {
    return fail("open '{}': grain tables of {} entries at byte {}", name, header.table_entries, offset + 44);
  }
  if (!std::ranges::equal(bytes.subspan(73, 4), kLineEnds)) {
    return fail("open '{}': bytes {} to {} show that the file was changed as if it were text", name, offset + 73,
                offset + 76);
  }
  const auto compression = load<uint16_t>(&bytes[77]);
  if (compression > 1 || (compression == 1) != ((header.flags & kCompressed) != 0)) {
    return fail("open '{}': compression {} at byte {}", name, compression, offset + 77);
  }
  TRY(check_places(header, name, offset, file_size));
  return header;
}

std::vector<uint8_t> make_sparse_header(const SparseHeader& header) {
  std::vector<uint8_t> bytes(kSector);
  store(&bytes[0], kMagic);
  store(&bytes[4], header.version);
  store(&bytes[8], header.flags);
  store(&bytes[12], header.capacity);
  store(&bytes[20], header.grain);
  store(&bytes[28], header.descriptor_at);
  store(&bytes[36], header.descriptor_size);
  store(&bytes[44], header.table_entries);
  store(&bytes[48], header.redundant_directory);
  store(&bytes[56], header.directory);
  store(&bytes[64], header.overhead);
  bytes[kUncleanField] = header.unclean ? 1 : 0;
  std::ranges::copy(kLineEnds, bytes.begin() + 73);
  store(&bytes[77], static_cast<uint16_t>((header.flags & kCompressed) != 0 ? 1 : 0));
  return bytes;
}

}  // namespace bulkhead::block::vmdk
