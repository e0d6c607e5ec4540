// INT n, INT3, INT1, INTO, BOUND, IRET, the interrupt flag, PUSHF and POPF, HLT. Intel SDM 2, and 3, chapters 6 and 20.
#include "engine/interpreter/system/descriptor.h"
#include "engine/interpreter/system/exceptions.h"
#include "engine/interpreter/system/handlers.h"
#include "engine/interpreter/system/operand.h"
#include "engine/interpreter/system/return_frame.h"
#include "engine/interpreter/system/stack_frame.h"
#include "engine/interpreter/system/task_switch.h"

namespace bulkhead::engine::system {
namespace {

constexpr uint32_t kArithmetic = 0x8D5;

// Loads of RFLAGS by POPF and IRET: `changeable` says which bits outside of the arithmetic six the present privilege
// reaches.
void load_flags(Cpu& cpu, uint64_t value, uint32_t changeable) {
  const uint32_t kept = cpu.system_flags & ~changeable;
  set_rflags(cpu, (value & kArithmetic) | (value & changeable) | kept);
}

uint32_t changeable_flags(const Cpu& cpu, unsigned size) {
  uint32_t bits = kFlagTrap | kFlagDirection | kFlagNestedTask;
  if (size > 2) bits |= kFlagResume | kFlagAlignmentCheck | kFlagId;
  if (cpu.cpl == 0 && !cpu.virtual8086()) {
    bits |= kFlagIopl;
    if (size > 2) bits |= kFlagVirtualInterrupt | kFlagVirtualInterruptPending;
  }
  if (cpu.cpl <= cpu.iopl() || (cpu.cr0 & kCr0Pe) == 0) bits |= kFlagInterrupt;
  return bits;
}

// CLI and STI.
void check_interrupt_privilege(const Cpu& cpu) {
  if ((cpu.cr0 & kCr0Pe) != 0 && cpu.cpl > cpu.iopl()) raise(kGeneralProtection, 0);
}

void return_real(Cpu& cpu, unsigned size) {
  const StackTarget stack = StackTarget::current(cpu);
  const uint64_t rip = read_stack(cpu, stack, 0, size);
  const auto selector = static_cast<uint16_t>(read_stack(cpu, stack, size, size));
  const uint64_t rflags = read_stack(cpu, stack, 2 * size, size);
  if (rip > 0xFFFF && rip > cpu.segments[cpu::kCs].limit) raise(kGeneralProtection, 0);
  set_stack_pointer(cpu, cpu.gpr[cpu::kRsp] + 3 * size);
  load_real_segment(cpu, cpu::kCs, selector);
  cpu.rip = rip;
  uint32_t changeable = changeable_flags(cpu, size) & ~(kFlagVirtualInterrupt | kFlagVirtualInterruptPending);
  if (cpu.virtual8086()) {
    changeable &= ~kFlagIopl;
    changeable |= kFlagInterrupt;  // IOPL is 3 here
  } else {
    changeable |= kFlagIopl;
  }
  load_flags(cpu, rflags, changeable);
  update_mode(cpu);
}

void return_to_virtual8086(Cpu& cpu, const StackTarget& stack, uint64_t rip, uint64_t code, uint64_t rflags) {
  std::array<uint64_t, 6> rest;  // ESP SS ES DS FS GS
  for (unsigned i = 0; i < 6; ++i) rest[i] = read_stack(cpu, stack, 12 + i * 4, 4);
  if ((rip & 0xFFFF'FFFF) > 0xFFFF) raise(kGeneralProtection, 0);
  set_rflags(cpu, rflags);
  cpu.cpl = 3;
  load_real_segment(cpu, cpu::kCs, static_cast<uint16_t>(code));
  cpu.gpr[cpu::kRsp] = static_cast<uint32_t>(rest[0]);
  load_real_segment(cpu, cpu::kSs, static_cast<uint16_t>(rest[1]));
  load_real_segment(cpu, cpu::kEs, static_cast<uint16_t>(rest[2]));
  load_real_segment(cpu, cpu::kDs, static_cast<uint16_t>(rest[3]));
  load_real_segment(cpu, cpu::kFs, static_cast<uint16_t>(rest[4]));
  load_real_segment(cpu, cpu::kGs, static_cast<uint16_t>(rest[5]));
  cpu.rip = rip;
  update_mode(cpu);
}

void return_from_task(Cpu& cpu) {
  const auto selector = read_system<uint16_t>(cpu, cpu.tr.base);
  const uint32_t error = selector_error(selector);
  if ((selector & 4) != 0 || is_null_selector(selector)) raise(kInvalidTss, error);
  const Descriptor tss = read_descriptor(cpu, selector, kInvalidTss);
  if (tss.is_segment() || (tss.type() != kTss32Busy && tss.type() != kTss16Busy)) raise(kInvalidTss, error);
  if (!tss.present()) raise(kSegmentNotPresent, error);
  switch_task(cpu, selector, TaskSwitch::kReturn, false);
}

void return_protected(Cpu& cpu, unsigned size) {
  if ((cpu.system_flags & kFlagNestedTask) != 0) {
    if (cpu.long_mode()) raise(kGeneralProtection, 0);
    return return_from_task(cpu);
  }
  const StackTarget stack = StackTarget::current(cpu);
  const uint64_t rip = read_stack(cpu, stack, 0, size);
  const uint64_t selector = read_stack(cpu, stack, size, size);
  const uint64_t rflags = read_stack(cpu, stack, 2 * size, size);
  if (size == 4 && (rflags & kFlagVirtual8086) != 0 && cpu.cpl == 0 && !cpu.long_mode()) {
    return return_to_virtual8086(cpu, stack, rip, selector, rflags);
  }
  const uint32_t changeable = changeable_flags(cpu, size);
  ReturnFrame frame{.stack = stack,
                    .size = size,
                    .rip = rip,
                    .code_selector = static_cast<uint16_t>(selector),
                    .outer_offset = 3 * size,
                    .always_has_stack = cpu.code64()};
  check_return(cpu, frame);
  // All checks are behind us. The flags first: which may change depended on the old CPL.
  finish_return(cpu, frame);
  load_flags(cpu, rflags, changeable);
  update_mode(cpu);
}

}  // namespace

void interrupt(Cpu& cpu, const Op& op) {
  using decoder::Mnemonic;
  switch (op.instruction->mnemonic) {
    case Mnemonic::kInt3:
      return deliver_event(cpu, Event::software(kBreakpoint));
    case Mnemonic::kInt1:
      return deliver_event(cpu, {.kind = Event::Kind::kPrivilegedSoftware, .vector = kDebug});
    case Mnemonic::kInto:
      if (cpu.flags.overflow()) deliver_event(cpu, Event::software(kOverflow));
      return;
    default:
      if (cpu.virtual8086() && cpu.iopl() < 3) raise(kGeneralProtection, 0);
      return deliver_event(cpu, Event::software(static_cast<uint8_t>(op.instruction->immediate)));
  }
}

void bound(Cpu& cpu, const Op& op) {
  const unsigned size = op.instruction->operand_size;
  const uint64_t offset = memory_offset(cpu, op);
  const auto segment = memory_segment(op);
  const auto extend = [size](uint64_t value) {
    return size == 2 ? int64_t{static_cast<int16_t>(value)} : int64_t{static_cast<int32_t>(value)};
  };
  const int64_t lower = extend(read_sized(cpu, segment, offset, size));
  const int64_t upper = extend(read_sized(cpu, segment, offset_plus(op, offset, size), size));
  const int64_t index = extend(read_register(cpu, op.reg, size));
  if (index < lower || index > upper) raise(kBoundRange);
}

void interrupt_return(Cpu& cpu, const Op& op) {
  const unsigned size = op.instruction->operand_size;
  if (cpu.nmi_blocked) {
    cpu.nmi_blocked = false;  // even when it faults
    update_mode(cpu);
  }
  if (cpu.virtual8086() && cpu.iopl() < 3) raise(kGeneralProtection, 0);
  if (!cpu.protected_mode()) {
    return_real(cpu, size);
  } else {
    return_protected(cpu, size);
  }
}

void clear_interrupt_flag(Cpu& cpu, const Op&) {
  check_interrupt_privilege(cpu);
  set_system_flags(cpu, cpu.system_flags & ~kFlagInterrupt);
}

void set_interrupt_flag(Cpu& cpu, const Op&) {
  check_interrupt_privilege(cpu);
  if ((cpu.system_flags & kFlagInterrupt) != 0) return;
  set_system_flags(cpu, cpu.system_flags | kFlagInterrupt);
  cpu.shadow_at_count = cpu.current_instruction_count() + 1;
}

void push_flags(Cpu& cpu, const Op& op) {
  if (cpu.virtual8086() && cpu.iopl() < 3) raise(kGeneralProtection, 0);
  const uint64_t value = cpu.rflags() & ~uint64_t{kFlagVirtual8086 | kFlagResume};
  switch (op.instruction->operand_size) {
    case 2:
      return push<uint16_t>(cpu, static_cast<uint16_t>(value));
    case 4:
      return push<uint32_t>(cpu, static_cast<uint32_t>(value));
    default:
      return push<uint64_t>(cpu, value);
  }
}

void pop_flags(Cpu& cpu, const Op& op) {
  if (cpu.virtual8086() && cpu.iopl() < 3) raise(kGeneralProtection, 0);
  const unsigned size = op.instruction->operand_size;
  const uint64_t value = size == 2 ? pop<uint16_t>(cpu) : size == 4 ? pop<uint32_t>(cpu) : pop<uint64_t>(cpu);
  uint32_t changeable = changeable_flags(cpu, size) & ~kFlagResume;
  uint64_t loaded = value & ~uint64_t{kFlagVirtualInterrupt | kFlagVirtualInterruptPending};
  if (cpu.virtual8086()) {
    changeable &= ~kFlagIopl;
    changeable |= kFlagInterrupt;
  } else if ((cpu.cr0 & kCr0Pe) == 0) {
    changeable |= kFlagIopl;
  }
  const uint32_t kept = cpu.system_flags & ~(changeable | kFlagResume);
  loaded &= kArithmetic | changeable;
  set_rflags(cpu, loaded | kept);
}

void halt(Cpu& cpu, const Op&) {
  require_cpl0(cpu);
  cpu.activity = cpu::Activity::kHalted;
  cpu.attention.fetch_or(kAttentionTrap);
}

void clear_access_check(Cpu& cpu, const Op&) {
  if (cpu.cpl != 0) raise(kInvalidOpcode);  // whatever CR4.SMAP says
  set_system_flags(cpu, cpu.system_flags & ~kFlagAlignmentCheck);
}

void set_access_check(Cpu& cpu, const Op&) {
  if (cpu.cpl != 0) raise(kInvalidOpcode);
  set_system_flags(cpu, cpu.system_flags | kFlagAlignmentCheck);
}

}  // namespace bulkhead::engine::system
