// Kernels of the Multiboot Specification 0.6.96 (version 1): 32-bit ELF, or any file whose header carries load
// addresses.
#include <algorithm>
#include <optional>
#include <vector>

#include "machine/board/address_map.h"
#include "machine/boot/boot.h"
#include "machine/boot/elf.h"
#include "machine/boot/entry_state.h"
#include "machine/boot/placement.h"
#include "spec/boot/multiboot.h"

namespace bulkhead::machine::boot {
namespace {

using namespace spec::multiboot;

constexpr uint32_t kKnownDemands = kPageAlignModules | kWantsMemoryInfo;
constexpr size_t kMaximumModules = 256;
constexpr std::string_view kLoaderName = "Bulkhead";

// The offset of the header in the file.
std::optional<size_t> find_header(ByteSpan kernel) {
  const size_t end = std::min<size_t>(kernel.size(), kHeaderSearchSize);
  for (size_t at = 0; at + sizeof(Header) <= end; at += 4) {
    const auto header = load<Header>(&kernel[at]);
    if (header.magic == kHeaderMagic && header.magic + header.flags + header.checksum == 0) return at;
  }
  return std::nullopt;
}

// Files whose header says where they go (the specification's "a.out kludge"). Gives the entry.
Result<uint64_t> load_by_addresses(ByteSpan kernel, size_t header_at, memory::GuestMemory& memory,
                                   Placement& placement) {
  if (!range_fits(header_at + sizeof(Header), sizeof(AddressFields), kernel.size())) {
    return fail("Multiboot header at {:#x} announces address fields beyond the file ({} bytes)", header_at,
                kernel.size());
  }
  const auto fields = load<AddressFields>(&kernel[header_at + sizeof(Header)]);
  const uint64_t before = uint64_t{fields.header_address} - fields.load_address;
  if (fields.load_address > fields.header_address || before > header_at) {
    return fail("Multiboot load address {:#x} does not fit header address {:#x} at file offset {:#x}",
                uint32_t{fields.load_address}, uint32_t{fields.header_address}, header_at);
  }
  const uint64_t file_offset = header_at - before;
  uint64_t size = kernel.size() - file_offset;
  if (fields.load_end_address != 0) {
    if (fields.load_end_address < fields.load_address || fields.load_end_address - fields.load_address > size) {
      return fail("Multiboot load end {:#x} asks for more than the {} bytes of the file from {:#x} on",
                  uint32_t{fields.load_end_address}, kernel.size(), file_offset);
    }
    size = fields.load_end_address - fields.load_address;
  }
  uint64_t memory_size = size;
  if (fields.bss_end_address != 0) {
    if (fields.bss_end_address < fields.load_address + size) {
      return fail("Multiboot bss end {:#x} lies before the end of the data {:#x}", uint32_t{fields.bss_end_address},
                  fields.load_address + size);
    }
    memory_size = fields.bss_end_address - fields.load_address;
  }
  ElfImage image;
  image.segments.push_back({fields.load_address, memory_size, kernel.subspan(file_offset, size)});
  TRY(load_segments(image, memory, placement));
  return fields.entry_address;
}

Result<uint64_t> load_image(const Request& request, const Surroundings& surroundings, size_t header_at,
                            Placement& placement) {
  const auto header = load<Header>(&request.kernel[header_at]);
  if (const uint32_t unknown = header.flags & kDemandMask & ~kKnownDemands; unknown != 0) {
    return fail("Multiboot header demands what is not offered here (flags {:#x})", unknown);
  }
  if ((header.flags & kHasAddressFields) != 0) {
    return load_by_addresses(request.kernel, header_at, surroundings.memory, placement);
  }
  const ElfImage image = TRY(parse_elf(request.kernel));
  if (image.is_64_bit) return fail("a 64-bit ELF file, but Multiboot 1 starts 32-bit ones");
  TRY(load_segments(image, surroundings.memory, placement));
  return image.entry;
}

Result<uint32_t> place(const Surroundings& surroundings, Placement& placement, std::string_view what, ByteSpan bytes) {
  const uint64_t address = TRY(placement.place_lowest({what, bytes.size(), 16, kBootDataStart, kBootDataEnd}));
  TRY(write_ram(surroundings.memory, address, bytes));
  return static_cast<uint32_t>(address);
}

// Kernels of this protocol expect a file name as the first word.
std::string with_file_name(const std::string& name, const std::string& text) {
  return text.empty() ? name : name + " " + text;
}

Result<> place_modules(const Request& request, const Surroundings& surroundings, Placement& placement, Info& info) {
  if (request.modules.empty()) return {};
  if (request.modules.size() > kMaximumModules) {
    return fail("{} modules are above {}", request.modules.size(), kMaximumModules);
  }
  std::vector<spec::multiboot::ModuleEntry> entries;
  for (const Module& module : request.modules) {
    const std::string context = fmt::format("module '{}'", module.name);
    const uint64_t start = TRY_IN(context, placement.place_lowest({"the module", module.bytes.size(), kPageSize,
                                                                   kHighMemoryStart, memory::GuestMemory::kHoleEnd}));
    TRY_IN(context, write_ram(surroundings.memory, start, module.bytes));
    const uint64_t text = TRY_IN(context, place_string(surroundings.memory, placement, "the module's command line",
                                                       with_file_name(module.name, module.command_line)));
    entries.push_back({static_cast<uint32_t>(start), static_cast<uint32_t>(start + module.bytes.size()),
                       static_cast<uint32_t>(text), 0});
  }
  info.flags |= kInfoModules;
  info.module_count = static_cast<uint32_t>(entries.size());
  info.module_list = TRY(place(surroundings, placement, "the module list",
                               {reinterpret_cast<const uint8_t*>(entries.data()), entries.size() * sizeof entries[0]}));
  return {};
}

Result<> place_memory_map(const Surroundings& surroundings, Placement& placement, Info& info) {
  std::vector<spec::multiboot::MemoryMapEntry> entries;
  for (const MemoryRange& range : surroundings.map) {
    entries.push_back({sizeof(spec::multiboot::MemoryMapEntry) - sizeof(uint32_t), range.start, range.size,
                       static_cast<uint32_t>(range.type)});
  }
  info.flags |= kInfoMemory | kInfoMemoryMap;
  info.memory_lower_kib = static_cast<uint32_t>(kExtendedBiosDataStart / 1024);
  info.memory_upper_kib = static_cast<uint32_t>((surroundings.memory.low_size() - kHighMemoryStart) / 1024);
  info.memory_map_size = static_cast<uint32_t>(entries.size() * sizeof entries[0]);
  info.memory_map = TRY(place(surroundings, placement, "the memory map",
                              {reinterpret_cast<const uint8_t*>(entries.data()), info.memory_map_size}));
  return {};
}

}  // namespace

bool looks_like_multiboot(ByteSpan kernel) {
  return find_header(kernel).has_value();
}

Result<cpu::State> load_multiboot(const Request& request, const Surroundings& surroundings) {
  const auto header_at = find_header(request.kernel);
  if (!header_at) return fail("no Multiboot header in the first {} bytes", kHeaderSearchSize);
  Placement placement(surroundings.map);
  const uint64_t entry = TRY(load_image(request, surroundings, *header_at, placement));

  Info info{};
  TRY(place_modules(request, surroundings, placement, info));
  TRY(place_memory_map(surroundings, placement, info));
  info.flags |= kInfoCommandLine | kInfoBootLoaderName;
  info.command_line = static_cast<uint32_t>(TRY(place_string(
      surroundings.memory, placement, "the command line", with_file_name(request.kernel_name, request.command_line))));
  info.boot_loader_name =
      static_cast<uint32_t>(TRY(place_string(surroundings.memory, placement, "the loader's name", kLoaderName)));
  const uint32_t info_address = TRY(place(surroundings, placement, "the boot information", as_bytes(info)));

  cpu::State state = TRY(make_protected_mode_state(surroundings.memory, placement, entry));
  state.gpr[cpu::kRax] = kBootMagic;
  state.gpr[cpu::kRbx] = info_address;
  return state;
}

}  // namespace bulkhead::machine::boot
