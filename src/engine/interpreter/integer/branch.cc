// Near control transfer: JMP, Jcc, CALL, RET, LOOP, JCXZ. Each sets cpu.rip and ends its block; a target outside of CS
// or not canonical is #GP(0) before anything has changed.
#include "engine/interpreter/integer/alu.h"
#include "engine/interpreter/integer/families.h"
#include "engine/interpreter/system/system.h"

namespace bulkhead::engine::integer {
namespace {

using decoder::Mnemonic;
using decoder::OperandKind;

inline uint64_t fall_through(const Cpu& cpu, const Op& op) {
  return cpu.block_rip + op.end_offset;
}

// 64-bit mode. A relative branch reaches no further than 2 GiB; a target that is not canonical faults when it is
// fetched. prepare leaves the distance from block_rip in op.immediate. A block goes on behind a Jcc that is not taken.
struct Flat {
  static void take(Cpu& cpu, const Op& op) {
    cpu.rip = cpu.block_rip + op.immediate;
    cpu.block_end = &op + 1;
  }
  static void pass(Cpu&, const Op&) {}
};

// 16 and 32-bit code. The target is cut to the operand size.
struct Segmented {
  static uint64_t target(const Cpu& cpu, const Op& op) {
    return (cpu.block_rip + op.immediate) & size_mask(op.instruction->operand_size);
  }
  static void take(Cpu& cpu, const Op& op) { jump_near(cpu, target(cpu, op)); }
  static void pass(Cpu& cpu, const Op& op) { cpu.rip = static_cast<uint32_t>(fall_through(cpu, op)); }
};

template <typename Mode>
void jump(Cpu& cpu, const Op& op) {
  Mode::take(cpu, op);
}

template <unsigned kCondition, typename Mode>
void jump_if(Cpu& cpu, const Op& op) {
  if (alu::condition_holds<kCondition>(cpu.flags)) {
    Mode::take(cpu, op);
  } else {
    Mode::pass(cpu, op);
  }
}

template <typename Mode>
void jump_if_rcx_zero(Cpu& cpu, const Op& op) {
  if ((cpu.gpr[cpu::kRcx] & size_mask(op.instruction->address_size)) == 0) {
    Mode::take(cpu, op);
  } else {
    Mode::pass(cpu, op);
  }
}

struct Always {
  static bool holds(ArithmeticFlags) { return true; }
};
struct WhileZero {
  static bool holds(ArithmeticFlags flags) { return flags.zero(); }
};
struct WhileNotZero {
  static bool holds(ArithmeticFlags flags) { return !flags.zero(); }
};

template <typename Condition, typename Mode>
void loop(Cpu& cpu, const Op& op) {
  const unsigned size = op.instruction->address_size;
  uint64_t& rcx = cpu.gpr[cpu::kRcx];
  const uint64_t count = (rcx - 1) & size_mask(size);
  if (count != 0 && Condition::holds(cpu.flags)) {
    Mode::take(cpu, op);
  } else {
    Mode::pass(cpu, op);
  }
  write_sized(rcx, count, size);
}

// --- CALL ---

void call_flat(Cpu& cpu, const Op& op) {
  const uint64_t top = cpu.gpr[cpu::kRsp] - 8;
  write_then<uint64_t, [](Cpu& cpu, const Op& op) {
    cpu.gpr[cpu::kRsp] -= 8;
    Flat::take(cpu, op);
  }>(cpu, op, cpu::kSs, top, fall_through(cpu, op));
}

template <typename T>
void call_segmented(Cpu& cpu, const Op& op) {
  const uint64_t target = Segmented::target(cpu, op);
  check_near_target(cpu, target);
  push<T>(cpu, static_cast<T>(fall_through(cpu, op)));
  cpu.rip = target;
}

template <typename T, typename Source>
void call_indirect(Cpu& cpu, const Op& op) {
  const T target = Source::get(cpu, op);
  check_near_target(cpu, target);
  push<T>(cpu, static_cast<T>(fall_through(cpu, op)));
  cpu.rip = target;
}

template <typename T, typename Source>
void jump_indirect(Cpu& cpu, const Op& op) {
  jump_near(cpu, Source::get(cpu, op));
}

// --- RET ---

template <typename T>
void return_near(Cpu& cpu, const Op& op) {
  const T target = peek<T>(cpu);
  jump_near(cpu, target);
  set_stack_pointer(cpu, cpu.gpr[cpu::kRsp] + sizeof(T) + op.immediate);
}

void return_flat(Cpu& cpu, const Op& op) {
  read_then<uint64_t, [](Cpu& cpu, const Op&, uint64_t target) {
    jump_near(cpu, target);
    cpu.gpr[cpu::kRsp] += 8;
  }>(cpu, op, cpu::kSs, cpu.gpr[cpu::kRsp]);
}

// --- selection ---

bool select_relative(const Selection& selection, Handler flat, Handler segmented) {
  selection.op.immediate += selection.op.end_offset;
  return use_handler(selection, selection.code64 ? flat : segmented);
}

bool select_jcc(const Selection& selection) {
  const unsigned condition = selection.instruction.condition();
  return select_relative(
      selection, by_condition(condition, []<unsigned kCondition>() -> Handler { return jump_if<kCondition, Flat>; }),
      by_condition(condition, []<unsigned kCondition>() -> Handler { return jump_if<kCondition, Segmented>; }));
}

bool select_jump(const Selection& selection) {
  if (operand_kind(selection, 0) == OperandKind::kRelative)
    return select_relative(selection, jump<Flat>, jump<Segmented>);
  return use_handler(selection, by_word_size_and_source(
                                    selection, selection.instruction.operand_size,
                                    []<typename T, typename Source>() -> Handler { return jump_indirect<T, Source>; }));
}

bool select_call(const Selection& selection) {
  const unsigned size = selection.instruction.operand_size;
  if (operand_kind(selection, 0) == OperandKind::kRelative) {
    return select_relative(selection, call_flat, size == 2 ? call_segmented<uint16_t> : call_segmented<uint32_t>);
  }
  return use_handler(selection, by_word_size_and_source(selection, size, []<typename T, typename Source>() -> Handler {
                       return call_indirect<T, Source>;
                     }));
}

bool select_return(const Selection& selection) {
  if (selection.code64 && selection.op.immediate == 0) return use_handler(selection, return_flat);
  return use_handler(selection, by_word_size(selection.instruction.operand_size,
                                             []<typename T>() -> Handler { return return_near<T>; }));
}

}  // namespace

bool select_branch(const Selection& selection) {
  switch (selection.instruction.mnemonic) {
    case Mnemonic::kJmp:
      return select_jump(selection);
    case Mnemonic::kJcc:
      return select_jcc(selection);
    case Mnemonic::kCall:
      return select_call(selection);
    case Mnemonic::kRet:
      return select_return(selection);
    case Mnemonic::kJcxz:
      return select_relative(selection, jump_if_rcx_zero<Flat>, jump_if_rcx_zero<Segmented>);
    case Mnemonic::kLoop:
      return select_relative(selection, loop<Always, Flat>, loop<Always, Segmented>);
    case Mnemonic::kLoope:
      return select_relative(selection, loop<WhileZero, Flat>, loop<WhileZero, Segmented>);
    case Mnemonic::kLoopne:
      return select_relative(selection, loop<WhileNotZero, Flat>, loop<WhileNotZero, Segmented>);
    default:
      return false;
  }
}

}  // namespace bulkhead::engine::integer
