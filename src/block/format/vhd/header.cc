#include "block/format/vhd/header.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <chrono>

#include "block/format/big_endian.h"
#include "block/format/utf16.h"

namespace bulkhead::block::vhd {
namespace {

constexpr std::string_view kFooterCookie = "conectix", kHeaderCookie = "cxsparse";
constexpr size_t kFooterChecksum = 64, kHeaderChecksum = 36;
constexpr size_t kParentName = 64, kParentNameBytes = 512, kLocators = 576, kLocatorBytes = 24;
constexpr uint32_t kVersion = 0x00010000, kFeatures = 2;
constexpr uint32_t kCreatorSystem = 0x5769326B;  // Wi2k
constexpr uint64_t kMostGeometrySectors = uint64_t{65535} * 16 * 255;

uint16_t load16(const uint8_t* from) {
  return __builtin_bswap16(load<uint16_t>(from));
}

// The one's complement of the sum of all bytes but its own.
uint32_t checksum(ByteSpan bytes, size_t own) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i < own || i >= own + 4) sum += bytes[i];
  }
  return ~sum;
}

bool has_cookie(ByteSpan bytes, std::string_view cookie) {
  return std::memcmp(bytes.data(), cookie.data(), cookie.size()) == 0;
}

Result<Guid> parse_guid(const std::string& text) {
  Guid guid{};
  size_t digits = 0;
  for (const char c : text) {
    if (c == '-') continue;
    uint8_t digit = 0;
    if (digits == 32 || std::from_chars(&c, &c + 1, digit, 16).ec != std::errc()) return fail("'{}' is no GUID", text);
    guid[digits / 2] = static_cast<uint8_t>(guid[digits / 2] << 4 | digit);
    ++digits;
  }
  return guid;
}

}  // namespace

uint32_t seconds_since_2000() {
  using namespace std::chrono;
  return static_cast<uint32_t>(
      duration_cast<seconds>(system_clock::now() - sys_days(year(2000) / January / 1)).count());
}

uint64_t Footer::disk_size() const {
  const uint64_t by_geometry = uint64_t{cylinders} * heads * sectors;
  const bool geometry_counts = (creator == "vpc " || creator == "qemu") && by_geometry < kMostGeometrySectors;
  return geometry_counts ? by_geometry * kSector : current_size;
}

Result<std::optional<Footer>> parse_footer(ByteSpan bytes, const std::string& name, uint64_t offset) {
  if (!has_cookie(bytes, kFooterCookie) || load32(&bytes[kFooterChecksum]) != checksum(bytes, kFooterChecksum)) {
    return std::nullopt;
  }
  Footer footer;
  if (const uint32_t version = load32(&bytes[12]); version >> 16 != 1) {
    return fail("open '{}': version {:#x} at byte {}", name, version, offset + 12);
  }
  footer.header_offset = load64(&bytes[16]);
  footer.timestamp = load32(&bytes[24]);
  footer.creator.assign(reinterpret_cast<const char*>(&bytes[28]), 4);
  footer.original_size = load64(&bytes[40]);
  footer.current_size = load64(&bytes[48]);
  footer.cylinders = load16(&bytes[56]);
  footer.heads = bytes[58];
  footer.sectors = bytes[59];
  const uint32_t type = load32(&bytes[60]);
  if (type < 2 || type > 4) return fail("open '{}': disk type {} at byte {}", name, type, offset + 60);
  footer.type = DiskType{type};
  std::ranges::copy(bytes.subspan(68, 16), footer.id.begin());
  if (footer.disk_size() > kLargestDisk || footer.disk_size() % kSector != 0) {
    return fail("open '{}': virtual size {} at byte {}", name, footer.disk_size(), offset + 48);
  }
  return footer;
}

std::vector<uint8_t> make_footer(const Footer& footer) {
  std::vector<uint8_t> bytes(kSector);
  std::ranges::copy(kFooterCookie, bytes.begin());
  store32(&bytes[8], kFeatures);
  store32(&bytes[12], kVersion);
  store64(&bytes[16], footer.header_offset);
  store32(&bytes[24], footer.timestamp);
  std::ranges::copy(footer.creator, bytes.begin() + 28);
  store32(&bytes[32], 0x000A0000);
  store32(&bytes[36], kCreatorSystem);
  store64(&bytes[40], footer.original_size);
  store64(&bytes[48], footer.current_size);
  store(&bytes[56], __builtin_bswap16(footer.cylinders));
  bytes[58] = footer.heads;
  bytes[59] = footer.sectors;
  store32(&bytes[60], static_cast<uint32_t>(footer.type));
  std::ranges::copy(footer.id, bytes.begin() + 68);
  store32(&bytes[kFooterChecksum], checksum(bytes, kFooterChecksum));
  return bytes;
}

