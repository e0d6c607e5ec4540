// The x86 Linux boot protocol (the kernel's Documentation/arch/x86/boot.rst and zero-page.rst): layouts only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bulkhead::spec::linux_boot {

inline constexpr uint16_t kBootFlag = 0xAA55;
inline constexpr uint32_t kHeaderMagic = 0x5372'6448;  // "HdrS"
inline constexpr size_t kSetupHeaderOffset = 0x1F1;    // in the file and in the zero page
inline constexpr size_t kSectorSize = 512;
inline constexpr uint32_t kDefaultSetupSectors = 4;  // what 0 in setup_sects means
inline constexpr uint32_t kEntry64Offset = 0x200;
inline constexpr uint64_t kHighLoadAddress = 0x10'0000;

enum LoadFlags : uint8_t { kLoadedHigh = 1 << 0, kQuiet = 1 << 5, kKeepSegments = 1 << 6, kCanUseHeap = 1 << 7 };
enum ExtendedLoadFlags : uint16_t { kKernel64 = 1 << 0, kCanBeLoadedAbove4G = 1 << 1 };

inline constexpr uint8_t kLoaderUndefined = 0xFF;
inline constexpr uint16_t kVideoModeNormal = 0xFFFF;

// The name says since which protocol version (major << 8 | minor) a field means anything.
struct [[gnu::packed]] SetupHeader {
  uint8_t setup_sects;
  uint16_t root_flags;
  uint32_t syssize;
  uint16_t ram_size;
  uint16_t vid_mode;
  uint16_t root_dev;
  uint16_t boot_flag;
  uint8_t jump_opcode;
  uint8_t jump_displacement;
  uint32_t header;
  uint16_t version;
  uint32_t realmode_switch;
  uint16_t start_sys_seg;
  uint16_t kernel_version;
  uint8_t type_of_loader;
  uint8_t loadflags;
  uint16_t setup_move_size;
  uint32_t code32_start;
  uint32_t ramdisk_image;
  uint32_t ramdisk_size;
  uint32_t bootsect_kludge;
  uint16_t heap_end_ptr;
  uint8_t ext_loader_ver;
  uint8_t ext_loader_type;
  uint32_t cmd_line_ptr;
  uint32_t initrd_addr_max;    // 2.03: the highest byte that may be used
  uint32_t kernel_alignment;   // 2.05
  uint8_t relocatable_kernel;  // 2.05
  uint8_t min_alignment;       // 2.10, a power of two
  uint16_t xloadflags;         // 2.12
  uint32_t cmdline_size;       // 2.06, without the terminating zero
  uint32_t hardware_subarch;   // 2.07
  uint64_t hardware_subarch_data;
  uint32_t payload_offset;  // 2.08, from the start of the protected-mode code
  uint32_t payload_length;
  uint64_t setup_data;          // 2.09
  uint64_t pref_address;        // 2.10
  uint32_t init_size;           // 2.10: bytes needed from the run-time start address on
  uint32_t handover_offset;     // 2.11
  uint32_t kernel_info_offset;  // 2.15
};
static_assert(offsetof(SetupHeader, header) == 0x202 - kSetupHeaderOffset);
static_assert(offsetof(SetupHeader, init_size) == 0x260 - kSetupHeaderOffset);
static_assert(sizeof(SetupHeader) == 0x26C - kSetupHeaderOffset);

struct [[gnu::packed]] E820Entry {
  uint64_t address;
  uint64_t size;
  uint32_t type;
};
static_assert(sizeof(E820Entry) == 20);
inline constexpr size_t kMaximumE820Entries = 128;

// The zero page, with the fields that a boot loader fills in.
struct [[gnu::packed]] BootParams {
  uint8_t screen_info[0x40];
  uint8_t apm_bios_info[0x14];
  uint8_t padding_54[0x1C];
  uint64_t acpi_rsdp_address;  // at 0x70, 2.14
  uint8_t padding_78[0x48];
  uint32_t ext_ramdisk_image;  // at 0xC0: the upper halves
  uint32_t ext_ramdisk_size;
  uint32_t ext_cmd_line_ptr;
  uint8_t padding_cc[0x11C];
  uint8_t e820_entry_count;  // at 0x1E8
  uint8_t padding_1e9[8];
  SetupHeader header;  // at 0x1F1
  uint8_t padding_26c[0x64];
  E820Entry e820_table[kMaximumE820Entries];  // at 0x2D0
  uint8_t padding_cd0[0x330];
};
static_assert(offsetof(BootParams, acpi_rsdp_address) == 0x70);
static_assert(offsetof(BootParams, ext_ramdisk_image) == 0xC0);
static_assert(offsetof(BootParams, e820_entry_count) == 0x1E8);
static_assert(offsetof(BootParams, header) == kSetupHeaderOffset);
static_assert(offsetof(BootParams, e820_table) == 0x2D0);
static_assert(sizeof(BootParams) == 4096);

// The selectors that the 32-bit and 64-bit entries demand.
inline constexpr uint16_t kBootCodeSelector = 0x10;
inline constexpr uint16_t kBootDataSelector = 0x18;

}  // namespace bulkhead::spec::linux_boot
