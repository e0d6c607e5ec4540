// The families of integer instructions. Each function fills op.handler when the instruction is its own and says whether
// it was; operands are laid out already (select_handler.cc). Private to this folder.
#pragma once

#include <cstdint>
#include <utility>

#include "engine/interpreter/integer/operand.h"

namespace bulkhead::engine::integer {

struct Selection {
  Op& op;
  const decoder::Instruction& instruction;
  bool code64;
  bool flat;  // Addressing::kFlat
};

bool select_arithmetic(const Selection& selection);  // ADD to CMP, TEST, INC, DEC, NEG, NOT
bool select_move(const Selection& selection);        // MOV, MOVZX, LEA, XCHG, CMOVcc, SETcc, flags
bool select_shift(const Selection& selection);       // shifts, rotates, double shifts, BMI2 shifts
bool select_multiply(const Selection& selection);    // MUL, DIV, BCD
bool select_bit(const Selection& selection);         // BT family, scans, counts, BMI, CRC32, ADX
bool select_atomic(const Selection& selection);      // XADD, CMPXCHG family
bool select_stack(const Selection& selection);       // PUSH, POP, ENTER, LEAVE
bool select_branch(const Selection& selection);      // near JMP, Jcc, CALL, RET, LOOP
bool select_string(const Selection& selection);      // MOVS to OUTS
bool select_other(const Selection& selection);       // NOP, fences, RDRAND, UD

// choose.operator()<T>() for the T of that many bytes.
template <typename Choose>
Handler by_size(unsigned size, Choose&& choose) {
  switch (size) {
    case 1:
      return choose.template operator()<uint8_t>();
    case 2:
      return choose.template operator()<uint16_t>();
    case 4:
      return choose.template operator()<uint32_t>();
    default:
      return choose.template operator()<uint64_t>();
  }
}

// The same for instructions without a byte form.
template <typename Choose>
Handler by_word_size(unsigned size, Choose&& choose) {
  switch (size) {
    case 2:
      return choose.template operator()<uint16_t>();
    case 4:
      return choose.template operator()<uint32_t>();
    default:
      return choose.template operator()<uint64_t>();
  }
}

// choose.operator()<T, kAddressing>().
template <typename Choose>
Handler by_size_and_addressing(const Selection& selection, unsigned size, Choose&& choose) {
  return by_size(size, [&]<typename T>() -> Handler {
    if (selection.flat) return choose.template operator()<T, Addressing::kFlat>();
    return choose.template operator()<T, Addressing::kSegmented>();
  });
}

template <typename Choose>
Handler by_word_size_and_addressing(const Selection& selection, unsigned size, Choose&& choose) {
  return by_word_size(size, [&]<typename T>() -> Handler {
    if (selection.flat) return choose.template operator()<T, Addressing::kFlat>();
    return choose.template operator()<T, Addressing::kSegmented>();
  });
}

// choose.operator()<kCondition>() for the condition with that number.
template <typename Choose>
Handler by_condition(unsigned condition, Choose&& choose) {
  return [&]<unsigned... kConditions>(std::integer_sequence<unsigned, kConditions...>) {
    Handler chosen = nullptr;
    (void)((condition == kConditions && (chosen = choose.template operator()<kConditions>(), true)) || ...);
    return chosen;
  }(std::make_integer_sequence<unsigned, 16>());
}

// The same handler for every width and form.
inline bool use_handler(const Selection& selection, Handler handler) {
  selection.op.handler = handler;
  return true;
}

inline decoder::OperandKind operand_kind(const Selection& selection, unsigned index) {
  return selection.instruction.info->operands[index].kind;
}

// The operand that ModRM.rm names, as a value to read: a register, or memory.
template <typename T>
struct RegisterSource {
  static T get(Cpu& cpu, const Op& op) { return read_register<T>(cpu, op.rm); }
  template <auto kUse>
  static void then(Cpu& cpu, const Op& op) {
    kUse(cpu, op, get(cpu, op));
  }
};
template <typename T, Addressing kAddressing>
struct MemorySource {
  static T get(Cpu& cpu, const Op& op) { return load<T, kAddressing>(cpu, op); }
  // For hot handlers: see read_then().
  template <auto kUse>
  static void then(Cpu& cpu, const Op& op) {
    load_then<T, kAddressing, kUse>(cpu, op);
  }
};

// choose.operator()<T, Source>() with Source one of the two above.
template <typename Choose>
Handler by_size_and_source(const Selection& selection, unsigned size, Choose&& choose) {
  return by_size(size, [&]<typename T>() -> Handler {
    if (!selection.instruction.has_memory()) return choose.template operator()<T, RegisterSource<T>>();
    if (selection.flat) return choose.template operator()<T, MemorySource<T, Addressing::kFlat>>();
    return choose.template operator()<T, MemorySource<T, Addressing::kSegmented>>();
  });
}

template <typename Choose>
Handler by_word_size_and_source(const Selection& selection, unsigned size, Choose&& choose) {
  return by_word_size(size, [&]<typename T>() -> Handler {
    if (!selection.instruction.has_memory()) return choose.template operator()<T, RegisterSource<T>>();
    if (selection.flat) return choose.template operator()<T, MemorySource<T, Addressing::kFlat>>();
    return choose.template operator()<T, MemorySource<T, Addressing::kSegmented>>();
  });
}

}  // namespace bulkhead::engine::integer
