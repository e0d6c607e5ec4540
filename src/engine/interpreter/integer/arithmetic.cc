// ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, INC, DEC, NEG, NOT in all their forms (Intel SDM 2). Handlers are
// specialised on operation, width and form, so that none decides anything when it runs.
#include <utility>

#include "engine/interpreter/integer/alu.h"
#include "engine/interpreter/integer/families.h"

namespace bulkhead::engine::integer {
namespace {

using decoder::Mnemonic;
using decoder::OperandKind;

// Where the second operand comes from.
struct FromRegister {
  template <typename T>
  static T get(const Cpu& cpu, const Op& op) {
    return read_register<T>(cpu, op.reg);
  }
};
struct FromImmediate {
  template <typename T>
  static T get(const Cpu&, const Op& op) {
    return static_cast<T>(op.immediate);
  }
};

template <typename Operation, typename Source, typename T>
void to_register(Cpu& cpu, const Op& op) {
  const T result = Operation::apply(read_register<T>(cpu, op.rm), Source::template get<T>(cpu, op), cpu.flags);
  if constexpr (Operation::kWrites) write_register<T>(cpu, op.rm, result);
}

template <typename Operation, typename T, Addressing kAddressing>
void memory_to_register(Cpu& cpu, const Op& op) {
  load_then<T, kAddressing, [](Cpu& cpu, const Op& op, T source) {
    const T result = Operation::apply(read_register<T>(cpu, op.reg), source, cpu.flags);
    if constexpr (Operation::kWrites) write_register<T>(cpu, op.reg, result);
  }>(cpu, op);
}

template <typename Operation, typename Source, typename T, bool kLocked>
[[gnu::noinline]] void to_memory_slow(Cpu& cpu, const Op& op, uint64_t linear) {
  const T source = Source::template get<T>(cpu, op);
  const ArithmeticFlags before = cpu.flags;
  modify_linear<T, kLocked>(cpu, segment_of(op), linear, [&](T old) {
    ArithmeticFlags flags = before;
    const T result = Operation::apply(old, source, flags);
    cpu.flags = flags;
    return result;
  });
}

template <typename Operation, typename Source, typename T, Addressing kAddressing, bool kLocked>
void to_memory(Cpu& cpu, const Op& op) {
  const uint64_t linear = operand_address<kAddressing, MemoryAccess::kReadWrite>(cpu, op, sizeof(T));
  if constexpr (!kLocked) {
    if (uint8_t* host = find_writable(cpu, linear, sizeof(T))) [[likely]] {
      store_word<T>(host, Operation::apply(load_word<T>(host), Source::template get<T>(cpu, op), cpu.flags));
      return;
    }
  }
  to_memory_slow<Operation, Source, T, kLocked>(cpu, op, linear);
}

// CMP and TEST: memory is only read.
template <typename Operation, typename Source, typename T, Addressing kAddressing>
void with_memory(Cpu& cpu, const Op& op) {
  load_then<T, kAddressing, [](Cpu& cpu, const Op& op, T value) {
    Operation::apply(value, Source::template get<T>(cpu, op), cpu.flags);
  }>(cpu, op);
}

template <typename Operation, typename Source>
Handler select_to_memory(const Selection& selection, unsigned size) {
  return by_size_and_addressing(selection, size, [&]<typename T, Addressing kAddressing>() -> Handler {
    if constexpr (!Operation::kWrites) {
      return with_memory<Operation, Source, T, kAddressing>;
    } else {
      if (selection.instruction.has(decoder::kPrefixLock)) return to_memory<Operation, Source, T, kAddressing, true>;
      return to_memory<Operation, Source, T, kAddressing, false>;
    }
  });
}

template <typename Operation>
bool select_binary(const Selection& selection) {
  const decoder::Instruction& instruction = selection.instruction;
  Op& op = selection.op;
  const unsigned size = instruction.operand_size;
  if (operand_kind(selection, 1) == OperandKind::kImmediate) {
    op.handler = instruction.has_memory()
                     ? select_to_memory<Operation, FromImmediate>(selection, size)
                     : by_size(size, []<typename T>() -> Handler { return to_register<Operation, FromImmediate, T>; });
    return true;
  }
  const bool destination_is_reg = operand_kind(selection, 0) == OperandKind::kGprReg;
  if (!instruction.has_memory()) {
    if (destination_is_reg) std::swap(op.reg, op.rm);
    op.handler = by_size(size, []<typename T>() -> Handler { return to_register<Operation, FromRegister, T>; });
  } else if (destination_is_reg) {
    op.handler = by_size_and_addressing(selection, size, []<typename T, Addressing kAddressing>() -> Handler {
      return memory_to_register<Operation, T, kAddressing>;
    });
  } else {
    op.handler = select_to_memory<Operation, FromRegister>(selection, size);
  }
  return true;
}

template <typename Operation, typename T>
void unary_register(Cpu& cpu, const Op& op) {
  write_register<T>(cpu, op.rm, Operation::apply(read_register<T>(cpu, op.rm), cpu.flags));
}

template <typename Operation, typename T, Addressing kAddressing, bool kLocked>
void unary_memory(Cpu& cpu, const Op& op) {
  const ArithmeticFlags before = cpu.flags;
  modify<T, kAddressing, kLocked>(cpu, op, [&](T old) {
    ArithmeticFlags flags = before;
    const T result = Operation::apply(old, flags);
    cpu.flags = flags;
    return result;
  });
}

template <typename Operation>
bool select_unary(const Selection& selection) {
  const unsigned size = selection.instruction.operand_size;
  if (!selection.instruction.has_memory()) {
    selection.op.handler = by_size(size, []<typename T>() -> Handler { return unary_register<Operation, T>; });
    return true;
  }
  const bool locked = selection.instruction.has(decoder::kPrefixLock);
  selection.op.handler = by_size_and_addressing(selection, size, [&]<typename T, Addressing kAddressing>() -> Handler {
    if (locked) return unary_memory<Operation, T, kAddressing, true>;
    return unary_memory<Operation, T, kAddressing, false>;
  });
  return true;
}

}  // namespace

bool select_arithmetic(const Selection& selection) {
  switch (selection.instruction.mnemonic) {
    case Mnemonic::kAdd:
      return select_binary<alu::Add>(selection);
    case Mnemonic::kOr:
      return select_binary<alu::Or>(selection);
    case Mnemonic::kAdc:
      return select_binary<alu::Adc>(selection);
    case Mnemonic::kSbb:
      return select_binary<alu::Sbb>(selection);
    case Mnemonic::kAnd:
      return select_binary<alu::And>(selection);
    case Mnemonic::kSub:
      return select_binary<alu::Sub>(selection);
    case Mnemonic::kXor:
      return select_binary<alu::Xor>(selection);
    case Mnemonic::kCmp:
      return select_binary<alu::Cmp>(selection);
    case Mnemonic::kTest:
      return select_binary<alu::Test>(selection);
    case Mnemonic::kInc:
      return select_unary<alu::Inc>(selection);
    case Mnemonic::kDec:
      return select_unary<alu::Dec>(selection);
    case Mnemonic::kNeg:
      return select_unary<alu::Neg>(selection);
    case Mnemonic::kNot:
      return select_unary<alu::Not>(selection);
    default:
      return false;
  }
}

}  // namespace bulkhead::engine::integer
