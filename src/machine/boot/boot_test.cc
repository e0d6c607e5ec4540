#include "machine/boot/boot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "machine/board/address_map.h"
#include "machine/boot/linux.h"
#include "machine/boot/placement.h"
#include "spec/boot/elf.h"
#include "spec/boot/linux_boot.h"
#include "spec/boot/multiboot.h"
#include "spec/boot/pvh.h"

namespace bulkhead::machine::boot {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<uint8_t>;

constexpr uint64_t kRamSize = 64ull << 20;
constexpr uint64_t kRsdp = 0xE'0000;

void append(Bytes& to, ByteSpan bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

class BootTest : public testing::Test {
 protected:
  BootTest() : memory_(memory::GuestMemory::create(kRamSize).value()), map_(make_memory_map(*memory_)) {}

  Result<Started> boot(Bytes kernel, Protocol protocol = Protocol::kAutomatic) {
    kernel_ = std::move(kernel);
    return load_kernel({"k.img", kernel_, command_line_, modules_, protocol}, {*memory_, map_, kRsdp});
  }
  std::string error_of(Bytes kernel, Protocol protocol = Protocol::kAutomatic) {
    const auto started = boot(std::move(kernel), protocol);
    return started ? "" : started.error().message;
  }
  template <typename T>
  T at(uint64_t address) {
    return memory_->read_object<T>({address}).value();
  }
  std::string string_at(uint64_t address) {
    std::string text;
    while (const char c = at<char>(address++)) text.push_back(c);
    return text;
  }

  std::unique_ptr<memory::GuestMemory> memory_;
  MemoryMap map_;
  Bytes kernel_;
  std::string command_line_ = "console=ttyS0";
  std::vector<Module> modules_;
};

// --- bzImage

struct LinuxSpec {
  uint16_t version = 0x020F;
  uint16_t xloadflags = spec::linux_boot::kKernel64;
  uint64_t preferred = 0x100'0000;
  uint32_t init_size = 0x10'0000;
  uint8_t relocatable = 1;
  size_t code_size = 0x3000;
};

Bytes make_linux(const LinuxSpec& image = {}) {
  spec::linux_boot::SetupHeader header{};
  header.setup_sects = 3;
  header.boot_flag = spec::linux_boot::kBootFlag;
  header.jump_displacement = 0x6A;
  header.header = spec::linux_boot::kHeaderMagic;
  header.version = image.version;
  header.loadflags = spec::linux_boot::kLoadedHigh;
  header.initrd_addr_max = 0x7FFF'FFFF;
  header.kernel_alignment = 0x20'0000;
  header.relocatable_kernel = image.relocatable;
  header.xloadflags = image.xloadflags;
  header.cmdline_size = 2047;
  header.pref_address = image.preferred;
  header.init_size = image.init_size;
  header.syssize = static_cast<uint32_t>((image.code_size + 15) / 16);
  Bytes file(4 * 512, 0xEE);
  std::memcpy(&file[spec::linux_boot::kSetupHeaderOffset], &header, sizeof header);
  for (size_t i = 0; i < image.code_size; ++i) file.push_back(static_cast<uint8_t>(i * 7));
  return file;
}

TEST_F(BootTest, LinuxStartsInLongModeAtItsPreferredAddress) {
  const Bytes initrd(5000, 0x5A);
  modules_ = {{"initrd.gz", "", initrd}};
  const auto started = boot(make_linux());
  ASSERT_TRUE(started) << started.error().message;
  EXPECT_EQ(started->protocol, Protocol::kLinux64);
  const cpu::State& state = started->state;
  EXPECT_EQ(state.rip, 0x100'0200u);
  EXPECT_EQ(state.segments[cpu::kCs].selector, 0x10);
  EXPECT_EQ(state.segments[cpu::kCs].attributes & 0x2000u, 0x2000u);
  EXPECT_EQ(state.segments[cpu::kDs].selector, 0x18);
  EXPECT_EQ(state.efer, 0x500u);
  EXPECT_EQ(at<uint8_t>(0x100'0001), 7);

  const auto params = at<spec::linux_boot::BootParams>(state.gpr[cpu::kRsi]);
  EXPECT_EQ(string_at(params.header.cmd_line_ptr), "console=ttyS0");
  // By value (+), for EXPECT_EQ would bind references to fields that a packed struct does not align.
  EXPECT_EQ(+params.acpi_rsdp_address, kRsdp);
  EXPECT_EQ(+params.header.type_of_loader, 0xFF);
  EXPECT_EQ(+params.header.code32_start, 0x100'0000u);
  EXPECT_EQ(+params.header.ramdisk_size, 5000u);
  EXPECT_EQ(+params.header.ramdisk_image, kRamSize - 8192);
  EXPECT_EQ(at<uint8_t>(params.header.ramdisk_image + 4999), 0x5A);
  EXPECT_EQ(+params.e820_entry_count, map_.size());
  EXPECT_EQ(+params.e820_table[0].size, kExtendedBiosDataStart);
}

// Walks the page tables that the loader wrote.
TEST_F(BootTest, LinuxPageTablesMapTheFirstFourGibibytesToThemselves) {
  const auto started = boot(make_linux());
  ASSERT_TRUE(started) << started.error().message;
  for (const uint64_t address : {0ull, 0x100'0200ull, 0x3FFF'FFFFull, 0x4000'0000ull, 0xFFFF'FFFFull}) {
    const uint64_t level4 = at<uint64_t>(started->state.cr3 + 8 * (address >> 39));
    const uint64_t level3 = at<uint64_t>((level4 & ~0xFFFull) + 8 * ((address >> 30) & 511));
    const uint64_t level2 = at<uint64_t>((level3 & ~0xFFFull) + 8 * ((address >> 21) & 511));
    EXPECT_EQ(level4 & level3 & level2 & 3, 3u);
    EXPECT_EQ((level2 & ~0x1F'FFFFull) | (address & 0x1F'FFFF), address);
  }
}

TEST_F(BootTest, LinuxStartsInProtectedModeByItsOldEntry) {
  for (const bool asked : {true, false}) {
    LinuxSpec image;
    if (!asked) image.xloadflags = 0;
    const auto started = boot(make_linux(image), asked ? Protocol::kLinux32 : Protocol::kAutomatic);
    ASSERT_TRUE(started) << started.error().message;
    EXPECT_EQ(started->protocol, Protocol::kLinux32);
    EXPECT_EQ(started->state.rip, 0x100'0000u);
    EXPECT_EQ(started->state.cr0 & 0x8000'0001, 1u);
    EXPECT_EQ(started->state.segments[cpu::kCs].attributes, 0xC09Bu);
    EXPECT_EQ(+at<spec::linux_boot::BootParams>(started->state.gpr[cpu::kRsi]).header.header,
              spec::linux_boot::kHeaderMagic);
  }
}

TEST_F(BootTest, LinuxMovesToWhereThereIsRoomWhenItCan) {
  LinuxSpec image;
  image.preferred = 0x4000'0000;
  const auto moved = boot(make_linux(image));
  ASSERT_TRUE(moved) << moved.error().message;
  EXPECT_EQ(moved->state.rip, 0x20'0200u);
  image.relocatable = 0;
  EXPECT_THAT(error_of(make_linux(image)), HasSubstr("kernel 'k.img': not relocatable"));
  image.relocatable = 1;
  image.init_size = 0x7FFF'FFFF;
  EXPECT_THAT(error_of(make_linux(image)), HasSubstr("no room in RAM for the kernel"));
}

TEST_F(BootTest, LinuxRefusesWhatItsHeaderForbids) {
  LinuxSpec old;
  old.version = 0x0205;
  EXPECT_THAT(error_of(make_linux(old)), HasSubstr("boot protocol 2.05 is older than 2.06"));
  LinuxSpec no_entry;
  no_entry.xloadflags = 0;
  EXPECT_THAT(error_of(make_linux(no_entry), Protocol::kLinux64), HasSubstr("no 64-bit entry"));
  Bytes cut = make_linux();
  cut.resize(cut.size() - 0x1000);
  EXPECT_THAT(error_of(cut), HasSubstr("setup header says 0x3000 bytes of code but the file has 0x2000"));
  cut.resize(3 * 512);
  EXPECT_THAT(error_of(cut), HasSubstr("setup header says 3 setup sectors (0x800 bytes) but the file has 1536 bytes"));
  command_line_ = std::string(2048, 'x');
  EXPECT_THAT(error_of(make_linux()), HasSubstr("command line of 2048 bytes is above the 2047"));
  command_line_.clear();
  const Bytes initrd(70 << 20);
  modules_ = {{"big", "", initrd}};
  EXPECT_THAT(error_of(make_linux()), HasSubstr("initrd 'big': no room in RAM"));
  modules_ = {{"a", "", {}}, {"b", "", {}}};
  EXPECT_THAT(error_of(make_linux()), HasSubstr("2 modules given"));
}

TEST_F(BootTest, LinuxTakesNothingBehindTheHeaderOfAnOldProtocol) {
  LinuxSpec old;
  old.version = 0x0207;
  old.init_size = 0x7FFF'FFFF;  // in this version the place of something else
  const auto started = boot(make_linux(old));
  ASSERT_TRUE(started) << started.error().message;
  EXPECT_EQ(started->protocol, Protocol::kLinux32);
  EXPECT_EQ(started->state.rip, 0x10'0000u);
}

TEST_F(BootTest, EveryTruncationOfABzImageIsRefused) {
  const Bytes whole = make_linux({.code_size = 32});
  for (size_t size = 0; size < whole.size() - 16; ++size) {
    EXPECT_NE(error_of(Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size))), "") << size;
  }
}

TEST_F(BootTest, LinuxKeepsTheInitrdBelowTheHighestAddressTheKernelAllows) {
  Bytes kernel = make_linux();
  store<uint32_t>(&kernel[0x22C], 0x1FF'FFFF);
  const Bytes initrd(100);
  modules_ = {{"initrd", "", initrd}};
  const auto started = boot(kernel);
  ASSERT_TRUE(started) << started.error().message;
  EXPECT_EQ(at<spec::linux_boot::BootParams>(started->state.gpr[cpu::kRsi]).header.ramdisk_image, 0x1FF'F000u);
}

// --- ELF and PVH

struct ElfSpec {
  uint64_t address = 0x20'0000;
  uint64_t memory_size = 0x2000;
  uint64_t entry = 0x20'0010;
  bool has_note = true;
  Bytes code = Bytes(0x1000, 0xC3);
};

template <typename Header, typename ProgramHeader, typename Pointer>
Bytes make_elf_of(uint8_t file_class, const ElfSpec& elf) {
  constexpr size_t kNoteSize = 16 + sizeof(Pointer);
  const size_t segments_at = sizeof(Header);
  const size_t note_at = segments_at + 2 * sizeof(ProgramHeader);
  const size_t code_at = note_at + kNoteSize;
  Header header{};
  std::memcpy(header.identification.magic, spec::elf::kMagic, 4);
  header.identification.file_class = file_class;
  header.identification.data = spec::elf::kLittleEndian;
  header.machine = file_class == spec::elf::kClass64 ? spec::elf::kMachineX86_64 : spec::elf::kMachine386;
  header.entry = static_cast<Pointer>(elf.entry);
  header.program_header_offset = segments_at;
  header.program_header_size = sizeof(ProgramHeader);
  header.program_header_count = elf.has_note ? 2 : 1;
  ProgramHeader segment{};
  segment.type = spec::elf::kSegmentLoad;
  segment.offset = static_cast<Pointer>(code_at);
  segment.physical_address = static_cast<Pointer>(elf.address);
  segment.file_size = static_cast<Pointer>(elf.code.size());
  segment.memory_size = static_cast<Pointer>(elf.memory_size);
  ProgramHeader note{};
  note.type = spec::elf::kSegmentNote;
  note.offset = static_cast<Pointer>(note_at);
  note.file_size = kNoteSize;
  Bytes file;
  append(file, as_bytes(header));
  append(file, as_bytes(segment));
  append(file, as_bytes(note));
  append(file, as_bytes(spec::elf::NoteHeader{4, sizeof(Pointer), spec::pvh::kNotePhys32Entry}));
  append(file, as_bytes(std::array<char, 4>{'X', 'e', 'n', 0}));
  append(file, as_bytes(static_cast<Pointer>(elf.entry)));
  append(file, elf.code);
  return file;
}

Bytes make_elf64(const ElfSpec& elf = {}) {
  return make_elf_of<spec::elf::Header64, spec::elf::ProgramHeader64, uint64_t>(spec::elf::kClass64, elf);
}
Bytes make_elf32(const ElfSpec& elf = {}) {
  return make_elf_of<spec::elf::Header32, spec::elf::ProgramHeader32, uint32_t>(spec::elf::kClass32, elf);
}

TEST_F(BootTest, PvhStartsBothElfClassesWithStartInfo) {
  const Bytes initrd{1, 2, 3};
  modules_ = {{"initrd", "first", initrd}};
  for (const Bytes& kernel : {make_elf64(), make_elf32()}) {
    ASSERT_TRUE(memory_->write_object<uint8_t>({0x20'1FFF}, 0x77));
    const auto started = boot(kernel);
    ASSERT_TRUE(started) << started.error().message;
    EXPECT_EQ(started->protocol, Protocol::kPvh);
    EXPECT_EQ(started->state.rip, 0x20'0010u);
    EXPECT_EQ(started->state.cr0 & 0x8000'0001, 1u);
    EXPECT_EQ(at<uint8_t>(0x20'0FFF), 0xC3);
    EXPECT_EQ(at<uint8_t>(0x20'1FFF), 0) << "the bss is cleared";

    const auto info = at<spec::pvh::StartInfo>(started->state.gpr[cpu::kRbx]);
    EXPECT_EQ(+info.magic, spec::pvh::kStartMagic);
    EXPECT_EQ(+info.version, 1u);
    EXPECT_EQ(+info.rsdp_address, kRsdp);
    EXPECT_EQ(string_at(info.command_line_address), "console=ttyS0");
    ASSERT_EQ(info.module_count, 1u);
    const auto module = at<spec::pvh::ModuleEntry>(info.module_list_address);
    EXPECT_EQ(+module.size, 3u);
    EXPECT_EQ(at<uint8_t>(module.address + 2), 3);
    EXPECT_EQ(string_at(module.command_line_address), "first");
    ASSERT_EQ(info.memory_map_count, map_.size());
    EXPECT_EQ(at<spec::pvh::MemoryMapEntry>(info.memory_map_address).size, kExtendedBiosDataStart);
  }
}

TEST_F(BootTest, PvhRefusesWhatDoesNotFit) {
  EXPECT_THAT(error_of(make_elf64({.has_note = false})), HasSubstr("kernel 'k.img': ELF file without a PVH entry"));
  EXPECT_THAT(error_of(make_elf64({.entry = 0x30'0000})), HasSubstr("lies in no loadable segment"));
  EXPECT_THAT(error_of(make_elf64({.address = kRamSize, .entry = kRamSize})), HasSubstr("does not lie in RAM"));
  EXPECT_THAT(error_of(make_elf64({.address = kRsdp, .entry = kRsdp})), HasSubstr("does not lie in RAM"));
  EXPECT_THAT(error_of(make_elf64({.address = UINT64_MAX, .entry = UINT64_MAX})), HasSubstr("above 4 GiB"));
  EXPECT_THAT(error_of(make_elf64({.memory_size = 16})), HasSubstr("in the file but 0x10 in memory"));
  EXPECT_THAT(error_of(Bytes(100)), HasSubstr("neither a bzImage"));
  EXPECT_THAT(error_of({}), HasSubstr("(0 bytes)"));
  Bytes big_endian = make_elf64();
  big_endian[5] = 2;
  EXPECT_THAT(error_of(big_endian), HasSubstr("not little-endian"));
}

TEST_F(BootTest, EveryTruncationOfAnElfFileIsRefused) {
  const Bytes whole = make_elf64({.code = Bytes(32)});
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_NE(error_of(Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size))), "") << size;
  }
}

// --- Multiboot

Bytes multiboot_header(uint32_t flags) {
  const spec::multiboot::Header header{spec::multiboot::kHeaderMagic, flags,
                                       0u - spec::multiboot::kHeaderMagic - flags};
  Bytes bytes;
  append(bytes, as_bytes(header));
  return bytes;
}

ElfSpec multiboot_elf(uint32_t flags = spec::multiboot::kWantsMemoryInfo) {
  ElfSpec elf;
  elf.code = multiboot_header(flags);
  elf.code.resize(0x1000);
  return elf;
}

TEST_F(BootTest, MultibootStartsAnElfKernelWithModulesAndItsMap) {
  const Bytes first(3, 1);
  const Bytes second(5000, 2);
  modules_ = {{"one", "a=1", first}, {"two", "", second}};
  const auto started = boot(make_elf32(multiboot_elf()));
  ASSERT_TRUE(started) << started.error().message;
  EXPECT_EQ(started->protocol, Protocol::kMultiboot);
  EXPECT_EQ(started->state.rip, 0x20'0010u);
  EXPECT_EQ(started->state.gpr[cpu::kRax], spec::multiboot::kBootMagic);
  const auto info = at<spec::multiboot::Info>(started->state.gpr[cpu::kRbx]);
  EXPECT_EQ(+info.flags, 0x24Du);
  EXPECT_EQ(+info.memory_lower_kib, 639u);
  EXPECT_EQ(+info.memory_upper_kib, kRamSize / 1024 - 1024);
  EXPECT_EQ(string_at(info.command_line), "k.img console=ttyS0");
  EXPECT_EQ(string_at(info.boot_loader_name), "Bulkhead");
  ASSERT_EQ(info.module_count, 2u);
  const auto module = at<std::array<spec::multiboot::ModuleEntry, 2>>(info.module_list);
  EXPECT_EQ(module[0].end - module[0].start, 3u);
  EXPECT_EQ(string_at(module[0].command_line), "one a=1");
  EXPECT_EQ(string_at(module[1].command_line), "two");
  EXPECT_EQ(module[1].start % 4096, 0u);
  EXPECT_GE(module[1].start, module[0].end);
  EXPECT_EQ(at<uint8_t>(module[1].end - 1), 2);
  EXPECT_EQ(+info.memory_map_size, map_.size() * 24);
  EXPECT_EQ(+at<spec::multiboot::MemoryMapEntry>(info.memory_map).length, kExtendedBiosDataStart);
}

TEST_F(BootTest, MultibootStartsAFileWithAddressFields) {
  Bytes file(64, 0xAA);
  append(file, multiboot_header(spec::multiboot::kHasAddressFields));
  append(file, as_bytes(spec::multiboot::AddressFields{0x10'0020, 0x10'0000, 0, 0x10'1000, 0x10'0100}));
  file.resize(600, 0xBB);
  ASSERT_TRUE(memory_->write_object<uint8_t>({0x10'0FFF}, 0x77));
  const auto started = boot(file);
  ASSERT_TRUE(started) << started.error().message;
  EXPECT_EQ(started->state.rip, 0x10'0100u);
  EXPECT_EQ(at<uint32_t>(0x10'0020), spec::multiboot::kHeaderMagic) << "loading begins 32 bytes into the file";
  EXPECT_EQ(at<uint8_t>(0x10'0000 + 600 - 32 - 1), 0xBB);
  EXPECT_EQ(at<uint8_t>(0x10'0FFF), 0);
}

TEST_F(BootTest, MultibootRefusesDemandsAndAddressesItCannotMeet) {
  EXPECT_THAT(error_of(make_elf32(multiboot_elf(spec::multiboot::kWantsVideoMode))), HasSubstr("demands"));
  EXPECT_THAT(error_of(make_elf64(multiboot_elf())), HasSubstr("64-bit ELF"));
  EXPECT_THAT(error_of(Bytes(64), Protocol::kMultiboot), HasSubstr("no Multiboot header"));
  const auto with_fields = [](spec::multiboot::AddressFields fields) {
    Bytes file = multiboot_header(spec::multiboot::kHasAddressFields);
    append(file, as_bytes(fields));
    return file;
  };
  EXPECT_THAT(error_of(with_fields({0x10'0020, 0x10'0000, 0, 0, 0})), HasSubstr("does not fit header address"));
  EXPECT_THAT(error_of(with_fields({0x10'0000, 0x10'0000, 0x20'0000, 0, 0})), HasSubstr("load end 0x200000"));
  EXPECT_THAT(error_of(with_fields({0x10'0000, 0x10'0000, 0x10'0010, 0x10'0001, 0})), HasSubstr("bss end"));
  EXPECT_THAT(error_of(with_fields({0x10'0000, 0x10'0000, 0, 0xFFFF'FFFF, 0})), HasSubstr("does not lie in RAM"));
  EXPECT_THAT(error_of(multiboot_header(spec::multiboot::kHasAddressFields)), HasSubstr("beyond the file"));
}

// --- the pieces

TEST(MemoryMap, HasRamBelowAndAboveTheHole) {
  const auto memory = memory::GuestMemory::create(5ull << 30).value();
  const MemoryMap map = make_memory_map(*memory);
  EXPECT_EQ(map.back(), (MemoryRange{1ull << 32, 2ull << 30, MemoryType::kRam}));
  uint64_t end = 0;
  for (const MemoryRange& range : map) {
    EXPECT_GE(range.start, end);
    end = range.start + range.size;
    EXPECT_EQ(memory->is_ram({range.start}, range.size),
              range.type == MemoryType::kRam || range.start < kHighMemoryStart);
  }
}

TEST(Placement, NeverGivesAPlaceTwice) {
  Placement placement({{0x1000, 0x3000, MemoryType::kRam}, {0x4000, 0x1000, MemoryType::kReserved}});
  EXPECT_TRUE(placement.claim("a", 0x2000, 0x1000));
  EXPECT_EQ(placement.claim("b", 0x2FFF, 2).error().message, "b at 0x2fff (2 bytes) overlaps a at 0x2000 (4096 bytes)");
  EXPECT_FALSE(placement.claim("c", 0x3FFF, 2));
  EXPECT_FALSE(placement.claim("d", UINT64_MAX, 2));
  EXPECT_EQ(placement.place_lowest({.what = "e", .size = 0x800, .alignment = 0x800}).value(), 0x1000u);
  EXPECT_EQ(placement.place_highest({.what = "f", .size = 0x10, .alignment = 0x1000}).value(), 0x3000u);
  EXPECT_EQ(placement.place_lowest({.what = "g", .size = 0x800}).value(), 0x1800u);
  EXPECT_FALSE(placement.place_lowest({.what = "h", .size = 0x1000}));
  EXPECT_FALSE(placement.place_highest({.what = "i", .size = 1, .to = 0x3000}));
}

}  // namespace
}  // namespace bulkhead::machine::boot
