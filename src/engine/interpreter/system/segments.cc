// Loads and stores of segment registers and descriptor-table registers, and the instructions that ask about
// descriptors. Intel SDM 2 (MOV, LDS, LLDT, LTR, LGDT, VERR, LAR, LSL, ARPL) and 3, 5.6 to 5.10.
#include "engine/interpreter/system/descriptor.h"
#include "engine/interpreter/system/handlers.h"
#include "engine/interpreter/system/operand.h"

namespace bulkhead::engine {
namespace {

void load_stack_segment(Cpu& cpu, uint16_t selector) {
  if (is_null_selector(selector)) {
    // 64-bit mode below CPL 3 runs with a null SS.
    if (!cpu.code64() || cpu.cpl == 3 || (selector & 3) != cpu.cpl) raise(kGeneralProtection, 0);
    cpu.segments[cpu::kSs] = null_segment(selector, cpu.cpl);
    return;
  }
  Descriptor descriptor = check_stack_segment(cpu, selector, cpu.cpl, kGeneralProtection);
  set_accessed(cpu, selector, descriptor);
  cpu.segments[cpu::kSs] = to_segment(selector, descriptor);
}

void load_data_segment(Cpu& cpu, cpu::SegmentRegister segment, uint16_t selector) {
  if (is_null_selector(selector)) {
    cpu.segments[segment] = null_segment(selector);
    return;
  }
  const uint32_t error = selector_error(selector);
  Descriptor descriptor = read_descriptor(cpu, selector, kGeneralProtection);
  if (!descriptor.is_readable()) raise(kGeneralProtection, error);
  if (!descriptor.is_conforming() && (descriptor.dpl() < cpu.cpl || descriptor.dpl() < (selector & 3))) {
    raise(kGeneralProtection, error);
  }
  if (!descriptor.present()) raise(kSegmentNotPresent, error);
  set_accessed(cpu, selector, descriptor);
  cpu.segments[segment] = to_segment(selector, descriptor);
}

}  // namespace

void load_segment(Cpu& cpu, cpu::SegmentRegister segment, uint16_t selector) {
  if (!cpu.protected_mode()) {
    load_real_segment(cpu, segment, selector);
  } else if (segment == cpu::kSs) {
    load_stack_segment(cpu, selector);
  } else {
    load_data_segment(cpu, segment, selector);
  }
  if (!cpu.code64()) {
    const ModeBits before = cpu.mode;
    update_mode(cpu);
    if (before != cpu.mode) leave_block(cpu);
  }
}

void hold_off_interrupts(Cpu& cpu) {
  cpu.stack_shadow_at_count = cpu.current_instruction_count() + 1;
}

}  // namespace bulkhead::engine

