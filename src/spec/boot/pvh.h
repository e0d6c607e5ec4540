// The x86/HVM direct boot ABI, "PVH" (Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h): layouts only.
#pragma once

#include <cstdint>

namespace bulkhead::spec::pvh {

inline constexpr char kNoteName[] = "Xen";
inline constexpr uint32_t kNotePhys32Entry = 18;
inline constexpr uint32_t kStartMagic = 0x336E'C578;
inline constexpr uint32_t kStartVersion = 1;

struct [[gnu::packed]] StartInfo {
  uint32_t magic;
  uint32_t version;
  uint32_t flags;
  uint32_t module_count;
  uint64_t module_list_address;
  uint64_t command_line_address;
  uint64_t rsdp_address;
  uint64_t memory_map_address;
  uint32_t memory_map_count;
  uint32_t reserved;
};
static_assert(sizeof(StartInfo) == 56);

struct [[gnu::packed]] ModuleEntry {
  uint64_t address;
  uint64_t size;
  uint64_t command_line_address;
  uint64_t reserved;
};
static_assert(sizeof(ModuleEntry) == 32);

// Types as in E820.
struct [[gnu::packed]] MemoryMapEntry {
  uint64_t address;
  uint64_t size;
  uint32_t type;
  uint32_t reserved;
};
static_assert(sizeof(MemoryMapEntry) == 24);

}  // namespace bulkhead::spec::pvh
