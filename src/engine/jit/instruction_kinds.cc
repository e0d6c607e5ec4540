#include "engine/jit/instruction_kinds.h"

#include <algorithm>

#include "engine/interpreter/cpu.h"

namespace bulkhead::engine::jit {

using decoder::Access;
using decoder::Instruction;
using decoder::Mnemonic;
using decoder::OperandKind;

bool reads(Access access) {
  return access == Access::kRead || access == Access::kReadWrite;
}
bool writes(Access access) {
  return access == Access::kWrite || access == Access::kReadWrite;
}
uint32_t flags_read(const Instruction& instruction) {
  return instruction.info->flags_read & decoder::kArithmeticFlags;
}
uint32_t flags_changed(const Instruction& instruction) {
  return (instruction.info->flags_written | instruction.info->flags_undefined) & decoder::kArithmeticFlags;
}
bool is_shift(Mnemonic mnemonic) {
  return mnemonic == Mnemonic::kShl || mnemonic == Mnemonic::kShr || mnemonic == Mnemonic::kSar ||
         mnemonic == Mnemonic::kShld || mnemonic == Mnemonic::kShrd;
}
bool is_rotate(Mnemonic mnemonic) {
  return mnemonic == Mnemonic::kRol || mnemonic == Mnemonic::kRor;
}
bool is_bit_test(Mnemonic mnemonic) {
  return mnemonic == Mnemonic::kBt || mnemonic == Mnemonic::kBts || mnemonic == Mnemonic::kBtr ||
         mnemonic == Mnemonic::kBtc;
}
uint8_t opcode_prefix(Mnemonic mnemonic) {
  switch (mnemonic) {
    case Mnemonic::kPopcnt:
    case Mnemonic::kTzcnt:
    case Mnemonic::kLzcnt:
    case Mnemonic::kAdox:
      return 0xF3;
    case Mnemonic::kCrc32:
      return 0xF2;
    case Mnemonic::kAdcx:
      return 0x66;
    default:
      return 0;
  }
}
bool is_logic(Mnemonic mnemonic) {
  return mnemonic == Mnemonic::kAnd || mnemonic == Mnemonic::kOr || mnemonic == Mnemonic::kXor ||
         mnemonic == Mnemonic::kTest;
}
bool counts_by_cl(const Instruction& instruction) {
  const auto operands = std::span(instruction.info->operands).first(instruction.info->operand_count);
  return std::ranges::any_of(operands, [](const auto& operand) { return operand.kind == OperandKind::kCl; });
}
uint8_t shift_mask(const Instruction& instruction) {
  return instruction.operand_size == 8 ? 63 : 31;
}
unsigned shift_count(const Instruction& instruction) {
  return instruction.immediate_length != 0 ? static_cast<unsigned>(instruction.immediate) & shift_mask(instruction) : 1;
}
bool changes_all_flags(const Instruction& instruction) {
  if (is_shift(instruction.mnemonic)) return !counts_by_cl(instruction) && shift_count(instruction) != 0;
  if (instruction.mnemonic == Mnemonic::kDiv || instruction.mnemonic == Mnemonic::kIdiv) return false;
  return flags_changed(instruction) == decoder::kArithmeticFlags && !instruction.info->may_keep_flags;
}
uint16_t cleared_flags(const Instruction& instruction) {
  using F = ArithmeticFlags;
  const uint16_t overflow = counts_by_cl(instruction) || shift_count(instruction) != 1 ? F::kOverflow : 0;
  if (is_shift(instruction.mnemonic)) return F::kAdjust | overflow;
  if (is_rotate(instruction.mnemonic)) return overflow;
  switch (instruction.mnemonic) {
    case Mnemonic::kMul:
    case Mnemonic::kImul:
      return F::kSign | F::kZero | F::kAdjust | F::kParity;
    case Mnemonic::kBsf:
    case Mnemonic::kBsr:
      return F::kSign | F::kAdjust | F::kParity | F::kCarry | F::kOverflow;
    case Mnemonic::kTzcnt:
    case Mnemonic::kLzcnt:
      return F::kSign | F::kAdjust | F::kParity | F::kOverflow;
    case Mnemonic::kAndn:
    case Mnemonic::kBlsi:
    case Mnemonic::kBlsmsk:
    case Mnemonic::kBlsr:
    case Mnemonic::kBzhi:
      return F::kAdjust | F::kParity;
    case Mnemonic::kBextr:
      return F::kSign | F::kAdjust | F::kParity;
    default:
      return 0;
  }
}

bool is_copied(Mnemonic mnemonic) {
  switch (mnemonic) {
    case Mnemonic::kMov:
    case Mnemonic::kMovzx:
    case Mnemonic::kMovsx:
    case Mnemonic::kMovsxd:
    case Mnemonic::kAdd:
    case Mnemonic::kOr:
    case Mnemonic::kAdc:
    case Mnemonic::kSbb:
    case Mnemonic::kAnd:
    case Mnemonic::kSub:
    case Mnemonic::kXor:
    case Mnemonic::kCmp:
    case Mnemonic::kTest:
    case Mnemonic::kInc:
    case Mnemonic::kDec:
    case Mnemonic::kNeg:
    case Mnemonic::kNot:
    case Mnemonic::kImul:
    case Mnemonic::kMul:
    case Mnemonic::kShl:
    case Mnemonic::kShr:
    case Mnemonic::kSar:
    case Mnemonic::kShld:
    case Mnemonic::kShrd:
    case Mnemonic::kRol:
    case Mnemonic::kRor:
    case Mnemonic::kSetcc:
    case Mnemonic::kCmovcc:
    case Mnemonic::kXchg:
    case Mnemonic::kXadd:
    case Mnemonic::kCmpxchg:
    case Mnemonic::kBt:
    case Mnemonic::kBts:
    case Mnemonic::kBtr:
    case Mnemonic::kBtc:
    case Mnemonic::kBsf:
    case Mnemonic::kBsr:
      return true;
    case Mnemonic::kPopcnt:
      return __builtin_cpu_supports("popcnt") != 0;
    case Mnemonic::kTzcnt:
    case Mnemonic::kAndn:
    case Mnemonic::kBextr:
    case Mnemonic::kBlsi:
    case Mnemonic::kBlsmsk:
    case Mnemonic::kBlsr:
      return __builtin_cpu_supports("bmi") != 0;
    case Mnemonic::kBzhi:
    case Mnemonic::kMulx:
    case Mnemonic::kPdep:
    case Mnemonic::kPext:
    case Mnemonic::kRorx:
    case Mnemonic::kSarx:
    case Mnemonic::kShlx:
    case Mnemonic::kShrx:
      return __builtin_cpu_supports("bmi2") != 0;
    case Mnemonic::kAdcx:
    case Mnemonic::kAdox:
      return __builtin_cpu_supports("adx") != 0;
    case Mnemonic::kMovbe:
      return __builtin_cpu_supports("movbe") != 0;
    case Mnemonic::kCrc32:
      return __builtin_cpu_supports("sse4.2") != 0;
    case Mnemonic::kLzcnt:
      return __builtin_cpu_supports("lzcnt") != 0;
    default:
      return false;
  }
}

namespace {

bool is_register_or_constant(OperandKind kind) {
  switch (kind) {
    case OperandKind::kGprReg:
    case OperandKind::kGprRm:
    case OperandKind::kGprOpcode:
    case OperandKind::kGprVvvv:
    case OperandKind::kAccumulator:
    case OperandKind::kImmediate:
    case OperandKind::kUnsigned:
    case OperandKind::kOne:
    case OperandKind::kCl:
      return true;
    default:
      return false;
  }
}

}  // namespace

bool is_native(const Instruction& instruction) {
  if (instruction.info == nullptr || instruction.has(decoder::kPrefixRep) || instruction.has(decoder::kPrefixRepne))
    return false;
  if (instruction.info->state == decoder::StateComponent::kSse ||
      instruction.info->state == decoder::StateComponent::kAvx)
    return true;
  if (instruction.info->state != decoder::StateComponent::kGeneral) return false;
  switch (instruction.mnemonic) {
    case Mnemonic::kNop:
    case Mnemonic::kLea:
    case Mnemonic::kPush:
    case Mnemonic::kPop:
    case Mnemonic::kCbw:
    case Mnemonic::kCwd:
      return true;
    default:
      break;
  }
  if (!is_copied(instruction.mnemonic)) return false;
  for (unsigned i = 0; i < instruction.info->operand_count; ++i) {
    if (!is_register_or_constant(instruction.info->operands[i].kind)) return false;
    const uint8_t number = operand_register(instruction, i);
    if (number != decoder::kNoRegister && number >= 16) return false;  // a high byte
  }
  return true;
}

bool may_access_memory(const Instruction& instruction) {
  return (instruction.has_memory() && instruction.info->memory_access != Access::kNone) ||
         instruction.info->instruction_class == decoder::InstructionClass::kStack;
}

uint32_t written_registers(const Instruction& instruction) {
  uint32_t written = instruction.info->gpr_written;
  if (instruction.info->instruction_class == decoder::InstructionClass::kStack) written |= 1u << cpu::kRsp;
  for (unsigned i = 0; i < instruction.info->operand_count; ++i) {
    const decoder::OperandSpec& operand = instruction.info->operands[i];
    const bool is_general = operand.kind == OperandKind::kGprReg || operand.kind == OperandKind::kGprRm ||
                            operand.kind == OperandKind::kGprOpcode || operand.kind == OperandKind::kGprVvvv ||
                            operand.kind == OperandKind::kAccumulator;
    if (!is_general || !writes(operand.access)) continue;
    const uint8_t number = operand_register(instruction, i);
    if (number == decoder::kNoRegister) continue;
    written |= number < 16 ? 1u << number : 0xFFFFu;  // a high byte: whichever it is of
  }
  return written;
}

}  // namespace bulkhead::engine::jit
