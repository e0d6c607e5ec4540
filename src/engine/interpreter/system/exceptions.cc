#include "engine/interpreter/system/exceptions.h"

#include "engine/interpreter/system/descriptor.h"
#include "engine/interpreter/system/stack_frame.h"
#include "engine/interpreter/system/system.h"
#include "engine/interpreter/system/task_switch.h"
#include "engine/mmu/access.h"

namespace bulkhead::engine {
namespace {

// RFLAGS as it is pushed: RF by the rule of SDM 3, 18.3.1.1.
uint64_t pushed_rflags(const Cpu& cpu, const Event& event) {
  uint64_t rflags = cpu.rflags() & ~uint64_t{kFlagResume};
  const bool resumes = (cpu.system_flags & kFlagResume) != 0 && cpu.resume_at_count == cpu.instruction_count;
  if (event.kind == Event::Kind::kFault || (resumes && event.kind != Event::Kind::kSoftware)) rflags |= kFlagResume;
  return rflags;
}

void enter_handler(Cpu& cpu, uint8_t cpl, const cpu::Segment& code, uint64_t rip, uint32_t cleared_flags) {
  cpu.cpl = cpl;
  cpu.segments[cpu::kCs] = code;
  cpu.segments[cpu::kCs].selector = static_cast<uint16_t>((code.selector & 0xFFFC) | cpl);
  cpu.rip = rip;
  cpu.system_flags &= ~cleared_flags;
  update_mode(cpu);
}

void deliver_real(Cpu& cpu, const Event& event) {
  const uint64_t offset = uint64_t{event.vector} * 4;
  if (offset + 3 > cpu.idtr.limit) raise(kGeneralProtection, event.external_bit());
  const auto pointer = read_system<uint32_t>(cpu, cpu.idtr.base + offset);
  StackFrame frame(2);
  frame.push(pushed_rflags(cpu, event) & 0xFFFF);
  frame.push(cpu.segments[cpu::kCs].selector);
  frame.push(cpu.rip & 0xFFFF);
  const uint64_t pointer_after = frame.write(cpu, StackTarget::current(cpu));
  set_stack_pointer(cpu, pointer_after);
  load_real_segment(cpu, cpu::kCs, static_cast<uint16_t>(pointer >> 16));
  cpu.rip = pointer & 0xFFFF;
  cpu.system_flags &= ~(kFlagInterrupt | kFlagTrap | kFlagAlignmentCheck | kFlagResume);
  update_mode(cpu);
}

// The gate, with the checks that come before anything it points to.
Descriptor read_gate(Cpu& cpu, const Event& event) {
  const unsigned size = cpu.long_mode() ? 16 : 8;
  const uint64_t offset = uint64_t{event.vector} * size;
  const uint32_t error = uint32_t{event.vector} * 8 + 2 + event.external_bit();
  if (offset + size - 1 > cpu.idtr.limit) raise(kGeneralProtection, error);
  Descriptor gate{.low = read_system<uint64_t>(cpu, cpu.idtr.base + offset)};
  if (size == 16) gate.high = read_system<uint64_t>(cpu, cpu.idtr.base + offset + 8);
  const uint8_t type = gate.type();
  const bool is_interrupt_gate = type == kInterruptGate32 || type == kTrapGate32;
  const bool is_legacy_gate = type == kTaskGate || type == kInterruptGate16 || type == kTrapGate16;
  if (gate.is_segment() || !(is_interrupt_gate || (is_legacy_gate && size == 8))) raise(kGeneralProtection, error);
  if (event.kind == Event::Kind::kSoftware && gate.dpl() < cpu.cpl) raise(kGeneralProtection, error);
  if (!gate.present()) raise(kSegmentNotPresent, error);
  return gate;
}

uint32_t flags_cleared_by(const Descriptor& gate) {
  const bool is_interrupt = gate.type() == kInterruptGate32 || gate.type() == kInterruptGate16;
  return kFlagTrap | kFlagNestedTask | kFlagVirtual8086 | kFlagResume | (is_interrupt ? uint32_t{kFlagInterrupt} : 0);
}

// The code segment that a gate names.
Descriptor read_target(Cpu& cpu, uint16_t selector, uint32_t external) {
  if (is_null_selector(selector)) raise(kGeneralProtection, external);
  const Descriptor target = read_descriptor(cpu, selector, kGeneralProtection, external);
  const uint32_t error = selector_error(selector) | external;
  if (!target.is_code() || target.dpl() > cpu.cpl) raise(kGeneralProtection, error);
  if (!target.present()) raise(kSegmentNotPresent, error);
  return target;
}

void deliver_long(Cpu& cpu, const Event& event) {
  const uint32_t external = event.external_bit();
  const Descriptor gate = read_gate(cpu, event);
  const uint16_t selector = gate.gate_selector();
  Descriptor target = read_target(cpu, selector, external);
  if (!target.is_long() || target.is_big()) raise(kGeneralProtection, selector_error(selector) | external);
  const bool changes_stack = !target.is_conforming() && target.dpl() < cpu.cpl;
  const uint8_t cpl = target.is_conforming() ? cpu.cpl : target.dpl();
  if (!is_canonical(gate.gate_offset64())) raise(kGeneralProtection, external);

  StackTarget stack{
      .pointer = cpu.gpr[cpu::kRsp], .rights = rights_at(cpu, cpl), .error_code = external, .is_64 = true};
  if (changes_stack || gate.gate_ist() != 0) {
    const unsigned offset = gate.gate_ist() != 0 ? 28 + gate.gate_ist() * 8 : 4 + cpl * 8;
    if (offset + 7 > cpu.tr.limit) raise(kInvalidTss, selector_error(cpu.tr.selector) | external);
    stack.pointer = read_system<uint64_t>(cpu, cpu.tr.base + offset);
    if (!is_canonical(stack.pointer)) raise(kStackFault, external);
  }
  stack.pointer &= ~15ull;
  StackFrame frame(8);
  frame.push(cpu.segments[cpu::kSs].selector);
  frame.push(cpu.gpr[cpu::kRsp]);
  frame.push(pushed_rflags(cpu, event));
  frame.push(cpu.segments[cpu::kCs].selector);
  frame.push(cpu.rip);
  if (event.has_error_code) frame.push(event.error_code);
  set_accessed(cpu, selector, target);
  cpu.gpr[cpu::kRsp] = frame.write(cpu, stack);
  if (changes_stack) cpu.segments[cpu::kSs] = null_segment(cpl, cpl);
  enter_handler(cpu, cpl, to_segment(selector, target), gate.gate_offset64(), flags_cleared_by(gate));
}

// Stack of a more privileged level, out of the TSS.
StackTarget inner_stack(Cpu& cpu, uint8_t cpl, uint32_t external, Descriptor& descriptor, uint16_t& selector) {
  const bool is_wide = (cpu.tr.attributes & 8) != 0;
  const uint64_t offset = is_wide ? 4 + cpl * 8u : 2 + cpl * 4u;
  const unsigned last = is_wide ? 5 : 3;
  if (offset + last > cpu.tr.limit) raise(kInvalidTss, selector_error(cpu.tr.selector) | external);
  StackTarget stack;
  if (is_wide) {
    stack.pointer = read_system<uint32_t>(cpu, cpu.tr.base + offset);
    selector = read_system<uint16_t>(cpu, cpu.tr.base + offset + 4);
  } else {
    stack.pointer = read_system<uint16_t>(cpu, cpu.tr.base + offset);
    selector = read_system<uint16_t>(cpu, cpu.tr.base + offset + 2);
  }
  descriptor = check_stack_segment(cpu, selector, cpl, kInvalidTss, external);
  stack.segment = to_segment(selector, descriptor);
  stack.mask = StackTarget::mask_of(stack.segment);
  stack.rights = rights_at(cpu, cpl);
  stack.error_code = selector_error(selector) | external;
  return stack;
}

void deliver_through_task_gate(Cpu& cpu, const Event& event, uint16_t selector) {
  const uint32_t external = event.external_bit();
  const uint32_t error = selector_error(selector) | external;
  if ((selector & 4) != 0 || is_null_selector(selector)) raise(kGeneralProtection, error);
  const Descriptor tss = read_descriptor(cpu, selector, kGeneralProtection, external);
  if (tss.is_segment() || (tss.type() != kTss32Available && tss.type() != kTss16Available))
    raise(kGeneralProtection, error);
  if (!tss.present()) raise(kSegmentNotPresent, error);
  switch_task(cpu, selector, TaskSwitch::kNested, event.kind == Event::Kind::kFault);
  if (event.has_error_code) {
    StackFrame frame((cpu.tr.attributes & 8) != 0 ? 4 : 2);
    frame.push(event.error_code);
    set_stack_pointer(cpu, frame.write(cpu, StackTarget::current(cpu)));
  }
}

void deliver_protected(Cpu& cpu, const Event& event) {
  const uint32_t external = event.external_bit();
  const Descriptor gate = read_gate(cpu, event);
  if (gate.type() == kTaskGate) {
    deliver_through_task_gate(cpu, event, gate.gate_selector());
    return;
  }
  const uint16_t selector = gate.gate_selector();
  Descriptor target = read_target(cpu, selector, external);
  const bool from_virtual8086 = cpu.virtual8086();
  const bool changes_stack = !target.is_conforming() && target.dpl() < cpu.cpl;
  const uint8_t cpl = target.is_conforming() ? cpu.cpl : target.dpl();
  if (from_virtual8086 && cpl != 0) raise(kGeneralProtection, selector_error(selector) | external);

  const bool is_wide = (gate.type() & 8) != 0;
  StackTarget stack = StackTarget::current(cpu);
  stack.error_code = external;
  Descriptor stack_descriptor;
  uint16_t stack_selector = 0;
  StackFrame frame(is_wide ? 4 : 2);
  if (changes_stack) {
    stack = inner_stack(cpu, cpl, external, stack_descriptor, stack_selector);
    if (from_virtual8086) {
      for (const auto segment : {cpu::kGs, cpu::kFs, cpu::kDs, cpu::kEs}) frame.push(cpu.segments[segment].selector);
    }
    frame.push(cpu.segments[cpu::kSs].selector);
    frame.push(cpu.gpr[cpu::kRsp]);
  }
  frame.push(pushed_rflags(cpu, event));
  frame.push(cpu.segments[cpu::kCs].selector);
  frame.push(cpu.rip);
  if (event.has_error_code) frame.push(event.error_code);
  frame.check(cpu, stack);
  const uint64_t offset = is_wide ? gate.gate_offset() : gate.gate_offset() & 0xFFFF;
  if (offset > target.limit()) raise(kGeneralProtection, external);

  set_accessed(cpu, selector, target);
  if (changes_stack) set_accessed(cpu, stack_selector, stack_descriptor);
  const uint64_t pointer_after = frame.write(cpu, stack);
  if (!changes_stack) {
    set_stack_pointer(cpu, pointer_after);
  } else {
    cpu.gpr[cpu::kRsp] = (stack.pointer & ~stack.mask) | pointer_after;
    cpu.segments[cpu::kSs] = to_segment(stack_selector, stack_descriptor);
    if (from_virtual8086) {
      for (const auto segment : {cpu::kGs, cpu::kFs, cpu::kDs, cpu::kEs}) cpu.segments[segment] = null_segment(0);
    }
  }
  enter_handler(cpu, cpl, to_segment(selector, target), offset, flags_cleared_by(gate));
}

enum class FaultClass : uint8_t { kBenign, kContributory, kPageFault };

FaultClass class_of(uint8_t vector) {
  switch (vector) {
    case kDivideError:
    case kInvalidTss:
    case kSegmentNotPresent:
    case kStackFault:
    case kGeneralProtection:
      return FaultClass::kContributory;
    case kPageFault:
      return FaultClass::kPageFault;
    default:
      return FaultClass::kBenign;
  }
}

bool makes_double_fault(uint8_t first, uint8_t second) {
  const FaultClass a = class_of(first), b = class_of(second);
  if (a == FaultClass::kContributory) return b == FaultClass::kContributory;
  if (a == FaultClass::kPageFault) return b != FaultClass::kBenign;
  return false;
}

}  // namespace

void deliver_event(Cpu& cpu, const Event& event) {
  cpu.step_trap = false;
  if ((cpu.cr0 & kCr0Pe) == 0) {
    deliver_real(cpu, event);
  } else if (cpu.long_mode()) {
    deliver_long(cpu, event);
  } else {
    deliver_protected(cpu, event);
  }
}

bool deliver_fault(Cpu& cpu, const GuestFault& fault) {
  GuestFault current = fault;
  while (true) {
    if (current.vector == kPageFault) cpu.cr2 = current.cr2;
    const bool is_debug = current.vector == kDebug;
    try {
      deliver_event(cpu, {.kind = is_debug ? Event::Kind::kDebugFault : Event::Kind::kFault,
                          .vector = current.vector,
                          .has_error_code = current.has_error_code,
                          .error_code = current.error_code});
      return true;
    } catch (const GuestFault& second) {
      if (second.vector == kPageFault) cpu.cr2 = second.cr2;
      if (current.vector == kDoubleFault && class_of(second.vector) != FaultClass::kBenign) {
        cpu.activity = cpu::Activity::kShutdown;
        return false;
      }
      if (makes_double_fault(current.vector, second.vector)) {
        current = {.vector = kDoubleFault, .has_error_code = true, .error_code = 0};
      } else {
        current = second;
      }
    }
  }
}

std::optional<cpu::StopReason> deliver_exception_or_stop(Cpu& cpu, const Event& event) {
  try {
    deliver_event(cpu, event);
    return std::nullopt;
  } catch (const GuestFault& fault) {
    if (deliver_fault(cpu, fault)) return std::nullopt;
    return cpu::StopReason::kShutdown;
  }
}

std::optional<cpu::StopReason> deliver_pending_event(Cpu& cpu) {
  const cpu::PendingEvent pending = cpu.cold.event;
  cpu.cold.event = {};
  cpu.op = nullptr;
  using Kind = cpu::PendingEvent::Kind;
  switch (pending.kind) {
    case Kind::kNone:
      return std::nullopt;
    case Kind::kExternalInterrupt:
      return deliver_exception_or_stop(cpu, Event::external(pending.vector));
    case Kind::kNmi:
      cpu.nmi_blocked = true;
      update_mode(cpu);
      return deliver_exception_or_stop(cpu, Event::nmi());
    case Kind::kSoftwareInterrupt:
      return deliver_exception_or_stop(cpu, Event::software(pending.vector));
    case Kind::kException: {
      const GuestFault fault{pending.vector, pending.has_error_code, pending.error_code, cpu.cr2};
      if (deliver_fault(cpu, fault)) return std::nullopt;
      return cpu::StopReason::kShutdown;
    }
  }
  return std::nullopt;
}

void refresh_trap_attention(Cpu& cpu) {
  if (cpu.stepping) {
    cpu.attention.fetch_or(kAttentionTrap);
  } else {
    cpu.attention.fetch_and(~uint32_t{kAttentionTrap});
  }
}

}  // namespace bulkhead::engine