// As the specification's appendix has it.
void set_geometry(Footer& footer) {
  const uint64_t sectors = std::min(footer.current_size / kSector, kMostGeometrySectors);
  uint64_t a_track = 17, heads = 0, tracks = 0;
  if (sectors >= uint64_t{65535} * 16 * 63) {
    a_track = 255;
    heads = 16;
    tracks = sectors / a_track;
  } else {
    tracks = sectors / a_track;
    heads = std::max<uint64_t>(4, (tracks + 1023) / 1024);
    for (const uint64_t more : {31, 63}) {
      if (tracks < heads * 1024 && heads <= 16) break;
      a_track = more;
      heads = 16;
      tracks = sectors / a_track;
    }
  }
  footer.cylinders = static_cast<uint16_t>(tracks / heads);
  footer.heads = static_cast<uint8_t>(heads);
  footer.sectors = static_cast<uint8_t>(a_track);
}

Result<Header> parse_header(ByteSpan bytes, const std::string& name, uint64_t offset, const Footer& footer,
                            uint64_t file_size) {
  if (!has_cookie(bytes, kHeaderCookie)) return fail("open '{}': no dynamic header at byte {}", name, offset);
  if (const uint32_t sum = load32(&bytes[kHeaderChecksum]); sum != checksum(bytes, kHeaderChecksum)) {
    return fail("open '{}': dynamic header with the wrong checksum {:#x} at byte {}", name, sum,
                offset + kHeaderChecksum);
  }
  Header header;
  header.table_offset = load64(&bytes[16]);
  header.entries = load32(&bytes[28]);
  header.block_bytes = load32(&bytes[32]);
  std::ranges::copy(bytes.subspan(40, 16), header.parent_id.begin());
  header.parent_timestamp = load32(&bytes[56]);
  header.parent_name = from_utf16(bytes.subspan(kParentName, kParentNameBytes), ByteOrder::kBig);
  if (!std::has_single_bit(header.block_bytes) || header.block_bytes < kLeastBlockBytes ||
      header.block_bytes > kMostBlockBytes) {
    return fail("open '{}': block size {} at byte {}, allowed are powers of two from {} to {}", name,
                header.block_bytes, offset + 32, kLeastBlockBytes, kMostBlockBytes);
  }
  const uint64_t needed = (footer.disk_size() + header.block_bytes - 1) / header.block_bytes;
  if (header.entries < needed) {
    return fail("open '{}': table of {} entries at byte {}, need {}", name, header.entries, offset + 28, needed);
  }
  if (header.table_offset % kSector != 0 || header.table_offset < kSector ||
      !range_fits(header.table_offset, align_up(needed * 4, kSector), file_size)) {
    return fail("open '{}': table at {:#x} (byte {}) lies outside the file ({} bytes) or is not aligned", name,
                header.table_offset, offset + 16, file_size);
  }
  for (size_t i = 0; i < header.locators.size(); ++i) {
    const uint8_t* const at = &bytes[kLocators + i * kLocatorBytes];
    header.locators[i] = {.platform = load32(at), .size = load32(at + 8), .offset = load64(at + 16)};
  }
  return header;
}

std::vector<uint8_t> make_header(const Header& header) {
  std::vector<uint8_t> bytes(kHeaderBytes);
  std::ranges::copy(kHeaderCookie, bytes.begin());
  store64(&bytes[8], UINT64_MAX);
  store64(&bytes[16], header.table_offset);
  store32(&bytes[24], kVersion);
  store32(&bytes[28], header.entries);
  store32(&bytes[32], header.block_bytes);
  std::ranges::copy(header.parent_id, bytes.begin() + 40);
  store32(&bytes[56], header.parent_timestamp);
  const std::vector<uint8_t> name = to_utf16(header.parent_name, ByteOrder::kBig);
  std::copy_n(name.begin(), std::min(name.size(), kParentNameBytes - 2), bytes.begin() + kParentName);
  for (size_t i = 0; i < header.locators.size(); ++i) {
    uint8_t* const at = &bytes[kLocators + i * kLocatorBytes];
    if (header.locators[i].platform == 0) continue;
    store32(at, header.locators[i].platform);
    store32(at + 4, static_cast<uint32_t>(align_up(header.locators[i].size, kSector)));
    store32(at + 8, header.locators[i].size);
    store64(at + 16, header.locators[i].offset);
  }
  store32(&bytes[kHeaderChecksum], checksum(bytes, kHeaderChecksum));
  return bytes;
}

// Relative to this file, in Windows' notation.
Result<std::vector<uint8_t>> name_parent(Header& header, const std::string& name, const std::string& identity) {
  const Guid id = TRY(parse_guid(identity));
  std::vector<uint8_t> bytes = to_utf16(to_windows_name(name), ByteOrder::kLittle);
  if (bytes.size() > kSector) return fail("backing file name of {} bytes is too long", name.size());
  header.parent_id = id;
  header.parent_timestamp = seconds_since_2000();
  header.parent_name = name.substr(name.rfind('/') + 1);
  header.locators = {};
  header.locators[0] = {.platform = kRelativeName, .size = static_cast<uint32_t>(bytes.size())};
  bytes.resize(kSector);
  return bytes;
}

}  // namespace bulkhead::block::vhd
