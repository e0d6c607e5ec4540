#include "engine/interpreter/cpu.h"

#include "engine/interpreter/debug.h"
#include "engine/interpreter/op.h"
#include "engine/jit/jit.h"

namespace bulkhead::engine {

void raise(Vector vector) {
  throw GuestFault{.vector = vector};
}
void raise(Vector vector, uint32_t error_code) {
  throw GuestFault{.vector = vector, .has_error_code = true, .error_code = error_code};
}
void raise_page_fault(uint64_t linear, uint32_t error_code) {
  throw GuestFault{.vector = kPageFault, .has_error_code = true, .error_code = error_code, .cr2 = linear};
}

uint64_t Cpu::instruction_rip() const {
  const uint64_t value = block_rip + op->offset;
  return mode.code64() ? value : static_cast<uint32_t>(value);
}
uint64_t Cpu::next_rip() const {
  const uint64_t value = block_rip + op->end_offset;
  return mode.code64() ? value : static_cast<uint32_t>(value);
}
uint64_t Cpu::current_instruction_count() const {
  return instruction_count + (op != nullptr ? static_cast<uint64_t>(op - block_begin) : 0);
}

namespace {

ModeBits compute_mode(const Cpu& cpu) {
  const cpu::Segment& cs = cpu.segments[cpu::kCs];
  const cpu::Segment& ss = cpu.segments[cpu::kSs];
  const bool is_protected = (cpu.cr0 & kCr0Pe) != 0 && !cpu.virtual8086();
  uint32_t bits = static_cast<uint32_t>(cpu.cpl) << ModeBits::kCplShift;
  const bool code64 = cpu.long_mode() && (cs.attributes & (1u << 13)) != 0 && is_protected;
  if (code64) {
    bits |= ModeBits::kCode64;
  } else {
    if (is_protected && (cs.attributes & (1u << 14)) != 0) bits |= ModeBits::kCode32;
    if ((ss.attributes & (1u << 14)) != 0 && !cpu.virtual8086()) bits |= ModeBits::kStack32;
    constexpr uint32_t kWritableData = 0x92,
                       kMask = cpu::Segment::kUnusable | 0x9E;  // present, S, data, expand-up, writable
    bool flat = is_protected;
    for (const auto segment : {cpu::kEs, cpu::kSs, cpu::kDs}) {
      const cpu::Segment& cached = cpu.segments[segment];
      flat &= cached.base == 0 && cached.limit == 0xFFFF'FFFF && (cached.attributes & kMask) == kWritableData;
    }
    flat &= cs.base == 0 && cs.limit == 0xFFFF'FFFF && (cs.attributes & 2) != 0;
    if (flat) bits |= ModeBits::kFlat;
  }
  if (is_protected) bits |= ModeBits::kProtected;
  if (cpu.virtual8086()) bits |= ModeBits::kVirtual8086;
  if (cpu.long_mode()) bits |= ModeBits::kLongMode;
  const bool task_switched = (cpu.cr0 & kCr0Ts) != 0, emulation = (cpu.cr0 & kCr0Em) != 0;
  if (task_switched || emulation) bits |= ModeBits::kX87Off;
  if (task_switched) bits |= ModeBits::kTaskSwitched;
  if (emulation) bits |= ModeBits::kEmulation;
  if (task_switched && (cpu.cr0 & kCr0Mp) != 0) bits |= ModeBits::kWaitTraps;
  if ((cpu.cr4 & kCr4Osfxsr) != 0 && !emulation) bits |= ModeBits::kSse;
  if ((cpu.cr4 & kCr4Osxsave) != 0) {
    bits |= ModeBits::kXsave;
    if ((cpu.xcr0 & 6) == 6) bits |= ModeBits::kAvx;
  }
  return {bits};
}

}  // namespace

void translations_changed(Cpu& cpu) {
  static_assert(ModeBits::kXsave == 1 << 15, "the mode has 16 bits of run_context");
  cpu.run_context = cpu.tlb.code_generation(cpu.cpl != 3) << 16 | cpu.mode.value;
  if (cpu.jit != nullptr) cpu.jit->choose_targets();
}

void update_mode(Cpu& cpu) {
  cpu.mode = compute_mode(cpu);
  cpu.code_base = cpu.mode.code64() ? 0 : cpu.segments[cpu::kCs].base;
  const bool smap = (cpu.cr4 & kCr4Smap) != 0;
  const mmu::Rights system_rights = smap ? mmu::Rights::kSupervisorNoUserData : mmu::Rights::kSupervisor;
  if (system_rights != cpu.system_rights) cpu.tlb.slots().clear();
  cpu.system_rights = system_rights;
  if (cpu.cpl == 3) {
    cpu.rights = mmu::Rights::kUser;
  } else {
    cpu.rights = smap && (cpu.system_flags & kFlagAlignmentCheck) == 0 ? mmu::Rights::kSupervisorNoUserData
                                                                       : mmu::Rights::kSupervisor;
  }
  // What the kernel reaches while SMAP looks away must not be there for when it looks.
  cpu.keeps_slots = cpu.cpl != 3 && cpu.rights != cpu.system_rights ? 1 : 0;
  cpu.attention_mask = ~0u;
  if ((cpu.system_flags & kFlagInterrupt) == 0) cpu.attention_mask &= ~uint32_t{kAttentionInterrupt};
  if (cpu.nmi_blocked) cpu.attention_mask &= ~uint32_t{kAttentionNmi};
  update_watching(cpu);
  cpu.tlb.use(cpu.rights, cpu.checks_every_access);
  translations_changed(cpu);
}

void set_system_flags(Cpu& cpu, uint32_t flags) {
  constexpr uint32_t kSettable = kFlagTrap | kFlagInterrupt | kFlagDirection | kFlagIopl | kFlagNestedTask |
                                 kFlagResume | kFlagVirtual8086 | kFlagAlignmentCheck | kFlagVirtualInterrupt |
                                 kFlagVirtualInterruptPending | kFlagId;
  const uint32_t changed = (cpu.system_flags ^ flags) & kSettable;
  cpu.system_flags = flags & kSettable;
  if ((changed & (kFlagTrap | kFlagVirtual8086 | kFlagAlignmentCheck)) != 0) {
    update_mode(cpu);
  } else if ((changed & kFlagInterrupt) != 0) {
    cpu.attention_mask ^= kAttentionInterrupt;
  }
}

void set_rflags(Cpu& cpu, uint64_t rflags) {
  cpu.flags.from_rflags(rflags);
  set_system_flags(cpu, static_cast<uint32_t>(rflags));
  // Of use to the instruction after the one that is loading the flags.
  if ((rflags & kFlagResume) != 0) cpu.resume_at_count = cpu.current_instruction_count() + (cpu.op != nullptr ? 1 : 0);
}

void leave_block(Cpu& cpu) {
  if (cpu.op == nullptr || cpu.op + 1 == cpu.block_end) return;
  cpu.block_end = cpu.op + 1;
  cpu.rip = cpu.next_rip();
}

}  // namespace bulkhead::engine
