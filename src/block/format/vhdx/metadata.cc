#include "block/format/vhdx/metadata.h"

#include <algorithm>
#include <bit>

#include "block/format/utf16.h"

namespace bulkhead::block::vhdx {
namespace {

constexpr std::string_view kMagic = "metadata";
constexpr uint64_t kTableBytes = 64 * kKiB;
constexpr uint32_t kMostItems = 2047, kMostItemBytes = 64 * 1024;
constexpr uint32_t kOfDisk = 2, kRequired = 4;

constexpr Guid kFileParameters{0x37, 0x67, 0xA1, 0xCA, 0x36, 0xFA, 0x43, 0x4D,
                               0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B};
constexpr Guid kDiskSize{0x24, 0x42, 0xA5, 0x2F, 0x1B, 0xCD, 0x76, 0x48,
                         0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8};
constexpr Guid kDiskId{0xAB, 0x12, 0xCA, 0xBE, 0xE6, 0xB2, 0x23, 0x45, 0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46};
constexpr Guid kLogicalSector{0x1D, 0xBF, 0x41, 0x81, 0x6F, 0xA9, 0x09, 0x47,
                              0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F};
constexpr Guid kPhysicalSector{0xC7, 0x48, 0xA3, 0xCD, 0x5D, 0x44, 0x71, 0x44,
                               0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56};
constexpr Guid kParentLocator{0x2D, 0x5F, 0xD3, 0xA8, 0x0B, 0xB3, 0x4D, 0x45,
                              0xAB, 0xF7, 0xD3, 0xD8, 0x48, 0x34, 0xAB, 0x0C};
constexpr Guid kLocatorType{0xB7, 0xEF, 0x4A, 0xB0, 0x9E, 0xD1, 0x81, 0x4A,
                            0xB7, 0x89, 0x25, 0xB8, 0xE9, 0x44, 0x59, 0x13};

class Reader {
 public:
  Reader(Store& store, const Region& region) : store_(store), region_(region) {}

  Result<Metadata> read() {
    std::vector<uint8_t> table(kTableBytes);
    TRY(store_.read_all(region_.offset, table));
    if (std::memcmp(table.data(), kMagic.data(), kMagic.size()) != 0) {
      return fail("open '{}': no metadata at {:#x}", store_.name(), region_.offset);
    }
    const auto count = load<uint16_t>(&table[10]);
    if (count > kMostItems) return fail("open '{}': {} metadata items", store_.name(), count);
    for (uint16_t i = 0; i < count; ++i) TRY(item(ByteSpan(table).subspan(32 + i * size_t{32}, 32)));
    TRY(check());
    return metadata_;
  }

 private:
  Result<> item(ByteSpan entry) {
    Guid id;
    std::ranges::copy(entry.first(16), id.begin());
    const auto offset = load<uint32_t>(&entry[16]), size = load<uint32_t>(&entry[20]),
               flags = load<uint32_t>(&entry[24]);
    const bool known = id == kFileParameters || id == kDiskSize || id == kDiskId || id == kLogicalSector ||
                       id == kPhysicalSector || id == kParentLocator;
    if (!known) {
      if ((flags & kRequired) == 0) return {};
      return fail("open '{}': metadata item {} is required and unknown", store_.name(),
                  to_text(id, GuidOrder::kMicrosoft));
    }
    if (offset < kTableBytes || size > kMostItemBytes || !range_fits(offset, size, region_.size)) {
      return fail("open '{}': metadata item of {} bytes at {:#x} lies outside its region ({} bytes)", store_.name(),
                  size, offset, region_.size);
    }
    // Zeroes behind an item that is too short.
    std::vector<uint8_t> bytes(std::max<uint32_t>(size, 32));
    TRY(store_.read_all(region_.offset + offset, MutableByteSpan(bytes).first(size)));
    if (id == kFileParameters) {
      metadata_.block_bytes = load<uint32_t>(&bytes[0]);
      metadata_.leaves_blocks_allocated = (bytes[4] & 1) != 0;
      metadata_.has_parent = (bytes[4] & 2) != 0;
    } else if (id == kDiskSize) {
      metadata_.disk_bytes = load<uint64_t>(&bytes[0]);
      metadata_.disk_bytes_at = region_.offset + offset;
    } else if (id == kDiskId) {
      std::copy_n(bytes.begin(), 16, metadata_.disk_id.begin());
    } else if (id == kLogicalSector) {
      metadata_.logical_sector = load<uint32_t>(&bytes[0]);
    } else if (id == kPhysicalSector) {
      metadata_.physical_sector = load<uint32_t>(&bytes[0]);
    } else {
      TRY(parent(ByteSpan(bytes).first(size)));
    }
    return {};
  }

