// Shifts and rotates by an immediate or CL, double shifts, and BMI2's shifts that leave the flags alone.
#include "engine/interpreter/integer/alu.h"
#include "engine/interpreter/integer/families.h"

namespace bulkhead::engine::integer {
namespace {

using decoder::Mnemonic;
using decoder::OperandKind;

struct CountFromCl {
  template <typename T>
  static uint8_t get(const Cpu& cpu, const Op&) {
    return alu::mask_count<T>(static_cast<uint8_t>(cpu.gpr[cpu::kRcx]));
  }
};
struct CountFromImmediate {
  template <typename T>
  static uint8_t get(const Cpu&, const Op& op) {
    return alu::mask_count<T>(static_cast<uint8_t>(op.immediate));
  }
};

template <typename Operation, typename Count, typename T>
void shift_register(Cpu& cpu, const Op& op) {
  const uint8_t count = Count::template get<T>(cpu, op);
  write_register<T>(cpu, op.rm, Operation::apply(read_register<T>(cpu, op.rm), count, cpu.flags));
}

template <typename Operation, typename Count, typename T, Addressing kAddressing>
void shift_memory(Cpu& cpu, const Op& op) {
  const uint8_t count = Count::template get<T>(cpu, op);
  modify<T, kAddressing, false>(cpu, op, [&](T old) { return Operation::apply(old, count, cpu.flags); });
}

template <typename Operation, typename Count>
bool select_form(const Selection& selection) {
  const unsigned size = selection.instruction.operand_size;
  if (selection.instruction.has_memory()) {
    selection.op.handler = by_size_and_addressing(selection, size, []<typename T, Addressing kAddressing>() -> Handler {
      return shift_memory<Operation, Count, T, kAddressing>;
    });
  } else {
    selection.op.handler = by_size(size, []<typename T>() -> Handler { return shift_register<Operation, Count, T>; });
  }
  return true;
}

template <typename Operation>
bool select_simple(const Selection& selection) {
  const OperandKind count = operand_kind(selection, 1);
  if (count == OperandKind::kCl) return select_form<Operation, CountFromCl>(selection);
  if (count == OperandKind::kOne) selection.op.immediate = 1;
  return select_form<Operation, CountFromImmediate>(selection);
}

template <typename Operation, typename Count, typename T>
void double_shift_register(Cpu& cpu, const Op& op) {
  const T source = read_register<T>(cpu, op.reg);
  const uint8_t count = Count::template get<T>(cpu, op);
  write_register<T>(cpu, op.rm, Operation::apply(read_register<T>(cpu, op.rm), source, count, cpu.flags));
}

template <typename Operation, typename Count, typename T, Addressing kAddressing>
void double_shift_memory(Cpu& cpu, const Op& op) {
  const T source = read_register<T>(cpu, op.reg);
  const uint8_t count = Count::template get<T>(cpu, op);
  modify<T, kAddressing, false>(cpu, op, [&](T old) { return Operation::apply(old, source, count, cpu.flags); });
}

template <typename Operation, typename Count>
bool select_double_form(const Selection& selection) {
  const unsigned size = selection.instruction.operand_size;
  if (selection.instruction.has_memory()) {
    selection.op.handler =
        by_word_size_and_addressing(selection, size, []<typename T, Addressing kAddressing>() -> Handler {
          return double_shift_memory<Operation, Count, T, kAddressing>;
        });
  } else {
    selection.op.handler =
        by_word_size(size, []<typename T>() -> Handler { return double_shift_register<Operation, Count, T>; });
  }
  return true;
}

template <typename Operation>
bool select_double(const Selection& selection) {
  if (operand_kind(selection, 2) == OperandKind::kCl) return select_double_form<Operation, CountFromCl>(selection);
  return select_double_form<Operation, CountFromImmediate>(selection);
}

// --- BMI2: SHLX, SHRX, SARX (count in vvvv) and RORX (count in the immediate) ---

template <typename T>
struct ShiftLeft {
  static T apply(T value, unsigned count) { return value << count; }
};
template <typename T>
struct ShiftRight {
  static T apply(T value, unsigned count) { return value >> count; }
};
template <typename T>
struct ShiftArithmetic {
  static T apply(T value, unsigned count) { return static_cast<T>(static_cast<std::make_signed_t<T>>(value) >> count); }
};

template <template <typename> typename Operation, typename T, typename Source>
void shift_flagless(Cpu& cpu, const Op& op) {
  const T value = Source::get(cpu, op);
  const uint8_t count = alu::mask_count<T>(read_register<uint8_t>(cpu, op.vvvv));
  write_register<T>(cpu, op.reg, Operation<T>::apply(value, count));
}

template <typename T, typename Source>
void rotate_flagless(Cpu& cpu, const Op& op) {
  const T value = Source::get(cpu, op);
  const unsigned count = alu::mask_count<T>(static_cast<uint8_t>(op.immediate));
  constexpr unsigned kBits = sizeof(T) * 8;
  write_register<T>(cpu, op.reg, static_cast<T>(value >> count | value << ((kBits - count) & (kBits - 1))));
}

template <template <typename> typename Operation>
bool select_flagless(const Selection& selection) {
  selection.op.handler = by_word_size_and_source(selection, selection.instruction.operand_size,
                                                 []<typename T, typename Source>() -> Handler {
                                                   if constexpr (sizeof(T) == 2) {
                                                     return nullptr;
                                                   } else {
                                                     return shift_flagless<Operation, T, Source>;
                                                   }
                                                 });
  return true;
}

bool select_rotate_flagless(const Selection& selection) {
  selection.op.handler = by_word_size_and_source(selection, selection.instruction.operand_size,
                                                 []<typename T, typename Source>() -> Handler {
                                                   if constexpr (sizeof(T) == 2) {
                                                     return nullptr;
                                                   } else {
                                                     return rotate_flagless<T, Source>;
                                                   }
                                                 });
  return true;
}

}  // namespace

bool select_shift(const Selection& selection) {
  switch (selection.instruction.mnemonic) {
    case Mnemonic::kShl:
      return select_simple<alu::Shl>(selection);
    case Mnemonic::kShr:
      return select_simple<alu::Shr>(selection);
    case Mnemonic::kSar:
      return select_simple<alu::Sar>(selection);
    case Mnemonic::kRol:
      return select_simple<alu::Rol>(selection);
    case Mnemonic::kRor:
      return select_simple<alu::Ror>(selection);
    case Mnemonic::kRcl:
      return select_simple<alu::Rcl>(selection);
    case Mnemonic::kRcr:
      return select_simple<alu::Rcr>(selection);
    case Mnemonic::kShld:
      return select_double<alu::Shld>(selection);
    case Mnemonic::kShrd:
      return select_double<alu::Shrd>(selection);
    case Mnemonic::kShlx:
      return select_flagless<ShiftLeft>(selection);
    case Mnemonic::kShrx:
      return select_flagless<ShiftRight>(selection);
    case Mnemonic::kSarx:
      return select_flagless<ShiftArithmetic>(selection);
    case Mnemonic::kRorx:
      return select_rotate_flagless(selection);
    default:
      return false;
  }
}

}  // namespace bulkhead::engine::integer
