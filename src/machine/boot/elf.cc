#include "machine/boot/elf.h"

#include <algorithm>

#include "machine/boot/boot.h"
#include "machine/boot/entry_state.h"
#include "spec/boot/elf.h"

namespace bulkhead::machine::boot {
namespace {

using namespace spec::elf;

// Kernels have a handful of either; a file may claim 65535.
constexpr size_t kMaximumProgramHeaders = 128;
constexpr size_t kMaximumNotes = 256;

Result<> parse_notes(ByteSpan bytes, uint64_t alignment, ElfImage& image) {
  const uint64_t unit = alignment == 8 ? 8 : 4;
  uint64_t at = 0;
  while (bytes.size() - at >= sizeof(NoteHeader)) {
    const auto header = load<NoteHeader>(&bytes[at]);
    const uint64_t name_at = at + sizeof header;
    const uint64_t descriptor_at = align_up(name_at + header.name_size, unit);
    if (!range_fits(descriptor_at, header.descriptor_size, bytes.size())) {
      return fail("note at {:#x} of its segment says {} + {} bytes but the segment has {}", at,
                  uint32_t{header.name_size}, uint32_t{header.descriptor_size}, bytes.size());
    }
    if (image.notes.size() == kMaximumNotes) return fail("more than {} notes", kMaximumNotes);
    const auto* name = reinterpret_cast<const char*>(bytes.data() + name_at);
    image.notes.push_back({std::string_view(name, strnlen(name, header.name_size)), header.type,
                           bytes.subspan(descriptor_at, header.descriptor_size)});
    at = std::min<uint64_t>(align_up(descriptor_at + header.descriptor_size, unit), bytes.size());
  }
  return {};
}

template <typename Header, typename ProgramHeader>
Result<ElfImage> parse_class(ByteSpan file) {
  if (file.size() < sizeof(Header)) return fail("ELF header has {} bytes but the file {}", sizeof(Header), file.size());
  const auto header = load<Header>(file.data());
  if (header.machine != kMachine386 && header.machine != kMachineX86_64) {
    return fail("ELF machine {} is neither the 386 nor x86-64", uint16_t{header.machine});
  }
  const uint64_t count = header.program_header_count;
  const uint64_t table = header.program_header_offset;
  if (count > kMaximumProgramHeaders) return fail("{} program headers are above {}", count, kMaximumProgramHeaders);
  if (count != 0 && header.program_header_size != sizeof(ProgramHeader)) {
    return fail("program headers of {} bytes, not {}", uint16_t{header.program_header_size}, sizeof(ProgramHeader));
  }
  if (!range_fits(table, count * sizeof(ProgramHeader), file.size())) {
    return fail("{} program headers at {:#x} but the file has {} bytes", count, table, file.size());
  }
  ElfImage image;
  image.is_64_bit = sizeof(Header) == sizeof(Header64);
  image.entry = header.entry;
  for (uint64_t i = 0; i < count; ++i) {
    const auto segment = load<ProgramHeader>(&file[table + i * sizeof(ProgramHeader)]);
    if (segment.type != kSegmentLoad && segment.type != kSegmentNote) continue;
    const uint64_t offset = segment.offset;
    const uint64_t file_size = segment.file_size;
    const uint64_t memory_size = segment.memory_size;
    if (!range_fits(offset, file_size, file.size())) {
      return fail("segment {} has {:#x} bytes at {:#x} but the file has {} bytes", i, file_size, offset, file.size());
    }
    const ByteSpan bytes = file.subspan(offset, file_size);
    if (segment.type == kSegmentNote) {
      TRY_IN(fmt::format("segment {}", i), parse_notes(bytes, segment.alignment, image));
      continue;
    }
    if (file_size > memory_size) {
      return fail("segment {} has {:#x} bytes in the file but {:#x} in memory", i, file_size, memory_size);
    }
    if (memory_size != 0) image.segments.push_back({segment.physical_address, memory_size, bytes});
  }
  return image;
}

}  // namespace

bool looks_like_elf(ByteSpan kernel) {
  return kernel.size() >= sizeof(Identification) && std::memcmp(kernel.data(), kMagic, sizeof kMagic) == 0;
}

const ElfImage::Note* ElfImage::find_note(std::string_view name, uint32_t type) const {
  const auto found =
      std::ranges::find_if(notes, [&](const Note& note) { return note.name == name && note.type == type; });
  return found == notes.end() ? nullptr : &*found;
}

Result<ElfImage> parse_elf(ByteSpan file) {
  if (!looks_like_elf(file)) return fail("not an ELF file");
  const auto identification = load<Identification>(file.data());
  if (identification.data != kLittleEndian)
    return fail("ELF data encoding {} is not little-endian", identification.data);
  switch (identification.file_class) {
    case kClass32:
      return parse_class<Header32, ProgramHeader32>(file);
    case kClass64:
      return parse_class<Header64, ProgramHeader64>(file);
    default:
      return fail("ELF class {} is neither 32 nor 64-bit", identification.file_class);
  }
}

Result<> load_segments(const ElfImage& image, memory::GuestMemory& memory, Placement& placement) {
  if (image.segments.empty()) return fail("no segment to load");
  for (size_t i = 0; i < image.segments.size(); ++i) {
    const ElfImage::Segment& segment = image.segments[i];
    TRY(placement.claim(fmt::format("loadable segment {}", i), segment.physical_address, segment.memory_size));
    TRY(write_ram(memory, segment.physical_address, segment.bytes));
    TRY(clear_ram(memory, segment.physical_address + segment.bytes.size(), segment.memory_size - segment.bytes.size()));
  }
  return {};
}

}  // namespace bulkhead::machine::boot