namespace bulkhead::engine::system {
namespace {

void require_protected(const Cpu& cpu) {
  if (!cpu.protected_mode()) raise(kInvalidOpcode);
}

void check_umip(const Cpu& cpu) {
  if ((cpu.cr4 & kCr4Umip) != 0 && cpu.cpl > 0) raise(kGeneralProtection, 0);
}

cpu::DescriptorTable read_table_operand(Cpu& cpu, const Op& op) {
  const uint64_t offset = memory_offset(cpu, op);
  const auto segment = memory_segment(op);
  const auto limit = read<uint16_t>(cpu, segment, offset);
  const uint64_t base_offset = offset_plus(op, offset, 2);
  if (cpu.code64()) {
    const auto base = read<uint64_t>(cpu, segment, base_offset);
    if (!is_canonical(base)) raise(kGeneralProtection, 0);
    return {.base = base, .limit = limit};
  }
  const uint64_t base = read<uint32_t>(cpu, segment, base_offset);
  return {.base = op.instruction->operand_size == 2 ? base & 0xFF'FFFF : base, .limit = limit};
}

void store_table(Cpu& cpu, const Op& op, const cpu::DescriptorTable& table) {
  check_umip(cpu);
  const uint64_t offset = memory_offset(cpu, op);
  const auto segment = memory_segment(op);
  const uint64_t base_offset = offset_plus(op, offset, 2);
  const unsigned base_size = cpu.code64() ? 8 : 4;
  probe_write(cpu, segment, base_offset, base_size);
  write<uint16_t>(cpu, segment, offset, table.limit);
  write_sized(cpu, segment, base_offset, base_size, table.base);
}

// LAR, LSL, VERR, VERW: the descriptor, when the present privilege may know about it.
bool visible_descriptor(Cpu& cpu, uint16_t selector, Descriptor& descriptor) {
  if (is_null_selector(selector) || !try_read_descriptor(cpu, selector, descriptor)) return false;
  if (descriptor.is_conforming()) return true;
  return descriptor.dpl() >= cpu.cpl && descriptor.dpl() >= (selector & 3);
}

bool is_system_type_for_lar(const Cpu& cpu, uint8_t type) {
  switch (type) {
    case kLdt:
    case kTss32Available:
    case kTss32Busy:
    case kCallGate32:
      return true;
    case kTss16Available:
    case kTss16Busy:
    case kCallGate16:
    case kTaskGate:
      return !cpu.long_mode();
    default:
      return false;
  }
}

}  // namespace

void move_to_segment(Cpu& cpu, const Op& op) {
  const auto segment = static_cast<cpu::SegmentRegister>(op.instruction->reg & 7);
  if (segment == cpu::kCs || segment > cpu::kGs) raise(kInvalidOpcode);
  load_segment(cpu, segment, read_rm16(cpu, op));
  if (segment == cpu::kSs) hold_off_interrupts(cpu);
}

void move_from_segment(Cpu& cpu, const Op& op) {
  if ((op.instruction->reg & 7) > cpu::kGs) raise(kInvalidOpcode);
  write_rm16(cpu, op, cpu.segments[op.instruction->reg & 7].selector);
}

void load_far_pointer(Cpu& cpu, const Op& op) {
  using decoder::Mnemonic;
  const unsigned size = op.instruction->operand_size;
  const uint64_t offset = memory_offset(cpu, op);
  const uint64_t value = read_sized(cpu, memory_segment(op), offset, size);
  const auto selector = read<uint16_t>(cpu, memory_segment(op), offset_plus(op, offset, size));
  cpu::SegmentRegister segment = cpu::kDs;
  switch (op.instruction->mnemonic) {
    case Mnemonic::kLes:
      segment = cpu::kEs;
      break;
    case Mnemonic::kLss:
      segment = cpu::kSs;
      break;
    case Mnemonic::kLfs:
      segment = cpu::kFs;
      break;
    case Mnemonic::kLgs:
      segment = cpu::kGs;
      break;
    default:
      break;
  }
  load_segment(cpu, segment, selector);
  write_register(cpu, op.reg, size, value);
}

void load_ldt(Cpu& cpu, const Op& op) {
  require_protected(cpu);
  require_cpl0(cpu);
  const uint16_t selector = read_rm16(cpu, op);
  if (is_null_selector(selector)) {
    cpu.ldtr = null_segment(selector);
    return;
  }
  const uint32_t error = selector_error(selector);
  if ((selector & 4) != 0) raise(kGeneralProtection, error);
  Descriptor descriptor = read_descriptor(cpu, selector, kGeneralProtection);
  if (descriptor.is_segment() || descriptor.type() != kLdt) raise(kGeneralProtection, error);
  if (cpu.long_mode()) read_upper_half(cpu, selector, descriptor, kGeneralProtection);
  if (!descriptor.present()) raise(kSegmentNotPresent, error);
  if (!is_canonical(descriptor.base64())) raise(kGeneralProtection, error);
  cpu.ldtr = to_segment(selector, descriptor);
  cpu.ldtr.base = descriptor.base64();
}

void load_task_register(Cpu& cpu, const Op& op) {
  require_protected(cpu);
  require_cpl0(cpu);
  const uint16_t selector = read_rm16(cpu, op);
  if (is_null_selector(selector)) raise(kGeneralProtection, 0);
  const uint32_t error = selector_error(selector);
  if ((selector & 4) != 0) raise(kGeneralProtection, error);
  Descriptor descriptor = read_descriptor(cpu, selector, kGeneralProtection);
  const bool fits = !descriptor.is_segment() && (descriptor.type() == kTss32Available ||
                                                 (descriptor.type() == kTss16Available && !cpu.long_mode()));
  if (!fits) raise(kGeneralProtection, error);
  if (cpu.long_mode()) read_upper_half(cpu, selector, descriptor, kGeneralProtection);
  if (!descriptor.present()) raise(kSegmentNotPresent, error);
  if (!is_canonical(descriptor.base64())) raise(kGeneralProtection, error);
  change_type(cpu, selector, descriptor, 2, 0);
  cpu.tr = to_segment(selector, descriptor);
  cpu.tr.base = descriptor.base64();
}

void store_ldt(Cpu& cpu, const Op& op) {
  require_protected(cpu);
  check_umip(cpu);
  write_rm16(cpu, op, cpu.ldtr.selector);
}

void store_task_register(Cpu& cpu, const Op& op) {
  require_protected(cpu);
  check_umip(cpu);
  write_rm16(cpu, op, cpu.tr.selector);
}

void load_gdt(Cpu& cpu, const Op& op) {
  require_cpl0(cpu);
  cpu.gdtr = read_table_operand(cpu, op);
}

void load_idt(Cpu& cpu, const Op& op) {
  require_cpl0(cpu);
  cpu.idtr = read_table_operand(cpu, op);
}

void store_gdt(Cpu& cpu, const Op& op) {
  store_table(cpu, op, cpu.gdtr);
}
void store_idt(Cpu& cpu, const Op& op) {
  store_table(cpu, op, cpu.idtr);
}

void verify_read(Cpu& cpu, const Op& op) {
  require_protected(cpu);
  const uint16_t selector = read_rm16(cpu, op);
  Descriptor descriptor;
  const bool visible = visible_descriptor(cpu, selector, descriptor);
  set_zero_flag(cpu, visible && descriptor.is_readable());
}

void verify_write(Cpu& cpu, const Op& op) {
  require_protected(cpu);
  const uint16_t selector = read_rm16(cpu, op);
  Descriptor descriptor;
  const bool visible = visible_descriptor(cpu, selector, descriptor);
  set_zero_flag(cpu, visible && descriptor.is_writable());
}

void load_access_rights(Cpu& cpu, const Op& op) {
  require_protected(cpu);
  const uint16_t selector = read_rm16(cpu, op);
  Descriptor descriptor;
  bool valid = visible_descriptor(cpu, selector, descriptor);
  if (valid && !descriptor.is_segment()) valid = is_system_type_for_lar(cpu, descriptor.type());
  set_zero_flag(cpu, valid);
  if (valid) write_register(cpu, op.reg, op.instruction->operand_size, descriptor.low >> 32 & 0x00FF'FF00);
}

void load_segment_limit(Cpu& cpu, const Op& op) {
  require_protected(cpu);
  const uint16_t selector = read_rm16(cpu, op);
  Descriptor descriptor;
  bool valid = visible_descriptor(cpu, selector, descriptor);
  if (valid && !descriptor.is_segment()) {
    const uint8_t type = descriptor.type();
    valid = is_system_type_for_lar(cpu, type) && type != kCallGate16 && type != kCallGate32 && type != kTaskGate;
  }
  set_zero_flag(cpu, valid);
  if (valid) write_register(cpu, op.reg, op.instruction->operand_size, descriptor.limit());
}

void adjust_rpl(Cpu& cpu, const Op& op) {
  require_protected(cpu);
  const uint16_t wanted = static_cast<uint16_t>(read_register(cpu, op.reg, 2));
  const bool in_memory = op.instruction->has_memory();
  const uint64_t offset = in_memory ? memory_offset(cpu, op) : 0;
  if (in_memory) probe_write(cpu, memory_segment(op), offset, 2);
  const uint16_t selector = read_rm16(cpu, op);
  const bool lower = (selector & 3) < (wanted & 3);
  if (lower) {
    const auto adjusted = static_cast<uint16_t>((selector & ~3) | (wanted & 3));
    if (in_memory) {
      write<uint16_t>(cpu, memory_segment(op), offset, adjusted);
    } else {
      write_register(cpu, op.rm, 2, adjusted);
    }
  }
  set_zero_flag(cpu, lower);
}

void swap_gs(Cpu& cpu, const Op&) {
  if (!cpu.code64()) raise(kInvalidOpcode);
  require_cpl0(cpu);
  std::swap(cpu.segments[cpu::kGs].base, cpu.cold.msr_kernel_gs_base);
}

void read_base(Cpu& cpu, const Op& op) {
  if (!cpu.code64() || (cpu.cr4 & kCr4Fsgsbase) == 0) raise(kInvalidOpcode);
  const auto segment = op.instruction->mnemonic == decoder::Mnemonic::kRdfsbase ? cpu::kFs : cpu::kGs;
  write_register(cpu, op.rm, op.instruction->operand_size, cpu.segments[segment].base);
}

void write_base(Cpu& cpu, const Op& op) {
  if (!cpu.code64() || (cpu.cr4 & kCr4Fsgsbase) == 0) raise(kInvalidOpcode);
  const auto segment = op.instruction->mnemonic == decoder::Mnemonic::kWrfsbase ? cpu::kFs : cpu::kGs;
  const uint64_t base = read_register(cpu, op.rm, op.instruction->operand_size == 8 ? 8 : 4);
  if (!is_canonical(base)) raise(kGeneralProtection, 0);
  cpu.segments[segment].base = base;
}

}  // namespace bulkhead::engine::system