  Result<> parent(ByteSpan bytes) {
    if (bytes.size() < 20 || !std::ranges::equal(bytes.first(16), kLocatorType)) {
      return fail("open '{}': parent locator of an unknown type", store_.name());
    }
    const auto count = load<uint16_t>(&bytes[18]);
    if (20 + size_t{count} * 12 > bytes.size())
      return fail("open '{}': parent locator of {} values", store_.name(), count);
    for (uint16_t i = 0; i < count; ++i) {
      const ByteSpan entry = bytes.subspan(20 + i * size_t{12}, 12);
      const auto key_at = load<uint32_t>(&entry[0]), value_at = load<uint32_t>(&entry[4]);
      const auto key_size = load<uint16_t>(&entry[8]), value_size = load<uint16_t>(&entry[10]);
      if (!range_fits(key_at, key_size, bytes.size()) || !range_fits(value_at, value_size, bytes.size())) {
        return fail("open '{}': parent locator: value {} lies outside it", store_.name(), i);
      }
      const std::string key = from_utf16(bytes.subspan(key_at, key_size), ByteOrder::kLittle);
      std::string value = from_utf16(bytes.subspan(value_at, value_size), ByteOrder::kLittle);
      if (key == "parent_linkage") {
        std::erase_if(value, [](char c) { return c == '{' || c == '}'; });
        std::ranges::transform(value, value.begin(),
                               [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c; });
        metadata_.parent_linkage = value;
      } else if (key == "relative_path" || (key == "absolute_win32_path" && metadata_.parent_name.empty())) {
        metadata_.parent_name = from_windows_name(value);
      }
    }
    return {};
  }

  Result<> check() const {
    const Metadata& m = metadata_;
    if (m.disk_bytes_at == 0) return fail("open '{}': the metadata do not say how large the disk is", store_.name());
    if (!std::has_single_bit(m.block_bytes) || m.block_bytes < kMiB || m.block_bytes > kMostBlockBytes) {
      return fail("open '{}': block size {}, allowed are powers of two from {} to {}", store_.name(), m.block_bytes,
                  kMiB, kMostBlockBytes);
    }
    for (const uint32_t sector : {m.logical_sector, m.physical_sector}) {
      if (sector != 512 && sector != 4096) return fail("open '{}': sectors of {} bytes", store_.name(), sector);
    }
    if (m.disk_bytes > kLargestDisk || m.disk_bytes % m.logical_sector != 0) {
      return fail("open '{}': virtual size {} at byte {}", store_.name(), m.disk_bytes, m.disk_bytes_at);
    }
    if (m.has_parent && (m.parent_name.empty() || m.parent_linkage.empty())) {
      return fail("open '{}': its parent is not named", store_.name());
    }
    return {};
  }

  Store& store_;
  const Region region_;
  Metadata metadata_;
};

// Keys and values behind one another, in UTF-16.
std::vector<uint8_t> make_locator(const Metadata& metadata) {
  const std::array values{std::pair{std::string("parent_linkage"), "{" + metadata.parent_linkage + "}"},
                          std::pair{std::string("relative_path"), to_windows_name(metadata.parent_name)}};
  std::vector<uint8_t> bytes(20 + values.size() * 12);
  std::ranges::copy(kLocatorType, bytes.begin());
  store(&bytes[18], static_cast<uint16_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) {
    const std::vector<uint8_t> key = to_utf16(values[i].first, ByteOrder::kLittle);
    const std::vector<uint8_t> value = to_utf16(values[i].second, ByteOrder::kLittle);
    const size_t at = 20 + i * 12;
    store(&bytes[at], static_cast<uint32_t>(bytes.size()));
    store(&bytes[at + 4], static_cast<uint32_t>(bytes.size() + key.size()));
    store(&bytes[at + 8], static_cast<uint16_t>(key.size()));
    store(&bytes[at + 10], static_cast<uint16_t>(value.size()));
    bytes.insert(bytes.end(), key.begin(), key.end());
    bytes.insert(bytes.end(), value.begin(), value.end());
  }
  return bytes;
}

}  // namespace

Result<Metadata> read_metadata(Store& store, const Region& region) {
  return Reader(store, region).read();
}

Result<std::vector<uint8_t>> make_metadata(const Metadata& metadata) {
  std::vector<uint8_t> bytes(kMiB);
  std::ranges::copy(kMagic, bytes.begin());
  uint16_t count = 0;
  uint32_t end = kTableBytes;
  const auto add = [&](const Guid& id, uint32_t flags, ByteSpan item) {
    uint8_t* const entry = &bytes[32 + count * size_t{32}];
    std::ranges::copy(id, entry);
    store(entry + 16, end);
    store(entry + 20, static_cast<uint32_t>(item.size()));
    store(entry + 24, flags);
    std::ranges::copy(item, bytes.begin() + end);
    end += static_cast<uint32_t>(align_up(item.size(), 16));
    ++count;
  };
  const std::array<uint32_t, 2> parameters{
      metadata.block_bytes, (metadata.leaves_blocks_allocated ? 1u : 0u) | (metadata.has_parent ? 2u : 0u)};
  add(kFileParameters, kRequired, as_bytes(parameters));
  add(kDiskSize, kRequired | kOfDisk, as_bytes(metadata.disk_bytes));
  add(kDiskId, kRequired | kOfDisk, metadata.disk_id);
  add(kLogicalSector, kRequired | kOfDisk, as_bytes(metadata.logical_sector));
  add(kPhysicalSector, kRequired | kOfDisk, as_bytes(metadata.physical_sector));
  if (metadata.has_parent) {
    const std::vector<uint8_t> locator = make_locator(metadata);
    if (locator.size() > 16 * kKiB)
      return fail("backing file name of {} bytes is too long", metadata.parent_name.size());
    add(kParentLocator, kRequired, locator);
  }
  store(&bytes[10], count);
  return bytes;
}

}  // namespace bulkhead::block::vhdx
