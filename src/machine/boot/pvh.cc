// ELF kernels through Xen's PVH entry (docs/misc/pvh.pandoc): a 32-bit entry named by a note, told about the machine by
// hvm_start_info in EBX.
#include <vector>

#include "machine/boot/boot.h"
#include "machine/boot/elf.h"
#include "machine/boot/entry_state.h"
#include "machine/boot/placement.h"
#include "spec/boot/pvh.h"

namespace bulkhead::machine::boot {
namespace {

using namespace spec::pvh;

Result<uint64_t> find_entry(const ElfImage& image) {
  const ElfImage::Note* note = image.find_note(kNoteName, kNotePhys32Entry);
  if (note == nullptr)
    return fail("ELF file without a PVH entry (note 'Xen', type {}) or a Multiboot header", kNotePhys32Entry);
  if (note->descriptor.size() != 4 && note->descriptor.size() != 8) {
    return fail("PVH entry note has {} bytes, not 4 or 8", note->descriptor.size());
  }
  const uint64_t entry = load_little(note->descriptor);
  if (entry > UINT32_MAX) return fail("PVH entry {:#x} lies above 4 GiB", entry);
  for (const ElfImage::Segment& segment : image.segments) {
    if (entry - segment.physical_address < segment.memory_size) return entry;
  }
  return fail("PVH entry {:#x} lies in no loadable segment", entry);
}

template <typename Entry>
Result<uint64_t> place_table(const Surroundings& surroundings, Placement& placement, std::string_view what,
                             const std::vector<Entry>& entries) {
  const ByteSpan bytes{reinterpret_cast<const uint8_t*>(entries.data()), entries.size() * sizeof(Entry)};
  const uint64_t address = TRY(placement.place_lowest({what, bytes.size(), 16, kBootDataStart, kBootDataEnd}));
  TRY(write_ram(surroundings.memory, address, bytes));
  return address;
}

Result<std::vector<spec::pvh::ModuleEntry>> place_modules(const Request& request, const Surroundings& surroundings,
                                                          Placement& placement) {
  std::vector<spec::pvh::ModuleEntry> entries;
  for (const Module& module : request.modules) {
    const std::string context = fmt::format("module '{}'", module.name);
    const uint64_t address = TRY_IN(context, placement.place_highest({"the module", module.bytes.size(), kPageSize, 0,
                                                                      memory::GuestMemory::kHoleEnd}));
    TRY_IN(context, write_ram(surroundings.memory, address, module.bytes));
    const uint64_t text =
        TRY_IN(context, place_string(surroundings.memory, placement, "the module's command line", module.command_line));
    entries.push_back({address, module.bytes.size(), text, 0});
  }
  return entries;
}

}  // namespace

Result<cpu::State> load_pvh(const Request& request, const Surroundings& surroundings) {
  const ElfImage image = TRY(parse_elf(request.kernel));
  const uint64_t entry = TRY(find_entry(image));
  Placement placement(surroundings.map);
  TRY(load_segments(image, surroundings.memory, placement));

  const auto modules = TRY(place_modules(request, surroundings, placement));
  std::vector<spec::pvh::MemoryMapEntry> map;
  for (const MemoryRange& range : surroundings.map) {
    map.push_back({range.start, range.size, static_cast<uint32_t>(range.type), 0});
  }
  StartInfo info{};
  info.magic = kStartMagic;
  info.version = kStartVersion;
  info.module_count = static_cast<uint32_t>(modules.size());
  if (!modules.empty())
    info.module_list_address = TRY(place_table(surroundings, placement, "the module list", modules));
  info.command_line_address =
      TRY(place_string(surroundings.memory, placement, "the command line", request.command_line));
  info.rsdp_address = surroundings.rsdp_address;
  info.memory_map_address = TRY(place_table(surroundings, placement, "the memory map", map));
  info.memory_map_count = static_cast<uint32_t>(map.size());
  const uint64_t info_address =
      TRY(place_table(surroundings, placement, "the start info", std::vector<StartInfo>{info}));

  cpu::State state = TRY(make_protected_mode_state(surroundings.memory, placement, entry));
  state.gpr[cpu::kRbx] = info_address;
  return state;
}

}  // namespace bulkhead::machine::boot
