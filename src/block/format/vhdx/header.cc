#include "block/format/vhdx/header.h"

#include <algorithm>
#include <optional>

#include "block/format/crc32c.h"
#include "block/format/utf16.h"

namespace bulkhead::block::vhdx {
namespace {

constexpr uint32_t kHeaderMagic = 0x64616568, kRegionMagic = 0x69676572;  // "head", "regi"
constexpr uint32_t kMostRegions = 2047;
constexpr Guid kTableRegion{0x66, 0x77, 0xC2, 0x2D, 0x23, 0xF6, 0x00, 0x42,
                            0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08};
constexpr Guid kMetadataRegion{0x06, 0xA2, 0x7C, 0x8B, 0x90, 0x47, 0x9A, 0x4B,
                               0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E};

Guid guid_at(ByteSpan bytes, size_t at) {
  Guid guid;
  std::ranges::copy(bytes.subspan(at, guid.size()), guid.begin());
  return guid;
}

bool is_whole(ByteSpan bytes, uint32_t magic) {
  return load<uint32_t>(&bytes[0]) == magic && load<uint32_t>(&bytes[4]) == crc32c_without(bytes, 4);
}

void seal(MutableByteSpan bytes) {
  store(&bytes[4], crc32c_without(bytes, 4));
}

Result<Regions> parse_regions(ByteSpan bytes, const std::string& name, uint64_t at, uint64_t file_size) {
  Regions regions;
  const auto count = load<uint32_t>(&bytes[8]);
  if (count > kMostRegions) return fail("open '{}': {} regions at byte {}", name, count, at + 8);
  for (uint32_t i = 0; i < count; ++i) {
    const ByteSpan entry = bytes.subspan(16 + i * 32, 32);
    const Guid id = guid_at(entry, 0);
    const Region region{load<uint64_t>(&entry[16]), load<uint32_t>(&entry[24])};
    if (id != kTableRegion && id != kMetadataRegion) {
      if ((entry[28] & 1) == 0) continue;
      return fail("open '{}': region {} is required and unknown", name, to_text(id, GuidOrder::kMicrosoft));
    }
    if (region.offset < kMiB || region.offset % kMiB != 0 || region.size == 0 || region.size % kMiB != 0 ||
        !range_fits(region.offset, region.size, align_up(file_size, kMiB))) {
      return fail("open '{}': region of {} bytes at {:#x} (byte {}) lies outside the file ({} bytes) or is not aligned",
                  name, region.size, region.offset, at + 32 + i * 32, file_size);
    }
    (id == kTableRegion ? regions.table : regions.metadata) = region;
  }
  if (regions.table.size == 0 || regions.metadata.size == 0) {
    return fail("open '{}': the region table at byte {} lacks a region", name, at);
  }
  if (regions.table.offset < regions.metadata.offset + regions.metadata.size &&
      regions.metadata.offset < regions.table.offset + regions.table.size) {
    return fail("open '{}': two regions overlap at {:#x}", name, regions.table.offset);
  }
  return regions;
}

}  // namespace

Result<CurrentHeader> read_header(Store& store) {
  std::vector<uint8_t> bytes(kHeaderBytes);
  std::optional<CurrentHeader> best;
  for (size_t slot = 0; slot < kHeaderAt.size(); ++slot) {
    TRY(store.read_all(kHeaderAt[slot], bytes));
    if (!is_whole(bytes, kHeaderMagic)) continue;
    const auto sequence = load<uint64_t>(&bytes[8]);
    if (best && sequence <= best->header.sequence) continue;
    const auto log_version = load<uint16_t>(&bytes[64]), version = load<uint16_t>(&bytes[66]);
    if (version != 1) return fail("open '{}': version {} at byte {}", store.name(), version, kHeaderAt[slot] + 66);
    best = CurrentHeader{.header = {.sequence = sequence,
                                    .file_write_id = guid_at(bytes, 16),
                                    .data_write_id = guid_at(bytes, 32),
                                    .log_id = guid_at(bytes, 48),
                                    .log_bytes = load<uint32_t>(&bytes[68]),
                                    .log_offset = load<uint64_t>(&bytes[72])},
                         .slot = slot};
    if (best->header.has_log() && log_version != 0) {
      return fail("open '{}': log version {} at byte {}", store.name(), log_version, kHeaderAt[slot] + 64);
    }
  }
  if (!best)
    return fail("open '{}': neither header at {:#x} nor at {:#x} is whole", store.name(), kHeaderAt[0], kHeaderAt[1]);
  const Header& header = best->header;
  const uint64_t file_size = TRY(store.size());
  if (header.log_bytes > kMostLogBytes || header.log_bytes % kMiB != 0 || header.log_offset % kMiB != 0 ||
      header.log_offset < kMiB || !range_fits(header.log_offset, header.log_bytes, align_up(file_size, kMiB))) {
    return fail("open '{}': log of {} bytes at {:#x} (byte {}) lies outside the file ({} bytes) or is not aligned",
                store.name(), header.log_bytes, header.log_offset, kHeaderAt[best->slot] + 72, file_size);
  }
  return *best;
}

std::vector<uint8_t> make_header(const Header& header) {
  std::vector<uint8_t> bytes(kHeaderBytes);
  store(&bytes[0], kHeaderMagic);
  store(&bytes[8], header.sequence);
  std::ranges::copy(header.file_write_id, bytes.begin() + 16);
  std::ranges::copy(header.data_write_id, bytes.begin() + 32);
  std::ranges::copy(header.log_id, bytes.begin() + 48);
  store(&bytes[66], uint16_t{1});
  store(&bytes[68], header.log_bytes);
  store(&bytes[72], header.log_offset);
  seal(bytes);
  return bytes;
}

Result<Regions> read_regions(Store& store) {
  std::vector<uint8_t> bytes(kRegionTableBytes);
  const uint64_t file_size = TRY(store.size());
  for (const uint64_t at : kRegionTableAt) {
    TRY(store.read_all(at, bytes));
    if (is_whole(bytes, kRegionMagic)) return parse_regions(bytes, store.name(), at, file_size);
  }
  return fail("open '{}': neither region table at {:#x} nor at {:#x} is whole", store.name(), kRegionTableAt[0],
              kRegionTableAt[1]);
}

Result<> repair_region_tables(Store& store) {
  std::vector<uint8_t> first(kRegionTableBytes), second(kRegionTableBytes);
  TRY(store.read_all(kRegionTableAt[0], first));
  TRY(store.read_all(kRegionTableAt[1], second));
  if (first == second) return {};
  if (is_whole(first, kRegionMagic)) {
    TRY(store.write_all(kRegionTableAt[1], first));
  } else if (is_whole(second, kRegionMagic)) {
    TRY(store.write_all(kRegionTableAt[0], second));
  }
  return store.flush_all();
}

Result<> move_regions(Store& store, const Regions& regions) {
  std::vector<uint8_t> bytes(kRegionTableBytes);
  TRY(store.read_all(kRegionTableAt[0], bytes));
  const auto count = load<uint32_t>(&bytes[8]);
  for (uint32_t i = 0; i < std::min(count, kMostRegions); ++i) {
    const MutableByteSpan entry = MutableByteSpan(bytes).subspan(16 + i * 32, 32);
    const Guid id = guid_at(entry, 0);
    if (id != kTableRegion && id != kMetadataRegion) continue;
    const Region& region = id == kTableRegion ? regions.table : regions.metadata;
    bulkhead::store(&entry[16], region.offset);
    bulkhead::store(&entry[24], static_cast<uint32_t>(region.size));
  }
  seal(bytes);
  for (const uint64_t at : {kRegionTableAt[1], kRegionTableAt[0]}) {
    TRY(store.write_all(at, bytes));
    TRY(store.flush_all());
  }
  return {};
}

std::vector<uint8_t> make_region_table(const Regions& regions) {
  std::vector<uint8_t> bytes(kRegionTableBytes);
  store(&bytes[0], kRegionMagic);
  store(&bytes[8], uint32_t{2});
  size_t at = 16;
  for (const auto& [id, region] :
       {std::pair(kTableRegion, regions.table), std::pair(kMetadataRegion, regions.metadata)}) {
    std::ranges::copy(id, bytes.begin() + static_cast<ptrdiff_t>(at));
    store(&bytes[at + 16], region.offset);
    store(&bytes[at + 24], static_cast<uint32_t>(region.size));
    store(&bytes[at + 28], uint32_t{1});
    at += 32;
  }
  seal(bytes);
  return bytes;
}

std::vector<uint8_t> make_file_identifier() {
  std::vector<uint8_t> bytes(64 * kKiB);
  std::ranges::copy(kFileMagic, bytes.begin());
  std::ranges::copy(to_utf16("Bulkhead", ByteOrder::kLittle), bytes.begin() + 8);
  return bytes;
}

}  // namespace bulkhead::block::vhdx
