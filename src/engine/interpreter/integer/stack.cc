// PUSH and POP in all forms, PUSHA, POPA, ENTER and LEAVE. RSP and the other registers change only after the last
// access that can fault.
#include "engine/interpreter/integer/families.h"
#include "engine/interpreter/system/system.h"

namespace bulkhead::engine::integer {
namespace {

using decoder::Mnemonic;
using decoder::OperandKind;

// --- PUSH ---

void push_register_flat(Cpu& cpu, const Op& op) {
  const uint64_t top = cpu.gpr[cpu::kRsp] - 8;
  write_then<uint64_t, [](Cpu& cpu, const Op&) { cpu.gpr[cpu::kRsp] -= 8; }>(cpu, op, cpu::kSs, top,
                                                                             read_register<uint64_t>(cpu, op.rm));
}

template <typename T, typename Source>
void push_operand(Cpu& cpu, const Op& op) {
  push<T>(cpu, Source::get(cpu, op));
}

template <typename T>
void push_immediate(Cpu& cpu, const Op& op) {
  push<T>(cpu, static_cast<T>(op.immediate));
}

template <typename T>
void push_segment(Cpu& cpu, const Op& op) {
  push<T>(cpu, cpu.segments[op.instruction->reg].selector);
}

bool select_push(const Selection& selection) {
  const unsigned size = selection.instruction.operand_size;
  const OperandKind kind = operand_kind(selection, 0);
  if (kind == OperandKind::kImmediate) {
    return use_handler(selection, by_word_size(size, []<typename T>() -> Handler { return push_immediate<T>; }));
  }
  if (!selection.instruction.has_memory() && selection.code64 && size == 8)
    return use_handler(selection, push_register_flat);
  return use_handler(selection, by_word_size_and_source(selection, size, []<typename T, typename Source>() -> Handler {
                       return push_operand<T, Source>;
                     }));
}

// --- POP ---

void pop_register_flat(Cpu& cpu, const Op& op) {
  read_then<uint64_t, [](Cpu& cpu, const Op& op, uint64_t value) {
    cpu.gpr[cpu::kRsp] += 8;
    write_register<uint64_t>(cpu, op.rm, value);  // POP RSP: the value wins
  }>(cpu, op, cpu::kSs, cpu.gpr[cpu::kRsp]);
}

template <typename T>
void pop_register(Cpu& cpu, const Op& op) {
  const T value = pop<T>(cpu);
  write_register<T>(cpu, op.rm, value);
}

// An address that uses RSP uses the value after the pop.
template <typename T, Addressing kAddressing>
void pop_memory(Cpu& cpu, const Op& op) {
  const T value = peek<T>(cpu);
  const uint64_t before = cpu.gpr[cpu::kRsp];
  set_stack_pointer(cpu, before + sizeof(T));
  const uint64_t after = cpu.gpr[cpu::kRsp];
  const uint64_t offset = effective_address<kAddressing>(cpu, op);
  cpu.gpr[cpu::kRsp] = before;
  const uint64_t linear = segment_address<kAddressing, MemoryAccess::kWrite>(cpu, op, offset, sizeof(T));
  write_linear<T>(cpu, segment_of(op), linear, value);
  cpu.gpr[cpu::kRsp] = after;
}

template <typename T>
void pop_segment(Cpu& cpu, const Op& op) {
  const auto segment = static_cast<cpu::SegmentRegister>(op.instruction->reg);
  const uint64_t after = cpu.gpr[cpu::kRsp] + sizeof(T);
  // Only the selector is read, whatever the operand size. Loading SS may change the width of the stack pointer, but not
  // of the one that this instruction moves.
  const unsigned stack_size = cpu.mode.stack64() ? 8 : cpu.mode.stack32() ? 4 : 2;
  load_segment(cpu, segment, peek<uint16_t>(cpu));
  write_sized(cpu.gpr[cpu::kRsp], after, stack_size);
  if (segment == cpu::kSs) hold_off_interrupts(cpu);
}

bool select_pop(const Selection& selection) {
  const unsigned size = selection.instruction.operand_size;
  if (selection.instruction.has_memory()) {
    return use_handler(
        selection, by_word_size_and_addressing(selection, size, []<typename T, Addressing kAddressing>() -> Handler {
          return pop_memory<T, kAddressing>;
        }));
  }
  if (selection.code64 && size == 8) return use_handler(selection, pop_register_flat);
  return use_handler(selection, by_word_size(size, []<typename T>() -> Handler { return pop_register<T>; }));
}

// --- PUSHA, POPA ---

template <typename T>
void push_all(Cpu& cpu, const Op&) {
  const uint64_t mask = cpu.stack_mask();
  const uint64_t rsp = cpu.gpr[cpu::kRsp];
  // Stores behind a fault are made again when the instruction is; the registers still hold their values then.
  for (unsigned i = 0; i < 8; ++i) {
    write<T>(cpu, cpu::kSs, (rsp - (i + 1) * sizeof(T)) & mask, static_cast<T>(cpu.gpr[i]));
  }
  set_stack_pointer(cpu, rsp - 8 * sizeof(T));
}

template <typename T>
void pop_all(Cpu& cpu, const Op&) {
  T values[8];
  for (unsigned i = 0; i < 8; ++i) values[7 - i] = peek<T>(cpu, i * sizeof(T));
  for (unsigned i = 0; i < 8; ++i) {
    if (i != cpu::kRsp) write_register<T>(cpu, i * 8, values[i]);
  }
  set_stack_pointer(cpu, cpu.gpr[cpu::kRsp] + 8 * sizeof(T));
}

// --- ENTER, LEAVE ---

template <typename T>
void enter(Cpu& cpu, const Op& op) {
  const uint64_t mask = cpu.stack_mask();
  const unsigned level = op.instruction->immediate2 & 31;
  uint64_t top = cpu.gpr[cpu::kRsp];
  const auto push_value = [&](T value) {
    top = (top - sizeof(T)) & mask;
    write<T>(cpu, cpu::kSs, top, value);
  };
  push_value(static_cast<T>(cpu.gpr[cpu::kRbp]));
  const uint64_t frame = top;
  uint64_t outer = cpu.gpr[cpu::kRbp];
  for (unsigned i = 1; i < level; ++i) {
    outer = (outer - sizeof(T)) & mask;
    push_value(read<T>(cpu, cpu::kSs, outer));
  }
  if (level != 0) push_value(static_cast<T>(frame));
  top = (top - static_cast<uint16_t>(op.immediate)) & mask;
  // The manual's check that the new top of the stack can be written.
  probe_write(cpu, cpu::kSs, top, sizeof(T));
  write_register<T>(cpu, cpu::kRbp * 8, static_cast<T>(frame));
  set_stack_pointer(cpu, top);
}

template <typename T>
void leave(Cpu& cpu, const Op&) {
  const uint64_t frame = cpu.gpr[cpu::kRbp];
  const T outer = read<T>(cpu, cpu::kSs, frame & cpu.stack_mask());
  set_stack_pointer(cpu, frame + sizeof(T));
  write_register<T>(cpu, cpu::kRbp * 8, outer);
}

}  // namespace

bool select_stack(const Selection& selection) {
  const unsigned size = selection.instruction.operand_size;
  switch (selection.instruction.mnemonic) {
    case Mnemonic::kPush:
      return select_push(selection);
    case Mnemonic::kPop:
      return select_pop(selection);
    case Mnemonic::kPushSegment:
      return use_handler(selection, by_word_size(size, []<typename T>() -> Handler { return push_segment<T>; }));
    case Mnemonic::kPopSegment:
      return use_handler(selection, by_word_size(size, []<typename T>() -> Handler { return pop_segment<T>; }));
    case Mnemonic::kPusha:
      return use_handler(selection, size == 2 ? push_all<uint16_t> : push_all<uint32_t>);
    case Mnemonic::kPopa:
      return use_handler(selection, size == 2 ? pop_all<uint16_t> : pop_all<uint32_t>);
    case Mnemonic::kEnter:
      return use_handler(selection, by_word_size(size, []<typename T>() -> Handler { return enter<T>; }));
    case Mnemonic::kLeave:
      return use_handler(selection, by_word_size(size, []<typename T>() -> Handler { return leave<T>; }));
    default:
      return false;
  }
}

}  // namespace bulkhead::engine::integer
