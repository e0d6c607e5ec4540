#include "engine/interpreter/system/task_switch.h"

#include <array>

#include "engine/interpreter/debug.h"
#include "engine/interpreter/op.h"
#include "engine/interpreter/system/descriptor.h"
#include "engine/mmu/access.h"
#include "engine/mmu/page_walk.h"

namespace bulkhead::engine {
namespace {

// Everything a task is, in the order of the TSS.
struct TaskState {
  uint32_t cr3 = 0, eip = 0, eflags = 0;
  std::array<uint32_t, 8> gpr{};
  std::array<uint16_t, 6> selectors{};  // ES CS SS DS FS GS
  uint16_t ldt = 0;
  bool traps = false;
};

constexpr uint32_t kMinimumLimit32 = 103, kMinimumLimit16 = 43;

void write_dynamic_fields(Cpu& cpu, bool is_wide, const TaskState& task) {
  const uint64_t base = cpu.tr.base;
  if (is_wide) {
    std::array<uint32_t, 16> fields{};
    fields[0] = task.eip;
    fields[1] = task.eflags;
    for (unsigned i = 0; i < 8; ++i) fields[2 + i] = task.gpr[i];
    for (unsigned i = 0; i < 6; ++i) fields[10 + i] = task.selectors[i];
    write_system_bytes(cpu, base + 0x20, fields.data(), sizeof fields);
  } else {
    std::array<uint16_t, 14> fields{};
    fields[0] = static_cast<uint16_t>(task.eip);
    fields[1] = static_cast<uint16_t>(task.eflags);
    for (unsigned i = 0; i < 8; ++i) fields[2 + i] = static_cast<uint16_t>(task.gpr[i]);
    for (unsigned i = 0; i < 4; ++i) fields[10 + i] = task.selectors[i];
    write_system_bytes(cpu, base + 0x0E, fields.data(), sizeof fields);
  }
}

TaskState read_task(Cpu& cpu, uint64_t base, bool is_wide) {
  TaskState task;
  if (is_wide) {
    std::array<uint32_t, 26> fields;
    read_system_bytes(cpu, base, fields.data(), sizeof fields);
    task.cr3 = fields[7];
    task.eip = fields[8];
    task.eflags = fields[9];
    for (unsigned i = 0; i < 8; ++i) task.gpr[i] = fields[10 + i];
    for (unsigned i = 0; i < 6; ++i) task.selectors[i] = static_cast<uint16_t>(fields[18 + i]);
    task.ldt = static_cast<uint16_t>(fields[24]);
    task.traps = (fields[25] & 1) != 0;
  } else {
    std::array<uint16_t, 22> fields;
    read_system_bytes(cpu, base, fields.data(), sizeof fields);
    task.eip = fields[7];
    task.eflags = fields[8];
    for (unsigned i = 0; i < 8; ++i) task.gpr[i] = 0xFFFF'0000u | fields[9 + i];
    for (unsigned i = 0; i < 4; ++i) task.selectors[i] = fields[17 + i];
    task.ldt = fields[21];
  }
  return task;
}

TaskState present_task(const Cpu& cpu, uint64_t eflags) {
  TaskState task;
  task.eip = static_cast<uint32_t>(cpu.rip);
  task.eflags = static_cast<uint32_t>(eflags);
  for (unsigned i = 0; i < 8; ++i) task.gpr[i] = static_cast<uint32_t>(cpu.gpr[i]);
  for (unsigned i = 0; i < 6; ++i) task.selectors[i] = cpu.segments[i].selector;
  return task;
}

void load_task_ldt(Cpu& cpu, uint16_t selector) {
  cpu.ldtr = null_segment(selector);
  if (is_null_selector(selector)) return;
  if ((selector & 4) != 0) raise(kInvalidTss, selector_error(selector));
  const Descriptor descriptor = read_descriptor(cpu, selector, kInvalidTss);
  if (descriptor.is_segment() || descriptor.type() != kLdt || !descriptor.present())
    raise(kInvalidTss, selector_error(selector));
  cpu.ldtr = to_segment(selector, descriptor);
}

void load_task_code(Cpu& cpu, uint16_t selector) {
  const uint32_t error = selector_error(selector);
  if (is_null_selector(selector)) raise(kInvalidTss, error);
  Descriptor code = read_descriptor(cpu, selector, kInvalidTss);
  const uint8_t rpl = selector & 3;
  const bool fits = code.is_code() && (code.is_conforming() ? code.dpl() <= rpl : code.dpl() == rpl);
  if (!fits) raise(kInvalidTss, error);
  if (!code.present()) raise(kSegmentNotPresent, error);
  set_accessed(cpu, selector, code);
  cpu.segments[cpu::kCs] = to_segment(selector, code);
}

void load_task_data(Cpu& cpu, cpu::SegmentRegister segment, uint16_t selector) {
  if (is_null_selector(selector)) return;  // stays unusable
  const uint32_t error = selector_error(selector);
  Descriptor data = read_descriptor(cpu, selector, kInvalidTss);
  if (!data.is_readable()) raise(kInvalidTss, error);
  if (!data.is_conforming() && (data.dpl() < cpu.cpl || data.dpl() < (selector & 3))) raise(kInvalidTss, error);
  if (!data.present()) raise(kSegmentNotPresent, error);
  set_accessed(cpu, selector, data);
  cpu.segments[segment] = to_segment(selector, data);
}

// Selectors are in place, hidden parts are not yet: any fault from here on belongs to the new task.
void load_task_segments(Cpu& cpu, const TaskState& task) {
  load_task_ldt(cpu, task.ldt);
  if (cpu.virtual8086()) {
    for (unsigned i = 0; i < 6; ++i) load_real_segment(cpu, static_cast<cpu::SegmentRegister>(i), task.selectors[i]);
    return;
  }
  load_task_code(cpu, task.selectors[cpu::kCs]);
  Descriptor stack = check_stack_segment(cpu, task.selectors[cpu::kSs], cpu.cpl, kInvalidTss);
  set_accessed(cpu, task.selectors[cpu::kSs], stack);
  cpu.segments[cpu::kSs] = to_segment(task.selectors[cpu::kSs], stack);
  for (const auto segment : {cpu::kDs, cpu::kEs, cpu::kFs, cpu::kGs})
    load_task_data(cpu, segment, task.selectors[segment]);
}

// Everything behind the point of no return.
void enter_task(Cpu& cpu, const TaskState& task, bool is_wide) {
  if (is_wide && (cpu.cr0 & kCr0Pg) != 0) {
    if ((cpu.cr4 & kCr4Pae) != 0 && !mmu::load_pdptes(cpu, task.cr3)) raise(kGeneralProtection, 0);
    cpu.cr3 = task.cr3;
    cpu.tlb.flush_all_but_global();
  }
  update_mode(cpu);
  load_task_segments(cpu, task);
  update_mode(cpu);
  if (task.traps) {
    enter_debug_exception(cpu, kDr6TaskSwitch);
    raise(kDebug);
  }
  if (cpu.rip > cpu.segments[cpu::kCs].limit) raise(kGeneralProtection, 0);
}

}  // namespace

void switch_task(Cpu& cpu, uint16_t selector, TaskSwitch kind, bool fault) {
  Descriptor tss = read_descriptor(cpu, selector, kInvalidTss);
  const bool is_wide = (tss.type() & 8) != 0;
  if (tss.limit() < (is_wide ? kMinimumLimit32 : kMinimumLimit16)) raise(kInvalidTss, selector_error(selector));
  const bool was_wide = (cpu.tr.attributes & 8) != 0;
  const uint16_t old_selector = cpu.tr.selector;

  uint64_t old_flags = cpu.rflags() & ~uint64_t{kFlagResume};
  if (fault) old_flags |= kFlagResume;
  if (kind == TaskSwitch::kReturn) old_flags &= ~uint64_t{kFlagNestedTask};
  // Everything that can fault on a page does so before the first change.
  const unsigned saved_at = was_wide ? 0x20 : 0x0E, saved_size = was_wide ? 64 : 28;
  (void)check_system_access(cpu, cpu.tr.base + saved_at, saved_size, MemoryAccess::kWrite);
  const TaskState task = read_task(cpu, tss.base(), is_wide);
  if (kind == TaskSwitch::kNested) (void)check_system_access(cpu, tss.base(), 2, MemoryAccess::kWrite);

  if (kind != TaskSwitch::kNested) {
    Descriptor old = read_descriptor(cpu, old_selector, kInvalidTss);
    change_type(cpu, old_selector, old, 0, 2);
  }
  write_dynamic_fields(cpu, was_wide, present_task(cpu, old_flags));
  if (kind == TaskSwitch::kNested) write_system<uint16_t>(cpu, tss.base(), old_selector);
  if (kind != TaskSwitch::kReturn) change_type(cpu, selector, tss, 2, 0);

  cpu.cr0 |= kCr0Ts;
  cpu.tr = to_segment(selector, tss);
  cpu.rip = is_wide ? task.eip : task.eip & 0xFFFF;
  for (unsigned i = 0; i < 8; ++i) cpu.gpr[i] = task.gpr[i];
  uint32_t flags = is_wide ? task.eflags : task.eflags & 0xFFFF;
  if (kind == TaskSwitch::kNested) flags |= kFlagNestedTask;
  // Selectors first; the hidden parts follow, and are unusable until they have.
  for (unsigned i = 0; i < 6; ++i) cpu.segments[i] = null_segment(task.selectors[i]);
  const bool is_virtual = (flags & kFlagVirtual8086) != 0;
  cpu.cpl = is_virtual ? 3 : task.selectors[cpu::kCs] & 3;
  set_rflags(cpu, flags);
  cpu.dr7 &= ~uint64_t{0x155};  // local breakpoints
  update_mode(cpu);
  try {
    enter_task(cpu, task, is_wide);
  } catch (const GuestFault&) {
    // The instruction that switched is done; the fault is the new task's, at its first instruction.
    if (cpu.op != nullptr) cpu.instruction_count += static_cast<uint64_t>(cpu.op - cpu.block_begin) + 1;
    cpu.op = nullptr;
    update_mode(cpu);
    throw;
  }
}

}  // namespace bulkhead::engine
