// Far JMP, CALL and RET, call gates and task gates, and the returns that IRET shares. Intel SDM 2 and 3, 5.8 and 8.3.
#include "engine/interpreter/system/handlers.h"
#include "engine/interpreter/system/operand.h"
#include "engine/interpreter/system/return_frame.h"
#include "engine/interpreter/system/task_switch.h"

namespace bulkhead::engine::system {
namespace {

struct FarPointer {
  uint16_t selector = 0;
  uint64_t offset = 0;
};

FarPointer read_far_pointer(Cpu& cpu, const Op& op) {
  const decoder::Instruction& instruction = *op.instruction;
  const unsigned size = instruction.operand_size;
  if (!instruction.has_memory()) {
    const uint64_t mask = size == 2 ? 0xFFFF : 0xFFFF'FFFF;
    return {instruction.immediate2, static_cast<uint64_t>(instruction.immediate) & mask};
  }
  const uint64_t offset = memory_offset(cpu, op);
  FarPointer pointer;
  pointer.offset = read_sized(cpu, memory_segment(op), offset, size);
  pointer.selector = read<uint16_t>(cpu, memory_segment(op), offset_plus(op, offset, size));
  return pointer;
}

// #GP(0) where the first instruction could not be fetched.
void check_target(const Cpu& cpu, const Descriptor& code, uint64_t offset) {
  const bool is_64 = cpu.long_mode() && code.is_long();
  if (is_64 ? !is_canonical(offset) : offset > code.limit()) raise(kGeneralProtection, 0);
}

void check_long_code(const Cpu& cpu, const Descriptor& code, uint32_t error) {
  if (cpu.long_mode() && code.is_long() && code.is_big()) raise(kGeneralProtection, error);
}

void load_code(Cpu& cpu, uint16_t selector, Descriptor& code, uint64_t offset, uint8_t cpl) {
  set_accessed(cpu, selector, code);
  cpu.segments[cpu::kCs] = to_segment(static_cast<uint16_t>((selector & 0xFFFC) | cpl), code);
  cpu.cpl = cpl;
  cpu.rip = offset;
  update_mode(cpu);
}

void push_return_address(Cpu& cpu, unsigned size, const Descriptor& code, uint64_t target) {
  StackFrame frame(size);
  frame.push(cpu.segments[cpu::kCs].selector);
  frame.push(cpu.next_rip());
  const StackTarget stack = StackTarget::current(cpu);
  frame.check(cpu, stack);
  check_target(cpu, code, target);
  set_stack_pointer(cpu, frame.write(cpu, stack));
}

// The stack of the gate's inner level, with the parameters copied. SDM 3, 5.8.5.
void call_inner(Cpu& cpu, const Descriptor& gate, Descriptor& code, uint64_t target) {
  const uint8_t cpl = code.dpl();
  if (cpu.long_mode()) {
    const unsigned offset = 4 + cpl * 8u;
    if (offset + 7 > cpu.tr.limit) raise(kInvalidTss, selector_error(cpu.tr.selector));
    StackTarget stack{
        .pointer = read_system<uint64_t>(cpu, cpu.tr.base + offset), .rights = rights_at(cpu, cpl), .is_64 = true};
    StackFrame frame(8);
    frame.push(cpu.segments[cpu::kSs].selector);
    frame.push(cpu.gpr[cpu::kRsp]);
    frame.push(cpu.segments[cpu::kCs].selector);
    frame.push(cpu.next_rip());
    frame.check(cpu, stack);
    check_target(cpu, code, target);
    cpu.gpr[cpu::kRsp] = frame.write(cpu, stack);
    cpu.segments[cpu::kSs] = null_segment(cpl, cpl);
    load_code(cpu, gate.gate_selector(), code, target, cpl);
    return;
  }
  const bool tss_is_wide = (cpu.tr.attributes & 8) != 0;
  const uint64_t offset = tss_is_wide ? 4 + cpl * 8u : 2 + cpl * 4u;
  if (offset + (tss_is_wide ? 5 : 3) > cpu.tr.limit) raise(kInvalidTss, selector_error(cpu.tr.selector));
  const uint64_t pointer =
      tss_is_wide ? read_system<uint32_t>(cpu, cpu.tr.base + offset) : read_system<uint16_t>(cpu, cpu.tr.base + offset);
  const auto selector = read_system<uint16_t>(cpu, cpu.tr.base + offset + (tss_is_wide ? 4 : 2));
  Descriptor stack_descriptor = check_stack_segment(cpu, selector, cpl, kInvalidTss);
  StackTarget stack{.segment = to_segment(selector, stack_descriptor),
                    .pointer = pointer,
                    .rights = rights_at(cpu, cpl),
                    .error_code = selector_error(selector)};
  stack.mask = StackTarget::mask_of(stack.segment);
  const unsigned size = gate.type() == kCallGate32 ? 4 : 2;
  StackFrame frame(size);
  frame.push(cpu.segments[cpu::kSs].selector);
  frame.push(cpu.gpr[cpu::kRsp]);
  const StackTarget old_stack = StackTarget::current(cpu);
  for (unsigned i = gate.gate_parameter_count(); i > 0; --i)
    frame.push(read_stack(cpu, old_stack, (i - 1) * size, size));
  frame.push(cpu.segments[cpu::kCs].selector);
  frame.push(cpu.next_rip());
  frame.check(cpu, stack);
  check_target(cpu, code, target);
  set_accessed(cpu, selector, stack_descriptor);
  const uint64_t pointer_after = frame.write(cpu, stack);
  cpu.gpr[cpu::kRsp] = (pointer & ~stack.mask) | pointer_after;
  cpu.segments[cpu::kSs] = to_segment(selector, stack_descriptor);
  load_code(cpu, gate.gate_selector(), code, target, cpl);
}

void through_call_gate(Cpu& cpu, uint16_t selector, Descriptor gate, bool is_call) {
  const uint32_t gate_error = selector_error(selector);
  if (gate.dpl() < cpu.cpl || gate.dpl() < (selector & 3)) raise(kGeneralProtection, gate_error);
  if (!gate.present()) raise(kSegmentNotPresent, gate_error);
  if (cpu.long_mode()) read_upper_half(cpu, selector, gate, kGeneralProtection);
  const uint16_t target_selector = gate.gate_selector();
  if (is_null_selector(target_selector)) raise(kGeneralProtection, 0);
  Descriptor code = read_descriptor(cpu, target_selector, kGeneralProtection);
  const uint32_t error = selector_error(target_selector);
  const bool reaches =
      code.is_code() && (is_call || code.is_conforming() ? code.dpl() <= cpu.cpl : code.dpl() == cpu.cpl);
  if (!reaches) raise(kGeneralProtection, error);
  if (cpu.long_mode() && (!code.is_long() || code.is_big())) raise(kGeneralProtection, error);
  if (!code.present()) raise(kSegmentNotPresent, error);
  const bool is_wide = gate.type() == kCallGate32;
  const uint64_t target = cpu.long_mode() ? gate.gate_offset64()
                          : is_wide       ? gate.gate_offset()
                                          : gate.gate_offset() & 0xFFFF;
  if (is_call && !code.is_conforming() && code.dpl() < cpu.cpl) return call_inner(cpu, gate, code, target);
  if (is_call) {
    push_return_address(cpu, cpu.long_mode() ? 8 : is_wide ? 4 : 2, code, target);
  } else {
    check_target(cpu, code, target);
  }
  load_code(cpu, target_selector, code, target, cpu.cpl);
}

void to_task(Cpu& cpu, uint16_t selector, const Descriptor& tss, bool is_call) {
  const uint32_t error = selector_error(selector);
  if (tss.is_segment() || (tss.type() != kTss32Available && tss.type() != kTss16Available))
    raise(kGeneralProtection, error);
  if (!tss.present()) raise(kSegmentNotPresent, error);
  switch_task(cpu, selector, is_call ? TaskSwitch::kNested : TaskSwitch::kJump, false);
}

void through_system_descriptor(Cpu& cpu, uint16_t selector, const Descriptor& descriptor, bool is_call) {
  const uint32_t error = selector_error(selector);
  switch (descriptor.type()) {
    case kCallGate16:
      if (cpu.long_mode()) break;
      [[fallthrough]];
    case kCallGate32:
      return through_call_gate(cpu, selector, descriptor, is_call);
    case kTaskGate: {
      if (cpu.long_mode()) break;
      if (descriptor.dpl() < cpu.cpl || descriptor.dpl() < (selector & 3)) raise(kGeneralProtection, error);
      if (!descriptor.present()) raise(kSegmentNotPresent, error);
      const uint16_t task = descriptor.gate_selector();
      if ((task & 4) != 0 || is_null_selector(task)) raise(kGeneralProtection, selector_error(task));
      return to_task(cpu, task, read_descriptor(cpu, task, kGeneralProtection), is_call);
    }
    case kTss16Available:
    case kTss32Available:
      if (cpu.long_mode()) break;
      if (descriptor.dpl() < cpu.cpl || descriptor.dpl() < (selector & 3) || (selector & 4) != 0) break;
      return to_task(cpu, selector, descriptor, is_call);
    default:
      break;
  }
  raise(kGeneralProtection, error);
}

void transfer_real(Cpu& cpu, const Op& op, const FarPointer& pointer, bool is_call) {
  if (pointer.offset > 0xFFFF && pointer.offset > cpu.segments[cpu::kCs].limit) raise(kGeneralProtection, 0);
  if (is_call) {
    StackFrame frame(op.instruction->operand_size);
    frame.push(cpu.segments[cpu::kCs].selector);
    frame.push(cpu.next_rip());
    set_stack_pointer(cpu, frame.write(cpu, StackTarget::current(cpu)));
  }
  load_real_segment(cpu, cpu::kCs, pointer.selector);
  cpu.rip = pointer.offset;
  update_mode(cpu);
}

void transfer(Cpu& cpu, const Op& op, bool is_call) {
  const FarPointer pointer = read_far_pointer(cpu, op);
  if (!cpu.protected_mode()) return transfer_real(cpu, op, pointer, is_call);
  if (is_null_selector(pointer.selector)) raise(kGeneralProtection, 0);
  Descriptor code = read_descriptor(cpu, pointer.selector, kGeneralProtection);
  if (!code.is_segment()) return through_system_descriptor(cpu, pointer.selector, code, is_call);
  const uint32_t error = selector_error(pointer.selector);
  const bool reaches =
      code.is_code() &&
      (code.is_conforming() ? code.dpl() <= cpu.cpl : code.dpl() == cpu.cpl && (pointer.selector & 3) <= cpu.cpl);
  if (!reaches) raise(kGeneralProtection, error);
  check_long_code(cpu, code, error);
  if (!code.present()) raise(kSegmentNotPresent, error);
  if (is_call) {
    push_return_address(cpu, op.instruction->operand_size, code, pointer.offset);
  } else {
    check_target(cpu, code, pointer.offset);
  }
  load_code(cpu, pointer.selector, code, pointer.offset, cpu.cpl);
}

// A data segment that the outer level may not use becomes null.
void drop_inner_segments(Cpu& cpu, uint8_t cpl) {
  for (const auto segment : {cpu::kEs, cpu::kDs, cpu::kFs, cpu::kGs}) {
    cpu::Segment& cached = cpu.segments[segment];
    if ((cached.attributes & cpu::Segment::kUnusable) != 0) continue;
    const bool is_conforming = (cached.attributes & 0xC) == 0xC;
    const uint8_t dpl = cached.attributes >> 5 & 3;
    if (!is_conforming && dpl < cpl) cached = null_segment(0);
  }
}

void check_return_stack(Cpu& cpu, ReturnFrame& frame) {
  frame.outer_pointer = read_stack(cpu, frame.stack, frame.outer_offset, frame.size);
  frame.stack_selector =
      static_cast<uint16_t>(read_stack(cpu, frame.stack, frame.outer_offset + frame.size, frame.size));
  if (is_null_selector(frame.stack_selector)) {
    const bool to_long = cpu.long_mode() && frame.code.is_long();
    if (!to_long || frame.cpl == 3 || (frame.stack_selector & 3) != frame.cpl) raise(kGeneralProtection, 0);
    return;
  }
  frame.stack_descriptor = check_stack_segment(cpu, frame.stack_selector, frame.cpl, kGeneralProtection);
}

}  // namespace

void check_return(Cpu& cpu, ReturnFrame& frame) {
  const uint16_t selector = frame.code_selector;
  if (is_null_selector(selector)) raise(kGeneralProtection, 0);
  frame.code = read_descriptor(cpu, selector, kGeneralProtection);
  const uint32_t error = selector_error(selector);
  frame.cpl = selector & 3;
  const bool fits = frame.code.is_code() && frame.cpl >= cpu.cpl &&
                    (frame.code.is_conforming() ? frame.code.dpl() <= frame.cpl : frame.code.dpl() == frame.cpl);
  if (!fits) raise(kGeneralProtection, error);
  check_long_code(cpu, frame.code, error);
  if (!frame.code.present()) raise(kSegmentNotPresent, error);
  frame.has_stack = frame.always_has_stack || frame.cpl > cpu.cpl;
  if (frame.has_stack) check_return_stack(cpu, frame);
  check_target(cpu, frame.code, frame.rip);
}

void finish_return(Cpu& cpu, ReturnFrame& frame) {
  const bool is_outer = frame.cpl > cpu.cpl;
  set_accessed(cpu, frame.code_selector, frame.code);
  if (!frame.has_stack) set_stack_pointer(cpu, cpu.gpr[cpu::kRsp] + frame.outer_offset + frame.released);
  cpu.segments[cpu::kCs] = to_segment(frame.code_selector, frame.code);
  cpu.cpl = frame.cpl;
  cpu.rip = frame.rip;
  if (!frame.has_stack) return;
  const bool to_long = cpu.long_mode() && frame.code.is_long();
  if (is_null_selector(frame.stack_selector)) {
    cpu.segments[cpu::kSs] = null_segment(frame.stack_selector, frame.cpl);
  } else {
    set_accessed(cpu, frame.stack_selector, frame.stack_descriptor);
    cpu.segments[cpu::kSs] = to_segment(frame.stack_selector, frame.stack_descriptor);
  }
  const uint64_t pointer = frame.outer_pointer + frame.released;
  uint64_t& rsp = cpu.gpr[cpu::kRsp];
  const bool is_big = (cpu.segments[cpu::kSs].attributes & (1u << 14)) != 0;
  if (to_long) {
    rsp = pointer;
  } else if (is_big) {
    rsp = static_cast<uint32_t>(pointer);
  } else {
    rsp = (rsp & 0xFFFF'0000) | (pointer & 0xFFFF);
  }
  if (is_outer) drop_inner_segments(cpu, frame.cpl);
}

void jump_far(Cpu& cpu, const Op& op) {
  transfer(cpu, op, false);
}
void call_far(Cpu& cpu, const Op& op) {
  transfer(cpu, op, true);
}

void return_far(Cpu& cpu, const Op& op) {
  const unsigned size = op.instruction->operand_size;
  const auto released =
      static_cast<unsigned>(op.instruction->info->operand_count != 0 ? op.instruction->immediate & 0xFFFF : 0);
  const StackTarget stack = StackTarget::current(cpu);
  const uint64_t rip = read_stack(cpu, stack, 0, size);
  const auto selector = static_cast<uint16_t>(read_stack(cpu, stack, size, size));
  if (!cpu.protected_mode()) {
    if (rip > 0xFFFF && rip > cpu.segments[cpu::kCs].limit) raise(kGeneralProtection, 0);
    set_stack_pointer(cpu, cpu.gpr[cpu::kRsp] + 2 * size + released);
    load_real_segment(cpu, cpu::kCs, selector);
    cpu.rip = rip;
    update_mode(cpu);
    return;
  }
  ReturnFrame frame{.stack = stack,
                    .size = size,
                    .rip = rip,
                    .code_selector = selector,
                    .outer_offset = 2 * size,
                    .released = released};
  if ((selector & 3) > cpu.cpl) frame.outer_offset += released;
  check_return(cpu, frame);
  if (!frame.has_stack) frame.outer_offset = 2 * size;
  finish_return(cpu, frame);
  update_mode(cpu);
}

}  // namespace bulkhead::engine::system
