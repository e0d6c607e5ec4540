#include "machine/boot/linux.h"

#include <algorithm>
#include <bit>

#include "machine/boot/boot.h"
#include "machine/boot/entry_state.h"
#include "machine/boot/placement.h"

namespace bulkhead::machine::boot {
namespace {

using namespace spec::linux_boot;

// 2.06 (Linux 2.6.22) is the first version that says how long a command line may be.
constexpr uint16_t kOldestVersion = 0x0206;
constexpr uint16_t kVersionWithPreferredAddress = 0x020A;
constexpr uint16_t kVersionWith64BitEntry = 0x020C;
constexpr uint16_t kVersionWithRsdpAddress = 0x020E;
// Our own bound on a command line, so that it fits the boot data area.
constexpr uint32_t kMaximumCommandLine = 0xFFFF;

std::string version_text(uint16_t version) {
  return fmt::format("{}.{:02}", version >> 8, version & 0xFF);
}

// Where the header of a version ends, counted from its start: what stands behind is not the header's.
size_t header_size(uint16_t version) {
  if (version < 0x0207) return offsetof(SetupHeader, hardware_subarch);
  if (version < 0x0208) return offsetof(SetupHeader, payload_offset);
  if (version < 0x0209) return offsetof(SetupHeader, setup_data);
  if (version < 0x020A) return offsetof(SetupHeader, pref_address);
  if (version < 0x020B) return offsetof(SetupHeader, handover_offset);
  if (version < 0x020F) return offsetof(SetupHeader, kernel_info_offset);
  return sizeof(SetupHeader);
}

bool has_64_bit_entry(const SetupHeader& header) {
  return header.version >= kVersionWith64BitEntry && (header.xloadflags & kKernel64) != 0;
}

// Where the protected-mode part runs, and how much memory from there on is its own until it has read its memory map.
Result<uint64_t> place_kernel(const LinuxImage& image, Placement& placement) {
  const SetupHeader& header = image.header;
  const uint64_t size = std::max<uint64_t>(image.code.size(), header.init_size);
  const bool has_preference = header.version >= kVersionWithPreferredAddress && header.pref_address != 0;
  const uint64_t preferred = has_preference ? header.pref_address : kHighLoadAddress;
  if (placement.claim("the kernel", preferred, size)) return preferred;
  if (header.relocatable_kernel == 0) {
    return fail("not relocatable, and its {} bytes at {:#x} do not fit into RAM", size, preferred);
  }
  if (header.kernel_alignment == 0 || !std::has_single_bit(header.kernel_alignment)) {
    return fail("setup header says an alignment of {:#x}, which is not a power of two",
                uint32_t{header.kernel_alignment});
  }
  return placement.place_lowest(
      {"the kernel", size, header.kernel_alignment, kHighLoadAddress, memory::GuestMemory::kHoleEnd});
}

Result<> place_initrd(const Request& request, const Surroundings& surroundings, Placement& placement,
                      SetupHeader& header) {
  if (request.modules.empty()) return {};
  if (request.modules.size() > 1) {
    return fail("{} modules given, but a bzImage takes one initrd", request.modules.size());
  }
  const Module& initrd = request.modules.front();
  const uint64_t limit = std::min<uint64_t>(uint64_t{header.initrd_addr_max} + 1, memory::GuestMemory::kHoleEnd);
  const uint64_t address =
      TRY_IN(fmt::format("initrd '{}'", initrd.name),
             placement.place_highest({"the initrd", initrd.bytes.size(), kPageSize, kHighLoadAddress, limit}));
  TRY(write_ram(surroundings.memory, address, initrd.bytes));
  header.ramdisk_image = static_cast<uint32_t>(address);
  header.ramdisk_size = static_cast<uint32_t>(initrd.bytes.size());
  return {};
}

Result<uint64_t> write_zero_page(const SetupHeader& header, const Surroundings& surroundings, Placement& placement) {
  BootParams params{};
  params.header = header;
  if (header.version >= kVersionWithRsdpAddress) params.acpi_rsdp_address = surroundings.rsdp_address;
  for (const MemoryRange& range : surroundings.map) {
    if (params.e820_entry_count == kMaximumE820Entries)
      return fail("the memory map has more than {} ranges", kMaximumE820Entries);
    params.e820_table[params.e820_entry_count++] = {range.start, range.size, static_cast<uint32_t>(range.type)};
  }
  const uint64_t address =
      TRY(placement.place_lowest({"the zero page", sizeof params, kPageSize, kBootDataStart, kBootDataEnd}));
  TRY(write_ram(surroundings.memory, address, as_bytes(params)));
  return address;
}

}  // namespace

bool looks_like_linux(ByteSpan kernel) {
  constexpr size_t kMagicOffset = kSetupHeaderOffset + offsetof(SetupHeader, header);
  constexpr size_t kFlagOffset = kSetupHeaderOffset + offsetof(SetupHeader, boot_flag);
  return kernel.size() >= kMagicOffset + sizeof(uint32_t) && load<uint16_t>(&kernel[kFlagOffset]) == kBootFlag &&
         load<uint32_t>(&kernel[kMagicOffset]) == kHeaderMagic;
}

bool linux_has_64_bit_entry(ByteSpan kernel) {
  const auto image = parse_linux(kernel);
  return image && has_64_bit_entry(image->header);
}

Result<LinuxImage> parse_linux(ByteSpan kernel) {
  if (!looks_like_linux(kernel)) return fail("not a bzImage: no 'HdrS' in its setup header");
  constexpr size_t kVersionOffset = kSetupHeaderOffset + offsetof(SetupHeader, version);
  if (kernel.size() < kVersionOffset + sizeof(uint16_t))
    return fail("ends within its setup header ({} bytes)", kernel.size());
  const auto version = load<uint16_t>(&kernel[kVersionOffset]);
  if (version < kOldestVersion) {
    return fail("boot protocol {} is older than {}", version_text(version), version_text(kOldestVersion));
  }
  const size_t header_end = kSetupHeaderOffset + header_size(version);
  if (kernel.size() < header_end) {
    return fail("setup header of boot protocol {} ends at {:#x} but the file has {} bytes", version_text(version),
                header_end, kernel.size());
  }
  LinuxImage image;
  std::memcpy(&image.header, &kernel[kSetupHeaderOffset], header_size(version));
  const SetupHeader& header = image.header;
  if ((header.loadflags & kLoadedHigh) == 0) return fail("a zImage that loads at 0x10000, not a bzImage");

  const uint64_t setup_sectors = header.setup_sects == 0 ? kDefaultSetupSectors : header.setup_sects;
  const uint64_t setup_size = (setup_sectors + 1) * kSectorSize;
  if (setup_size >= kernel.size()) {
    return fail("setup header says {} setup sectors ({:#x} bytes) but the file has {} bytes", setup_sectors, setup_size,
                kernel.size());
  }
  image.code = kernel.subspan(setup_size);
  // syssize counts what must be loaded, in paragraphs; a signature may follow it in the file.
  const uint64_t code_size = uint64_t{header.syssize} * 16;
  if (code_size > align_up(image.code.size(), 16)) {
    return fail("setup header says {:#x} bytes of code but the file has {:#x} after its setup", code_size,
                image.code.size());
  }
  return image;
}

Result<cpu::State> load_linux(const Request& request, const Surroundings& surroundings, Protocol entry) {
  const LinuxImage image = TRY(parse_linux(request.kernel));
  SetupHeader header = image.header;
  if (entry == Protocol::kLinux64 && !has_64_bit_entry(header)) {
    return fail("no 64-bit entry (boot protocol {}, xloadflags {:#x})", version_text(header.version),
                uint16_t{header.xloadflags});
  }
  const uint32_t command_line_limit = std::min(uint32_t{header.cmdline_size}, kMaximumCommandLine);
  if (request.command_line.size() > command_line_limit) {
    return fail("command line of {} bytes is above the {} that the kernel takes", request.command_line.size(),
                command_line_limit);
  }

  Placement placement(surroundings.map);
  const uint64_t load_address = TRY(place_kernel(image, placement));
  TRY(write_ram(surroundings.memory, load_address, image.code));

  header.type_of_loader = kLoaderUndefined;
  header.vid_mode = kVideoModeNormal;
  header.code32_start = static_cast<uint32_t>(load_address);
  header.ramdisk_image = 0;
  header.ramdisk_size = 0;
  header.setup_data = 0;
  header.cmd_line_ptr = static_cast<uint32_t>(
      TRY(place_string(surroundings.memory, placement, "the command line", request.command_line)));
  TRY(place_initrd(request, surroundings, placement, header));
  const uint64_t zero_page = TRY(write_zero_page(header, surroundings, placement));

  cpu::State state = entry == Protocol::kLinux64
                         ? TRY(make_long_mode_state(surroundings.memory, placement, load_address + kEntry64Offset))
                         : TRY(make_protected_mode_state(surroundings.memory, placement, load_address));
  state.gpr[cpu::kRsi] = zero_page;
  return state;
}

}  // namespace bulkhead::machine::boot
