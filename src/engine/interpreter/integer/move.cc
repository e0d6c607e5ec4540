// Moves of general registers: MOV, MOVZX, MOVSX, LEA, XCHG, BSWAP, MOVBE, XLAT, CMOVcc, SETcc, CBW and CWD, and the
// instructions that set single flags.
#include <bit>
#include <utility>

#include "engine/interpreter/integer/alu.h"
#include "engine/interpreter/integer/families.h"

namespace bulkhead::engine::integer {
namespace {

using decoder::Mnemonic;
using decoder::OperandKind;

// --- MOV ---

template <typename T>
void move_register(Cpu& cpu, const Op& op) {
  write_register<T>(cpu, op.rm, read_register<T>(cpu, op.reg));
}

template <typename T>
void move_immediate(Cpu& cpu, const Op& op) {
  write_register<T>(cpu, op.rm, static_cast<T>(op.immediate));
}

template <typename T, Addressing kAddressing>
void move_load(Cpu& cpu, const Op& op) {
  load_then<T, kAddressing, [](Cpu& cpu, const Op& op, T value) { write_register<T>(cpu, op.reg, value); }>(cpu, op);
}

template <typename T, Addressing kAddressing>
void move_store(Cpu& cpu, const Op& op) {
  store<T, kAddressing>(cpu, op, read_register<T>(cpu, op.reg));
}

template <typename T, Addressing kAddressing>
void move_store_immediate(Cpu& cpu, const Op& op) {
  store<T, kAddressing>(cpu, op, static_cast<T>(op.immediate));
}

bool select_mov(const Selection& selection) {
  const decoder::Instruction& instruction = selection.instruction;
  Op& op = selection.op;
  const unsigned size = instruction.operand_size;
  const OperandKind destination = operand_kind(selection, 0);
  const OperandKind source = operand_kind(selection, 1);
  if (source == OperandKind::kImmediate || source == OperandKind::kUnsigned) {
    op.handler = instruction.has_memory() ? by_size_and_addressing(selection, size,
                                                                   []<typename T, Addressing kAddressing>() -> Handler {
                                                                     return move_store_immediate<T, kAddressing>;
                                                                   })
                                          : by_size(size, []<typename T>() -> Handler { return move_immediate<T>; });
    return true;
  }
  if (!instruction.has_memory()) {
    if (destination == OperandKind::kGprReg) std::swap(op.reg, op.rm);
    op.handler = by_size(size, []<typename T>() -> Handler { return move_register<T>; });
    return true;
  }
  // The absolute forms move the accumulator.
  if (destination == OperandKind::kMoffs || source == OperandKind::kMoffs) op.reg = 0;
  const bool is_store =
      destination == OperandKind::kGprRm || destination == OperandKind::kMoffs || destination == OperandKind::kMemory;
  op.handler = by_size_and_addressing(selection, size, [&]<typename T, Addressing kAddressing>() -> Handler {
    return is_store ? Handler{move_store<T, kAddressing>} : Handler{move_load<T, kAddressing>};
  });
  return true;
}

// --- MOVZX, MOVSX, MOVSXD ---

template <typename To, typename From, typename Source>
void extend(Cpu& cpu, const Op& op) {
  Source::template then<[](Cpu& cpu, const Op& op, std::make_unsigned_t<From> value) {
    write_register<To>(cpu, op.reg, static_cast<To>(static_cast<From>(value)));
  }>(cpu, op);
}

bool select_extend(const Selection& selection, bool is_signed) {
  const unsigned from_size = decoder::operand_size_bytes(selection.instruction, 1);
  selection.op.handler = by_word_size(selection.instruction.operand_size, [&]<typename To>() -> Handler {
    return by_size_and_source(selection, from_size, [&]<typename From, typename Source>() -> Handler {
      if constexpr (sizeof(From) > sizeof(To)) {
        return nullptr;
      } else {
        return is_signed ? Handler{extend<To, std::make_signed_t<From>, Source>} : Handler{extend<To, From, Source>};
      }
    });
  });
  return true;
}

// --- LEA ---

template <typename T, Addressing kAddressing>
void load_address(Cpu& cpu, const Op& op) {
  write_register<T>(cpu, op.reg, static_cast<T>(effective_address<kAddressing>(cpu, op)));
}

// --- XCHG, BSWAP, MOVBE, XLAT ---

template <typename T>
void exchange_registers(Cpu& cpu, const Op& op) {
  const T first = read_register<T>(cpu, op.rm);
  const T second = read_register<T>(cpu, op.reg);
  write_register<T>(cpu, op.rm, second);
  write_register<T>(cpu, op.reg, first);
}

// With memory XCHG is LOCKed always.
template <typename T, Addressing kAddressing>
void exchange_memory(Cpu& cpu, const Op& op) {
  const uint64_t linear = operand_address<kAddressing, MemoryAccess::kReadWrite>(cpu, op, sizeof(T));
  T value = read_register<T>(cpu, op.reg);
  update_locked_linear<T>(cpu, segment_of(op), linear, [&](T* host) {
    asm volatile("xchg %[value], %[memory]" : [value] "+r"(value), [memory] "+m"(*host) : : "memory");
  });
  write_register<T>(cpu, op.reg, value);
}

bool select_exchange(const Selection& selection) {
  const unsigned size = selection.instruction.operand_size;
  if (!selection.instruction.has_memory()) {
    selection.op.handler = by_size(size, []<typename T>() -> Handler { return exchange_registers<T>; });
  } else {
    selection.op.handler = by_size_and_addressing(selection, size, []<typename T, Addressing kAddressing>() -> Handler {
      return exchange_memory<T, kAddressing>;
    });
  }
  return true;
}

// A 16-bit BSWAP is undefined; it gives 0 here.
template <typename T>
void swap_bytes(Cpu& cpu, const Op& op) {
  if constexpr (sizeof(T) == 2) {
    write_register<T>(cpu, op.rm, 0);
  } else {
    write_register<T>(cpu, op.rm, std::byteswap(read_register<T>(cpu, op.rm)));
  }
}

template <typename T, Addressing kAddressing>
void load_swapped(Cpu& cpu, const Op& op) {
  write_register<T>(cpu, op.reg, std::byteswap(load<T, kAddressing>(cpu, op)));
}

template <typename T, Addressing kAddressing>
void store_swapped(Cpu& cpu, const Op& op) {
  store<T, kAddressing>(cpu, op, std::byteswap(read_register<T>(cpu, op.reg)));
}

bool select_movbe(const Selection& selection) {
  const bool is_load = operand_kind(selection, 0) == OperandKind::kGprReg;
  const unsigned size = selection.instruction.operand_size;
  selection.op.handler =
      by_word_size_and_addressing(selection, size, [&]<typename T, Addressing kAddressing>() -> Handler {
        return is_load ? Handler{load_swapped<T, kAddressing>} : Handler{store_swapped<T, kAddressing>};
      });
  return true;
}

template <Addressing kAddressing>
void translate_byte(Cpu& cpu, const Op& op) {
  const uint64_t mask = size_mask(op.instruction->address_size);
  const uint64_t offset = (cpu.gpr[cpu::kRbx] + static_cast<uint8_t>(cpu.gpr[cpu::kRax])) & mask;
  const uint64_t linear = segment_address<kAddressing, MemoryAccess::kRead>(cpu, op, offset, 1);
  write_register<uint8_t>(cpu, 0, read_linear<uint8_t>(cpu, segment_of(op), linear));
}

// --- CMOVcc, SETcc ---

template <unsigned kCondition, typename T, typename Source>
void move_if(Cpu& cpu, const Op& op) {
  // The source is read, and a 32-bit destination's upper half cleared, whatever the condition says.
  const T source = Source::get(cpu, op);
  const T old = read_register<T>(cpu, op.reg);
  write_register<T>(cpu, op.reg, alu::condition_holds<kCondition>(cpu.flags) ? source : old);
}

template <unsigned kCondition>
void set_register_if(Cpu& cpu, const Op& op) {
  write_register<uint8_t>(cpu, op.rm, alu::condition_holds<kCondition>(cpu.flags));
}

template <unsigned kCondition, Addressing kAddressing>
void set_memory_if(Cpu& cpu, const Op& op) {
  store<uint8_t, kAddressing>(cpu, op, alu::condition_holds<kCondition>(cpu.flags));
}

bool select_cmov(const Selection& selection) {
  selection.op.handler = by_condition(selection.instruction.condition(), [&]<unsigned kCondition>() -> Handler {
    return by_word_size_and_source(
        selection, selection.instruction.operand_size,
        []<typename T, typename Source>() -> Handler { return move_if<kCondition, T, Source>; });
  });
  return true;
}

bool select_setcc(const Selection& selection) {
  selection.op.handler = by_condition(selection.instruction.condition(), [&]<unsigned kCondition>() -> Handler {
    if (!selection.instruction.has_memory()) return set_register_if<kCondition>;
    if (selection.flat) return set_memory_if<kCondition, Addressing::kFlat>;
    return set_memory_if<kCondition, Addressing::kSegmented>;
  });
  return true;
}

// --- sign extension inside the accumulator ---

template <typename T, typename Half>
void extend_accumulator(Cpu& cpu, const Op&) {
  write_register<T>(cpu, 0, static_cast<T>(static_cast<Half>(cpu.gpr[cpu::kRax])));
}

template <typename T>
void sign_to_rdx(Cpu& cpu, const Op&) {
  const auto accumulator = static_cast<std::make_signed_t<T>>(cpu.gpr[cpu::kRax]);
  write_register<T>(cpu, cpu::kRdx * 8, accumulator < 0 ? static_cast<T>(~T{0}) : T{0});
}

Handler cbw_handler(unsigned size) {
  if (size == 2) return extend_accumulator<uint16_t, int8_t>;
  if (size == 4) return extend_accumulator<uint32_t, int16_t>;
  return extend_accumulator<uint64_t, int32_t>;
}

// --- flags ---

void load_ah(Cpu& cpu, const Op&) {
  write_register<uint8_t>(cpu, 1, static_cast<uint8_t>(cpu.flags.to_rflags() | 2));
}
void store_ah(Cpu& cpu, const Op&) {
  const uint32_t overflow = cpu.flags.overflow() ? uint32_t{1} << 11 : 0;
  cpu.flags.from_rflags(read_register<uint8_t>(cpu, 1) | overflow);
}
void clear_carry(Cpu& cpu, const Op&) {
  cpu.flags.ax &= static_cast<uint16_t>(~ArithmeticFlags::kCarry);
}
void set_carry(Cpu& cpu, const Op&) {
  cpu.flags.ax |= ArithmeticFlags::kCarry;
}
void complement_carry(Cpu& cpu, const Op&) {
  cpu.flags.ax ^= ArithmeticFlags::kCarry;
}
void clear_direction(Cpu& cpu, const Op&) {
  cpu.system_flags &= ~kFlagDirection;
}
void set_direction(Cpu& cpu, const Op&) {
  cpu.system_flags |= kFlagDirection;
}
void carry_to_al(Cpu& cpu, const Op&) {
  write_register<uint8_t>(cpu, 0, cpu.flags.carry() ? 0xFF : 0);
}

}  // namespace

bool select_move(const Selection& selection) {
  const unsigned size = selection.instruction.operand_size;
  switch (selection.instruction.mnemonic) {
    case Mnemonic::kMov:
    case Mnemonic::kMovnti:
      return select_mov(selection);
    case Mnemonic::kMovzx:
      return select_extend(selection, false);
    case Mnemonic::kMovsx:
    case Mnemonic::kMovsxd:
      return select_extend(selection, true);
    case Mnemonic::kLea:
      return use_handler(
          selection, by_word_size_and_addressing(selection, size, []<typename T, Addressing kAddressing>() -> Handler {
            return load_address<T, kAddressing>;
          }));
    case Mnemonic::kXchg:
      return select_exchange(selection);
    case Mnemonic::kBswap:
      return use_handler(selection, by_word_size(size, []<typename T>() -> Handler { return swap_bytes<T>; }));
    case Mnemonic::kMovbe:
      return select_movbe(selection);
    case Mnemonic::kXlat:
      return use_handler(selection,
                         selection.flat ? translate_byte<Addressing::kFlat> : translate_byte<Addressing::kSegmented>);
    case Mnemonic::kCmovcc:
      return select_cmov(selection);
    case Mnemonic::kSetcc:
      return select_setcc(selection);
    case Mnemonic::kCbw:
      return use_handler(selection, cbw_handler(size));
    case Mnemonic::kCwd:
      return use_handler(selection, by_word_size(size, []<typename T>() -> Handler { return sign_to_rdx<T>; }));
    case Mnemonic::kLahf:
      return use_handler(selection, load_ah);
    case Mnemonic::kSahf:
      return use_handler(selection, store_ah);
    case Mnemonic::kClc:
      return use_handler(selection, clear_carry);
    case Mnemonic::kStc:
      return use_handler(selection, set_carry);
    case Mnemonic::kCmc:
      return use_handler(selection, complement_carry);
    case Mnemonic::kCld:
      return use_handler(selection, clear_direction);
    case Mnemonic::kStd:
      return use_handler(selection, set_direction);
    case Mnemonic::kSalc:
      return use_handler(selection, carry_to_al);
    default:
      return false;
  }
}

}  // namespace bulkhead::engine::integer
