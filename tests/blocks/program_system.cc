// What of the system random programs do: devices, changes of page tables under their own accesses, debug registers,
// ways from ring to ring.
#include "blocks/program.h"
#include "instructions/environment.h"
#include "instructions/host_cpu.h"
#include "memory/guest_address.h"

namespace bulkhead::blocks {

using instructions::kCodeAddress;
using instructions::kScratchAddress;

// Devices, flags of the system, time and randomness; in user mode most of it faults.
void ProgramGenerator::add_system(Ring ring) {
  mark();
  switch (below(ring == Ring::kKernel ? 17 : 7)) {
    case 0:
      return emit({0x0F, 0x31});  // rdtsc
    case 1:
      return emit({0x0F, 0xC7, 0xF0 | static_cast<unsigned>(below(4))});  // rdrand
    case 2:
      return emit({0x0F, 0xA2});  // cpuid
    case 3:
      return emit({chance(50) ? 0xFCu : 0xFDu});  // cld, std
    case 4:
      return emit({0xF3, 0x90});  // pause
    case 5:
      return chance(20) ? emit({0xCC}) : emit({0x0F, 0x0B});  // int3, ud2
    case 6:
      return chance(20) ? emit({0xFA}) : emit({0x90});  // cli
    case 7:
    case 8:
      return emit({0xFB});  // sti
    case 9:
      return emit({0xE6, kInterruptPort});  // out: an interrupt
    case 10:
      return emit({0xE5, 0x70});  // in eax, 0x70
    case 11:
      load(cpu::kRdi, kScratchAddress + kDevice * kPageSize + below(0x1000));
      mark();
      return emit({chance(50) ? 0x8Bu : 0x89u, 0x07});  // mov between eax and a device
    case 12:
      load(cpu::kRdi, pointer());
      mark();
      return emit({0x0F, 0x01, 0x3F});  // invlpg [rdi]
    case 13:
      emit({0x0F, 0x20, 0xD8});  // mov rax, cr3
      mark();
      return emit({0x0F, 0x22, 0xD8});  // mov cr3, rax
    case 14:
    case 15:
      return emit({0x0F, 0x01, chance(60) ? 0xCBu : 0xCAu});  // stac, clac
    default:
      emit({0x9C});  // pushf
      mark();
      return emit({0x9D});  // popf
  }
}

// Another page, or other rights, behind an address that slots and the TLB may know.
void ProgramGenerator::add_table_change(Ring ring) {
  const uint64_t page = below(kScratchPages);
  add_table_change_of(ring, page);
  // The next access is likely to reach it.
  if (chance(70)) load(cpu::kRbx, kScratchAddress + page * kPageSize + below(kPageSize - 256));
}

// The same places reach a page before and behind a change of it: rounds of accesses with the change between them.
void ProgramGenerator::add_table_loop(Ring ring) {
  const uint64_t page = below(kScratchPages);
  const bool by_stack = chance(25);
  load(by_stack ? cpu::kRsp : cpu::kRbx,
       kScratchAddress + page * kPageSize + 0x100 + (below(kPageSize - 0x200) & ~15ull));
  load(cpu::kRcx, 2 + below(3));
  const size_t begin = program_.code.size();
  const auto add_accesses = [&] {
    for (uint64_t count = below(3); count != 0; --count) {
      if (!by_stack) {
        add_access();
        continue;
      }
      mark();
      emit({0x56});  // push rsi
      mark();
      emit({0x5F});  // pop rdi
    }
  };
  add_accesses();
  add_table_change_of(ring, page);
  add_accesses();
  mark();
  emit({0xFF, 0xC9});  // dec ecx
  mark();
  emit({0x0F, 0x85});
  emit_value(static_cast<uint64_t>(static_cast<int64_t>(begin) - static_cast<int64_t>(program_.code.size() + 4)), 4);
}

// One access at [rbx + disp8] by one of the forms that translated code knows.
void ProgramGenerator::add_access() {
  constexpr std::array<unsigned, 8> kOpcodes = {0x8B, 0x8B, 0x89, 0x03, 0x01, 0x31, 0x39, 0x13};
  const unsigned reg = static_cast<unsigned>(below(4)) == cpu::kRcx ? unsigned{cpu::kRsi} : unsigned{cpu::kRdx};
  const unsigned modrm = 0x43 | reg << 3, displacement = static_cast<unsigned>(below(128));
  mark();
  switch (below(5)) {
    case 0:
      return emit({0x0F, chance(50) ? 0x10u : 0x11u, modrm, displacement});  // movups
    case 1:
      return emit({0xF0, 0x48, 0x0F, 0xC1, modrm, displacement});  // lock xadd
    default:
      return emit({0x48, kOpcodes[below(kOpcodes.size())], modrm, displacement});
  }
}

// What slots and the TLB know is dropped at once, because what a program sees otherwise is up to them. No register
// takes part, whatever jumps here.
void ProgramGenerator::add_table_change_of(Ring ring, uint64_t page) {
  namespace environment = instructions::environment;
  constexpr uint32_t kOther = 0x30'0000, kScratch = environment::kHighScratchPhysical,
                     kCode = environment::kHighCodePhysical;
  constexpr std::array<uint32_t, 10> kEntries = {0,
                                                 kScratch | 0x67,
                                                 (kScratch + kPageSize) | 0x67,
                                                 kScratch | 0x27,  // not dirty yet
                                                 kScratch | 0x65,  // read-only
                                                 kOther | 0x65,
                                                 (kOther + kPageSize) | 0x63,      // the supervisor's
                                                 (kOther + 2 * kPageSize) | 0x07,  // neither accessed nor dirty
                                                 kCode | 0x67,
                                                 (kCode + kPageSize) | 0x67};
  constexpr std::array<uint32_t, 5> kLargeEntries = {0, kScratch | 0xE7, kScratch | 0xE5, kScratch | 0x87,
                                                     kScratchTable | 0x67};
  const bool large = chance(20);
  const uint64_t address = large ? kDirectory + 8 * (kLargeAddress >> 21) : kScratchTable + 8 * page;
  const uint32_t value = large ? kLargeEntries[below(kLargeEntries.size())] : kEntries[below(kEntries.size())];
  const size_t begin = program_.code.size();
  mark();
  emit({0x48, 0xC7, 0x04, 0x25});  // mov qword [address], value
  emit_value(address, 4);
  emit_value(value, 4);
  if (ring == Ring::kUser) {
    emit({0xCD, !large && page == kPlain && chance(60) ? kFlushPageVector : kFlushVector});
  } else if (large || chance(25)) {
    emit({0x0F, 0x20, 0xD8});  // mov rax, cr3
    emit({0x0F, 0x22, 0xD8});  // mov cr3, rax
  } else {
    emit({0x0F, 0x01, 0x3C, 0x25});  // invlpg [page]
    emit_value(kScratchAddress + page * kPageSize, 4);
  }
  program_.table_changes.push_back({.address = address,
                                    .value = value,
                                    .offset = static_cast<uint16_t>(begin),
                                    .length = static_cast<uint16_t>(program_.code.size() - begin)});
}

// A breakpoint on an instruction of the program, or a watchpoint on its data or a port; in user mode #GP.
void ProgramGenerator::add_debug_registers() {
  const uint64_t number = below(4), kind = below(4);
  uint64_t address = pointer() & (chance(80) ? ~uint64_t{7} : ~uint64_t{0});
  // This instruction is the first one perhaps.
  if (kind == 0)
    address = here() + (program_.boundaries.empty() || chance(30)
                            ? 20
                            : program_.boundaries[below(program_.boundaries.size())] - program_.code.size());
  if (kind == 2) address = chance(50) ? kInterruptPort : 0x70;
  if (code64_ && chance(10)) address = random_.next();
  load(cpu::kRax, address);
  mark();
  emit({0x0F, 0x23, 0xC0 | static_cast<unsigned>(number) << 3});  // mov drN, rax
  const uint64_t size = kind == 0 ? 0 : below(4);
  load(cpu::kRax, 0x400 | uint64_t{1} << (2 * number + below(2)) | (kind | size << 2) << (16 + 4 * number) |
                      (chance(5) ? 0x2000 : 0));
  mark();
  emit({0x0F, 0x23, 0xF8});  // mov dr7, rax
}

// From the kernel to user mode by IRET; between the two by SYSCALL, SYSRET and a gate that anybody may use.
void ProgramGenerator::add_ring_change(Ring ring) {
  if (ring == Ring::kUser || !code64_ || chance(40)) {
    mark();
    if (code64_ && chance(60)) return emit({0x0F, 0x05});  // syscall
    return emit({0xCD, 0x80});                             // int 0x80
  }
  load(cpu::kRax, kScratchAddress + 0x800);
  mark();
  emit({0x6A, 0x2B});  // push SS
  mark();
  emit({0x50});  // push rax
  mark();
  emit({0x9C});  // pushf
  mark();
  emit({0x6A, 0x33});  // push CS
  mark();
  emit({0x48, 0x8D, 0x05, 3, 0, 0, 0});  // lea rax, [rip + 3]
  mark();
  emit({0x50});
  mark();
  emit({0x48, 0xCF});  // iretq
}

}  // namespace bulkhead::blocks
