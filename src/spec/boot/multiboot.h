// The Multiboot Specification, version 0.6.96: layouts only.
#pragma once

#include <cstdint>

namespace bulkhead::spec::multiboot {

inline constexpr uint32_t kHeaderMagic = 0x1BAD'B002;
inline constexpr uint32_t kBootMagic = 0x2BAD'B002;  // in EAX at the entry
inline constexpr uint32_t kHeaderSearchSize = 8192;  // the header lies whole in these first bytes

enum HeaderFlags : uint32_t {
  kPageAlignModules = 1u << 0,
  kWantsMemoryInfo = 1u << 1,
  kWantsVideoMode = 1u << 2,
  kHasAddressFields = 1u << 16,
};
// Bits 0 to 15 are demands: a loader that does not know one must refuse.
inline constexpr uint32_t kDemandMask = 0xFFFF;

struct [[gnu::packed]] Header {
  uint32_t magic;
  uint32_t flags;
  uint32_t checksum;
};
static_assert(sizeof(Header) == 12);

// Follows the header when kHasAddressFields is set.
struct [[gnu::packed]] AddressFields {
  uint32_t header_address;
  uint32_t load_address;
  uint32_t load_end_address;  // 0: to the end of the file
  uint32_t bss_end_address;   // 0: no bss
  uint32_t entry_address;
};
static_assert(sizeof(AddressFields) == 20);

enum InfoFlags : uint32_t {
  kInfoMemory = 1u << 0,
  kInfoCommandLine = 1u << 2,
  kInfoModules = 1u << 3,
  kInfoMemoryMap = 1u << 6,
  kInfoBootLoaderName = 1u << 9,
};

struct [[gnu::packed]] Info {
  uint32_t flags;
  uint32_t memory_lower_kib;
  uint32_t memory_upper_kib;
  uint32_t boot_device;
  uint32_t command_line;
  uint32_t module_count;
  uint32_t module_list;
  uint32_t symbols[4];
  uint32_t memory_map_size;
  uint32_t memory_map;
  uint32_t drives_size;
  uint32_t drives;
  uint32_t config_table;
  uint32_t boot_loader_name;
  uint32_t apm_table;
  uint32_t vbe[4];
  uint8_t framebuffer[28];
};
static_assert(sizeof(Info) == 116);

struct [[gnu::packed]] ModuleEntry {
  uint32_t start;
  uint32_t end;  // one past the last byte
  uint32_t command_line;
  uint32_t reserved;
};
static_assert(sizeof(ModuleEntry) == 16);

// Types as in E820.
struct [[gnu::packed]] MemoryMapEntry {
  uint32_t size;  // of what follows: 20
  uint64_t address;
  uint64_t length;
  uint32_t type;
};
static_assert(sizeof(MemoryMapEntry) == 24);

}  // namespace bulkhead::spec::multiboot
