// Control, debug and extended control registers, and what invalidates translations. Intel SDM 2 (MOV CR, MOV DR, LMSW,
// XSETBV, INVLPG, INVPCID) and 3, 2.5, 4.1, 4.10.4, 9.8.5.
#include "engine/interpreter/simd/state.h"
#include "engine/interpreter/system/handlers.h"

#include "engine/interpreter/debug.h"
#include "engine/interpreter/system/operand.h"
#include "engine/mmu/page_walk.h"

namespace bulkhead::engine::system {
namespace {

void flush_everything(Cpu& cpu) {
  cpu.tlb.flush_all();
  if ((cpu.cr4 & kCr4Pcide) == 0) cpu.tlb.switch_pcid(0);
}

void write_cr0(Cpu& cpu, uint64_t value) {
  if (value >> 32 != 0) raise(kGeneralProtection, 0);
  constexpr uint64_t kDefined = kCr0Pe | kCr0Mp | kCr0Em | kCr0Ts | kCr0Ne | kCr0Wp | kCr0Am | kCr0Nw | kCr0Cd | kCr0Pg;
  value = (value & kDefined) | kCr0Et;
  const bool paging = (value & kCr0Pg) != 0;
  if (paging && (value & kCr0Pe) == 0) raise(kGeneralProtection, 0);
  if ((value & kCr0Nw) != 0 && (value & kCr0Cd) == 0) raise(kGeneralProtection, 0);
  const bool was_paging = (cpu.cr0 & kCr0Pg) != 0;
  uint64_t efer = cpu.efer;
  if (paging && !was_paging && (efer & kEferLme) != 0) {
    if ((cpu.cr4 & kCr4Pae) == 0 || (cpu.segments[cpu::kCs].attributes & (1u << 13)) != 0) raise(kGeneralProtection, 0);
    efer |= kEferLma;
  }
  if (!paging && was_paging) {
    if (cpu.code64() || (cpu.cr4 & kCr4Pcide) != 0) raise(kGeneralProtection, 0);
    efer &= ~uint64_t{kEferLma};
  }
  const uint64_t changed = cpu.cr0 ^ value;
  if (mmu::uses_pdptes(value, cpu.cr4, efer) && (changed & (kCr0Cd | kCr0Nw | kCr0Pg)) != 0 &&
      !mmu::load_pdptes(cpu, cpu.cr3)) {
    raise(kGeneralProtection, 0);
  }
  cpu.cr0 = value;
  cpu.efer = efer;
  if ((changed & (kCr0Pg | kCr0Wp | kCr0Pe)) != 0) flush_everything(cpu);
  update_mode(cpu);
}

void write_cr3(Cpu& cpu, uint64_t value) {
  const bool uses_pcids = (cpu.cr4 & kCr4Pcide) != 0;
  const bool keeps = uses_pcids && (value >> 63) != 0;
  if (uses_pcids) value &= ~(1ull << 63);
  if (cpu.long_mode() && (value & ~cpu.physical_mask) != 0) raise(kGeneralProtection, 0);
  if (mmu::uses_pdptes(cpu.cr0, cpu.cr4, cpu.efer) && !mmu::load_pdptes(cpu, value)) raise(kGeneralProtection, 0);
  cpu.cr3 = value;
  if (uses_pcids) {
    const auto pcid = static_cast<uint16_t>(value & 0xFFF);
    cpu.tlb.switch_pcid(pcid);
    if (!keeps) cpu.tlb.flush_pcid(pcid);
  } else {
    cpu.tlb.flush_all_but_global();
  }
  translations_changed(cpu);
}

void write_cr4(Cpu& cpu, uint64_t value) {
  uint64_t allowed = kCr4Tsd | kCr4De | kCr4Pse | kCr4Pae | kCr4Mce | kCr4Pge | kCr4Pce | kCr4Osfxsr | kCr4Osxmmexcpt;
  const Cpu::Features& features = cpu.features;
  if (features.umip) allowed |= kCr4Umip;
  if (features.fsgsbase) allowed |= kCr4Fsgsbase;
  if (features.pcid) allowed |= kCr4Pcide;
  if (features.xsave) allowed |= kCr4Osxsave;
  if (features.smep) allowed |= kCr4Smep;
  if (features.smap) allowed |= kCr4Smap;
  if ((value & ~allowed) != 0) raise(kGeneralProtection, 0);
  if (cpu.long_mode() && (value & kCr4Pae) == 0) raise(kGeneralProtection, 0);
  const uint64_t changed = cpu.cr4 ^ value;
  if ((changed & value & kCr4Pcide) != 0 && (!cpu.long_mode() || (cpu.cr3 & 0xFFF) != 0)) raise(kGeneralProtection, 0);
  constexpr uint64_t kTranslation = kCr4Pge | kCr4Pae | kCr4Pse | kCr4Smep;
  if (mmu::uses_pdptes(cpu.cr0, value, cpu.efer) && (changed & kTranslation) != 0 && !mmu::load_pdptes(cpu, cpu.cr3)) {
    raise(kGeneralProtection, 0);
  }
  cpu.cr4 = value;
  if ((changed & (kTranslation | kCr4Smap | kCr4Pcide)) != 0) flush_everything(cpu);
  update_mode(cpu);
}

// DR4 and DR5 are other names of DR6 and DR7 unless CR4.DE says they do not exist.
unsigned debug_register(Cpu& cpu, const Op& op) {
  unsigned index = op.instruction->reg;
  if (index > 7) raise(kInvalidOpcode);
  if (index == 4 || index == 5) {
    if ((cpu.cr4 & kCr4De) != 0) raise(kInvalidOpcode);
    index += 2;
  }
  require_cpl0(cpu);
  if ((cpu.dr7 & (1u << 13)) != 0) {
    enter_debug_exception(cpu, kDr6DebugAccess);
    raise(kDebug);
  }
  return index;
}

unsigned register_size(const Cpu& cpu) {
  return cpu.code64() ? 8 : 4;
}

}  // namespace

void move_to_control(Cpu& cpu, const Op& op) {
  const unsigned index = op.instruction->reg;
  if (index == 1 || (index > 4 && index != 8)) raise(kInvalidOpcode);
  require_cpl0(cpu);
  const uint64_t value = read_register(cpu, op.rm, register_size(cpu));
  switch (index) {
    case 0:
      return write_cr0(cpu, value);
    case 2:
      cpu.cr2 = value;
      return;
    case 3:
      return write_cr3(cpu, value);
    case 4:
      return write_cr4(cpu, value);
    default:
      if (value > 15) raise(kGeneralProtection, 0);
      cpu.io->write_task_priority(static_cast<uint8_t>(value));
  }
}

void move_from_control(Cpu& cpu, const Op& op) {
  const unsigned index = op.instruction->reg;
  if (index == 1 || (index > 4 && index != 8)) raise(kInvalidOpcode);
  require_cpl0(cpu);
  uint64_t value = 0;
  switch (index) {
    case 0:
      value = cpu.cr0;
      break;
    case 2:
      value = cpu.cr2;
      break;
    case 3:
      value = cpu.cr3;
      break;
    case 4:
      value = cpu.cr4;
      break;
    default:
      value = cpu.io->read_task_priority();
      break;
  }
  write_register(cpu, op.rm, register_size(cpu), value);
}

void move_to_debug(Cpu& cpu, const Op& op) {
  const unsigned index = debug_register(cpu, op);
  const uint64_t value = read_register(cpu, op.rm, register_size(cpu));
  if (index >= 6 && value >> 32 != 0) raise(kGeneralProtection, 0);
  if (index < 4) {
    cpu.dr[index] = value;
  } else if (index == 6) {
    cpu.dr6 = (value & 0xE00F) | 0xFFFF'0FF0;
  } else {
    cpu.dr7 = (value & 0xFFFF'23FF) | 0x400;
  }
  update_mode(cpu);
}

void move_from_debug(Cpu& cpu, const Op& op) {
  const unsigned index = debug_register(cpu, op);
  const uint64_t value = index < 4 ? cpu.dr[index] : index == 6 ? cpu.dr6 : cpu.dr7;
  write_register(cpu, op.rm, register_size(cpu), value);
}

void load_machine_status(Cpu& cpu, const Op& op) {
  require_cpl0(cpu);
  const uint16_t value = read_rm16(cpu, op);
  // PE can be set, not cleared.
  write_cr0(cpu, (cpu.cr0 & ~uint64_t{kCr0Mp | kCr0Em | kCr0Ts}) | (value & 15u));
}

void store_machine_status(Cpu& cpu, const Op& op) {
  if ((cpu.cr4 & kCr4Umip) != 0 && cpu.cpl > 0) raise(kGeneralProtection, 0);
  write_rm16(cpu, op, cpu.cr0);
}

void clear_task_switched(Cpu& cpu, const Op&) {
  require_cpl0(cpu);
  cpu.cr0 &= ~uint64_t{kCr0Ts};
  update_mode(cpu);
}

void read_extended_control(Cpu& cpu, const Op&) {
  if ((cpu.cr4 & kCr4Osxsave) == 0) raise(kInvalidOpcode);
  const auto index = static_cast<uint32_t>(cpu.gpr[cpu::kRcx]);
  if (index > 1) raise(kGeneralProtection, 0);
  // Index 1: only the components in use.
  const uint64_t value = index == 0 ? cpu.xcr0 : cpu.xcr0 & simd::components_in_use(cpu);
  cpu.gpr[cpu::kRax] = static_cast<uint32_t>(value);
  cpu.gpr[cpu::kRdx] = value >> 32;
}

void write_extended_control(Cpu& cpu, const Op&) {
  if ((cpu.cr4 & kCr4Osxsave) == 0) raise(kInvalidOpcode);
  require_cpl0(cpu);
  if (static_cast<uint32_t>(cpu.gpr[cpu::kRcx]) != 0) raise(kGeneralProtection, 0);
  const uint64_t value = cpu.gpr[cpu::kRdx] << 32 | static_cast<uint32_t>(cpu.gpr[cpu::kRax]);
  const uint64_t allowed = cpu.features.avx ? 7 : 3;
  if ((value & ~allowed) != 0 || (value & 1) == 0 || (value & 6) == 4) raise(kGeneralProtection, 0);
  cpu.xcr0 = value;
  update_mode(cpu);
}

void invalidate_page(Cpu& cpu, const Op& op) {
  require_cpl0(cpu);
  const auto segment = memory_segment(op);
  uint64_t linear = memory_offset(cpu, op);
  if (!cpu.code64()) {
    linear = static_cast<uint32_t>(linear + cpu.segments[segment].base);
  } else if (segment >= cpu::kFs) {
    linear += cpu.segments[segment].base;
  }
  if (cpu.code64() && !is_canonical(linear)) return;  // as a no-operation
  cpu.tlb.flush_page(linear);
  translations_changed(cpu);
}

void invalidate_pcid(Cpu& cpu, const Op& op) {
  if ((cpu.cr0 & kCr0Pe) == 0) raise(kInvalidOpcode);
  require_cpl0(cpu);
  const uint64_t type = read_register(cpu, op.reg, register_size(cpu));
  const uint64_t offset = memory_offset(cpu, op);
  const auto low = read<uint64_t>(cpu, memory_segment(op), offset);
  const auto address = read<uint64_t>(cpu, memory_segment(op), offset_plus(op, offset, 8));
  if (type > 3 || (low & ~0xFFFull) != 0) raise(kGeneralProtection, 0);
  const bool uses_pcids = (cpu.cr4 & kCr4Pcide) != 0;
  if (type <= 1 && !uses_pcids && low != 0) raise(kGeneralProtection, 0);
  if (type == 0 && !is_canonical(address)) raise(kGeneralProtection, 0);
  switch (type) {
    case 0:
      cpu.tlb.flush_page(address);
      break;
    case 1:
      cpu.tlb.flush_pcid(static_cast<uint16_t>(low));
      break;
    case 2:
      cpu.tlb.flush_all();
      break;
    default:
      cpu.tlb.flush_all_but_global();
      break;
  }
  translations_changed(cpu);
}

void flush_caches(Cpu& cpu, const Op&) {
  require_cpl0(cpu);
}

}  // namespace bulkhead::engine::system
