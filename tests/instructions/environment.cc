#include "instructions/environment.h"

#include <array>
#include <cstring>
#include <vector>

#include "engine/interpreter/cpu.h"
#include "instructions/registers.h"
#include "support/check.h"

namespace bulkhead::instructions::environment {
namespace {

using memory::GuestMemory;

constexpr uint64_t kPml4 = 0x8000, kPdpt = 0x9000, kDirectory = 0xA000, kLowTable = 0xB000, kCodeTable = 0xC000,
                   kScratchTable = 0xD000;
constexpr uint64_t kDirectory32 = 0xE000, kTable32 = 0xF000, kPaePdpt = 0x5'0000;
constexpr uint64_t kUser = 0x67, kSupervisor = 0x63, kReadOnly = 0x65, kNoExecute = 1ull << 63;  // accessed and dirty

void put(GuestMemory& memory, uint64_t address, ByteSpan bytes) {
  CHECK(memory.write({address}, bytes), "the environment lies in RAM");
}
template <typename T>
void put(GuestMemory& memory, uint64_t address, const T& value) {
  put(memory, address, as_bytes(value));
}

uint64_t descriptor(uint64_t base, uint64_t limit, uint64_t access, uint64_t flags) {
  return (limit & 0xFFFF) | (base & 0xFFFFFF) << 16 | access << 40 | (limit >> 16 & 15) << 48 | flags << 52 |
         (base >> 24 & 0xFF) << 56;
}

uint64_t gate(uint64_t selector, uint64_t offset, uint64_t access) {
  return (offset & 0xFFFF) | selector << 16 | access << 40 | (offset >> 16 & 0xFFFF) << 48;
}

struct Mode {
  std::string_view name;
  bool long_mode = false, paged = false, pae = false, user = false, real = false;
  unsigned code_bits = 32;
  bool v86 = false;
};
constexpr std::array<Mode, 14> kModes = {{{.name = "real16", .real = true, .code_bits = 16},
                                          {.name = "v86", .code_bits = 16, .v86 = true},
                                          {.name = "prot16", .code_bits = 16},
                                          {.name = "prot32"},
                                          {.name = "prot32 user", .user = true},
                                          {.name = "paged32", .paged = true},
                                          {.name = "paged32 user", .paged = true, .user = true},
                                          {.name = "pae32", .paged = true, .pae = true},
                                          {.name = "pae32 user", .paged = true, .pae = true, .user = true},
                                          {.name = "compat32", .long_mode = true},
                                          {.name = "compat32 user", .long_mode = true, .user = true},
                                          {.name = "compat16", .long_mode = true, .code_bits = 16},
                                          {.name = "long64", .long_mode = true, .code_bits = 64},
                                          {.name = "long64 user", .long_mode = true, .user = true, .code_bits = 64}}};

const Mode* find_mode(std::string_view name) {
  for (const Mode& mode : kModes) {
    if (mode.name == name) return &mode;
  }
  return nullptr;
}

// The GDT as the README lists it, by selector / 8.
void build_gdt(GuestMemory& memory, bool long_mode) {
  std::array<uint64_t, 32> gdt{};
  gdt[0x08 / 8] = descriptor(0, 0xFFFFF, 0x9B, 0xC);
  gdt[0x10 / 8] = descriptor(0, 0xFFFFF, 0x93, 0xC);
  gdt[0x18 / 8] = descriptor(0, 0xFFFFF, 0x9B, 0xA);
  gdt[0x20 / 8] = descriptor(0, 0xFFFFF, 0xFB, 0xC);
  gdt[0x28 / 8] = descriptor(0, 0xFFFFF, 0xF3, 0xC);
  gdt[0x30 / 8] = descriptor(0, 0xFFFFF, 0xFB, 0xA);
  gdt[0x38 / 8] = descriptor(kLowCode, 0xFFFF, 0x9B, 0);
  gdt[0x40 / 8] = descriptor(kLowData, 0xFFFF, 0x93, 0);
  gdt[0x48 / 8] = descriptor(kTss, 0x2088, 0x8B, 0);
  gdt[0x58 / 8] = long_mode ? 0 : descriptor(kSecondTss, 0x67, 0x89, 0);
  gdt[0x60 / 8] = descriptor(0, 0xFFFFF, 0x13, 0xC);                       // data, not present
  gdt[0x68 / 8] = descriptor(0, 0xFFFFF, 0x1B, 0xC);                       // code, not present
  gdt[0x70 / 8] = descriptor(0, 0x0000F, 0x97, 0xC);                       // expand-down data: 10000 and above
  gdt[0x78 / 8] = descriptor(0, 0xFFFFF, 0x91, 0xC);                       // read-only data
  gdt[0x80 / 8] = descriptor(0, 0xFFFFF, 0x9F, 0xC);                       // conforming code
  gdt[0x88 / 8] = descriptor(0, 0xFFFFF, 0x99, 0xC);                       // execute-only code
  gdt[0x90 / 8] = gate(long_mode ? 0x18 : 0x08, kHandlers + 0x3F0, 0xEC);  // call gate, DPL 3
  gdt[0xA0 / 8] = descriptor(kLdt, 0x3F, 0x82, 0);                         // LDT
  gdt[0xB0 / 8] = descriptor(kLowData, 0xFF, 0x93, 0x4);                   // 256 bytes of data
  gdt[0xB8 / 8] = descriptor(0, 0xFFFFF, 0x92, 0xC);                       // data, never accessed
  gdt[0xC0 / 8] = descriptor(0, 0xFFFFF, 0xB3, 0xC);                       // data, DPL 1
  gdt[0xC8 / 8] = long_mode ? 0 : gate(0x58, 0, 0xE5);                     // task gate, DPL 3
  gdt[0xD0 / 8] = descriptor(kLowStack, 0xFFFF, 0x93, 0);                  // 16-bit stack
  put(memory, kGdt, gdt);
  const uint64_t ldt_data = descriptor(kLowData, 0xFFF, 0x93, 0x4);
  put(memory, kLdt + 8, ldt_data);
}

void build_idt(GuestMemory& memory, bool long_mode) {
  for (uint64_t vector = 0; vector < 256; ++vector) {
    const bool from_user = vector == 3 || vector == 4 || vector == 0x80;
    const uint64_t low = gate(long_mode ? 0x18 : 0x08, kHandlers + vector * kHandlerSize, from_user ? 0xEE : 0x8E);
    if (long_mode) {
      put(memory, kIdt + vector * 16, std::array<uint64_t, 2>{low, 0});
    } else {
      put(memory, kIdt + vector * 8, low);
    }
  }
}

void build_tss(GuestMemory& memory, bool long_mode) {
  std::array<uint8_t, 0x2100> tss{};
  const auto set = [&](size_t offset, auto value) { std::memcpy(tss.data() + offset, &value, sizeof value); };
  if (long_mode) {
    set(4, uint64_t{kKernelStack});
    set(0x24, uint64_t{kKernelStack - 0x400});  // IST1
  } else {
    set(4, static_cast<uint32_t>(kKernelStack));
    set(8, uint16_t{0x10});
    set(0x1C, static_cast<uint32_t>(kPml4));
  }
  set(0x66, uint16_t{0x88});
  // Interrupt redirection of virtual-8086 mode (unused), then the ports: only F4, where handlers report.
  std::fill(tss.begin() + 0x88, tss.end(), uint8_t{0xFF});
  tss[0x88 + 0xF4 / 8] = static_cast<uint8_t>(~(1u << (0xF4 % 8)));
  put(memory, kTss, tss);
}

void build_page_tables(GuestMemory& memory) {
  std::array<uint64_t, 512> low{};
  for (uint64_t page = 0; page < 512; ++page) low[page] = page << 12 | kUser;
  low[kAbsentPage >> 12] = kAbsentPage | (kUser & ~1ull);
  low[kReadOnlyPage >> 12] = kReadOnlyPage | kReadOnly;
  low[kSupervisorPage >> 12] = kSupervisorPage | kSupervisor;
  low[kNoExecutePage >> 12] = kNoExecutePage | kUser | kNoExecute;
  put(memory, kLowTable, low);
  put(memory, kPml4, uint64_t{kPdpt | kUser});
  put(memory, kPdpt, uint64_t{kDirectory | kUser});
  put(memory, kPaePdpt, uint64_t{kDirectory | 1});
  put(memory, kDirectory, uint64_t{kLowTable | kUser});
  put(memory, kDirectory + 8 * (kHighCode >> 21), uint64_t{kCodeTable | kUser});
  put(memory, kDirectory + 8 * (kHighScratch >> 21), uint64_t{kScratchTable | kUser});
  put(memory, kCodeTable, uint64_t{kHighCodePhysical | kUser});
  put(memory, kScratchTable,
      std::array<uint64_t, 2>{kHighScratchPhysical | kUser, (kHighScratchPhysical + kPageSize) | kUser});

  std::array<uint32_t, 1024> table32{};
  for (uint32_t page = 0; page < 1024; ++page) table32[page] = page << 12 | kUser;
  table32[kAbsentPage >> 12] &= ~1u;
  table32[kReadOnlyPage >> 12] = kReadOnlyPage | kReadOnly;
  table32[kSupervisorPage >> 12] = kSupervisorPage | kSupervisor;
  put(memory, kTable32, table32);
  put(memory, kDirectory32, static_cast<uint32_t>(kTable32 | kUser));
}

cpu::Segment segment(uint16_t selector, uint64_t base, uint32_t limit, uint32_t attributes) {
  return {.base = base, .limit = limit, .selector = selector, .attributes = attributes};
}

void set_real_segments(cpu::State& state, uint32_t attributes, uint32_t code_attributes) {
  const auto real = [&](uint64_t base, uint32_t a) {
    return segment(static_cast<uint16_t>(base >> 4), base, 0xFFFF, a);
  };
  state.segments.fill(real(kLowData, attributes));
  state.segments[cpu::kCs] = real(kLowCode, code_attributes);
  state.segments[cpu::kSs] = real(kLowStack, attributes);
}

void set_protected_segments(cpu::State& state, const Mode& mode) {
  const uint16_t rpl = mode.user ? 3 : 0;
  const uint32_t dpl = mode.user ? 0x60 : 0;
  if (mode.code_bits == 16) {
    state.segments.fill(segment(0x40, kLowData, 0xFFFF, 0x93));
    state.segments[cpu::kCs] = segment(0x38, kLowCode, 0xFFFF, 0x9B);
    state.segments[cpu::kSs] = segment(0xD0, kLowStack, 0xFFFF, 0x93);
    return;
  }
  state.segments.fill(segment((mode.user ? 0x28 : 0x10) | rpl, 0, 0xFFFF'FFFF, 0xC093 | dpl));
  const bool code64 = mode.code_bits == 64;
  const uint16_t code = static_cast<uint16_t>((mode.user ? (code64 ? 0x30 : 0x20) : (code64 ? 0x18 : 0x08)) | rpl);
  state.segments[cpu::kCs] = segment(code, 0, 0xFFFF'FFFF, (code64 ? 0xA09B : 0xC09B) | dpl);
}

void set_control(cpu::State& state, const Mode& mode) {
  using namespace engine;
  state.cr0 = kCr0Et | kCr0Ne;
  if (!mode.real) state.cr0 |= kCr0Pe;
  if (mode.paged || mode.long_mode) state.cr0 |= kCr0Pg | kCr0Wp;
  state.cr4 = kCr4Osfxsr | kCr4Osxmmexcpt | kCr4Osxsave;
  if (mode.pae || mode.long_mode) state.cr4 |= kCr4Pae;
  if (mode.long_mode) state.efer = kEferLme | kEferLma | kEferNxe | kEferSce;
  if (mode.pae) state.efer = kEferNxe;
  state.cr3 = mode.long_mode ? kPml4 : mode.pae ? kPaePdpt : mode.paged ? kDirectory32 : 0;
  state.xcr0 = 7;
}

}  // namespace

uint64_t physical_of(uint64_t linear) {
  if (linear - kHighCode < kPageSize) return kHighCodePhysical + (linear - kHighCode);
  if (linear - kHighScratch < 2 * kPageSize) return kHighScratchPhysical + (linear - kHighScratch);
  return linear;
}

void build(GuestMemory& memory, std::string_view mode_name) {
  const Mode* mode = find_mode(mode_name);
  const bool long_mode = mode != nullptr && mode->long_mode;
  static const std::vector<uint8_t> zeros(0x6'0000, 0);
  put(memory, 0, ByteSpan(zeros));
  put(memory, kHighCodePhysical, ByteSpan(zeros).first(kPageSize));
  put(memory, kHighScratchPhysical, ByteSpan(zeros).first(2 * kPageSize));
  build_gdt(memory, long_mode);
  build_idt(memory, long_mode);
  build_tss(memory, long_mode);
  build_page_tables(memory);
  // out 0xf4, al; hlt
  for (uint64_t vector = 0; vector < 256; ++vector) {
    put(memory, kHandlers + vector * kHandlerSize, std::array<uint8_t, 4>{0xE6, 0xF4, 0xF4, 0xF4});
    if (mode != nullptr && mode->real)
      put(memory, vector * 4, static_cast<uint32_t>(kHandlers + vector * kHandlerSize));
  }
}

Result<cpu::State> initial_state(std::string_view mode_name) {
  const Mode* mode = find_mode(mode_name);
  if (mode == nullptr) return fail("'{}': not a mode", mode_name);
  cpu::State state = cpu::reset_state(0);
  for (size_t i = 0; i < state.gpr.size(); ++i) state.gpr[i] = 0x5A5A5A5A5A5A5A00 + i;
  state.rflags = 2;
  set_control(state, *mode);
  if (mode->real) {
    set_real_segments(state, 0x93, 0x9B);
    state.idtr = {.base = 0, .limit = 0x3FF};
  } else {
    state.gdtr = {.base = kGdt, .limit = 0xFF};
    state.idtr = {.base = kIdt, .limit = static_cast<uint16_t>(mode->long_mode ? 0xFFF : 0x7FF)};
    state.tr = segment(0x48, kTss, 0x2088, 0x8B);
    state.ldtr = segment(0, 0, 0, cpu::Segment::kUnusable);
    if (mode->v86) {
      set_real_segments(state, 0xF3, 0xF3);
      state.rflags |= engine::kFlagVirtual8086 | engine::kFlagIopl;
    } else {
      set_protected_segments(state, *mode);
    }
  }
  const bool small = mode->code_bits == 16;
  state.gpr[cpu::kRsp] = small ? 0x0F00 : kLowStack + 0xF00;
  state.rip = small ? 0 : mode->long_mode ? kHighCode : kLowCode;
  Registers vectors;
  reset_vector_state(vectors);
  std::copy(vectors.xsave.begin(), vectors.xsave.end(), state.xsave.begin());
  return state;
}

}  // namespace bulkhead::instructions::environment
