#include "engine/jit/deferred_flags.h"

#include <bit>

#include "engine/interpreter/cpu.h"
#include "engine/interpreter/integer/alu.h"
#include "engine/jit/instruction_kinds.h"

namespace bulkhead::engine::jit {

using decoder::Instruction;
using decoder::Mnemonic;

namespace {

constexpr uint32_t kKindMask = 7, kHasImmediate = 1 << 5, kImmediateIsWide = 1 << 6;
constexpr unsigned kSizeShift = 3, kFirstShift = 8, kSecondShift = 12, kImmediateShift = 16;

}  // namespace

std::optional<DeferredFlags> DeferredFlags::of(const Instruction& instruction) {
  Kind kind = kResult;
  switch (instruction.mnemonic) {
    case Mnemonic::kCmp:
      kind = kCompare;
      break;
    case Mnemonic::kTest:
      kind = kTest;
      break;
    case Mnemonic::kAnd:
    case Mnemonic::kOr:
    case Mnemonic::kXor:
      break;
    case Mnemonic::kAdd:
      kind = kSum;
      break;
    case Mnemonic::kSub:
      kind = kDifference;
      break;
    case Mnemonic::kNeg:
      kind = kNegation;
      break;
    case Mnemonic::kMul:
      kind = kProduct;
      break;
    default:
      return std::nullopt;
  }
  const unsigned size = operand_size_bytes(instruction, 0);
  if (kind == kProduct && size == 1) return std::nullopt;  // AH has it
  const uint8_t first = kind == kProduct ? uint8_t{cpu::kRdx} : operand_register(instruction, 0);
  if (first >= 16 || size > 8) return std::nullopt;  // memory, or a high byte
  uint32_t note = kMark | kind | static_cast<uint32_t>(std::countr_zero(size)) << kSizeShift;
  note |= static_cast<uint32_t>(first) << kFirstShift;
  if (kind == kResult || kind == kNegation || kind == kProduct) return DeferredFlags(note);
  if (instruction.has_memory()) return std::nullopt;
  const uint8_t second = operand_register(instruction, 1);
  if (second == decoder::kNoRegister) {
    const auto immediate = static_cast<int64_t>(instruction.immediate);
    if (immediate == static_cast<int16_t>(immediate))
      return DeferredFlags(note | kHasImmediate | static_cast<uint32_t>(immediate) << kImmediateShift);
    DeferredFlags deferred(note | kHasImmediate | kImmediateIsWide);
    deferred.wide_immediate_ = static_cast<int32_t>(immediate);
    return deferred;
  }
  const bool keeps_operands = kind == kCompare || kind == kTest;
  if (second >= 16 || (!keeps_operands && first == second)) return std::nullopt;
  return DeferredFlags(note | static_cast<uint32_t>(second) << kSecondShift);
}

std::optional<DeferredFlags> DeferredFlags::with_bit(const Instruction& instruction) {
  constexpr uint32_t kNote = kMark | kWithBit;
  if (instruction.mnemonic == Mnemonic::kImul) return DeferredFlags(kNote | uint32_t{kMultiplied} << kImmediateShift);
  if (!is_shift(instruction.mnemonic) || !changes_all_flags(instruction)) return std::nullopt;
  const bool left = instruction.mnemonic == Mnemonic::kShl;
  if (!left && instruction.mnemonic != Mnemonic::kShr && instruction.mnemonic != Mnemonic::kSar) return std::nullopt;
  const uint8_t result = operand_register(instruction, 0);
  if (result >= 16) return std::nullopt;
  WithBit what = kShifted;
  if (shift_count(instruction) == 1) {
    if (left) what = kShiftedLeftByOne;
    if (instruction.mnemonic == Mnemonic::kShr) what = kShiftedRightByOne;
  }
  const auto size_log2 = static_cast<uint32_t>(std::countr_zero(operand_size_bytes(instruction, 0)));
  return DeferredFlags(kNote | size_log2 << kSizeShift | static_cast<uint32_t>(result) << kFirstShift |
                       uint32_t{what} << kImmediateShift);
}

uint8_t DeferredFlags::bit_condition(const Instruction& instruction) {
  constexpr uint8_t kOverflow = 0, kCarry = 2;
  return instruction.mnemonic == Mnemonic::kImul ? kOverflow : kCarry;
}

uint32_t DeferredFlags::registers() const {
  const uint32_t first = 1u << (note_ >> kFirstShift & 15);
  const auto kind = static_cast<Kind>(note_ & kKindMask);
  if (kind == kWithBit) return note_ >> kImmediateShift == kMultiplied ? 0 : first;
  if (kind == kResult || kind == kNegation || kind == kProduct || (note_ & kHasImmediate) != 0) return first;
  return first | 1u << (note_ >> kSecondShift & 15);
}

template <typename T>
void DeferredFlags::make_with_bit(Cpu& cpu, T result) const {
  const bool bit = (cpu.flags_immediate & 1) != 0;
  const auto what = static_cast<WithBit>(note_ >> kImmediateShift);
  if (what == kMultiplied) return cpu.flags.from_rflags(bit ? decoder::kFlagCf | decoder::kFlagOf : 0);
  alu::Test::apply(result, result, cpu.flags);
  constexpr unsigned kTopBit = sizeof(T) * 8 - 1;
  bool overflow = false;
  if (what == kShiftedLeftByOne) overflow = ((result >> kTopBit & 1) != 0) != bit;
  if (what == kShiftedRightByOne) overflow = (result >> (kTopBit - 1) & 1) != 0;
  if (bit) cpu.flags.ax |= ArithmeticFlags::kCarry;
  if (overflow) cpu.flags.ax |= ArithmeticFlags::kOverflow;
}

template <typename T>
void DeferredFlags::make_for(Cpu& cpu) const {
  const auto first = static_cast<T>(cpu.gpr[note_ >> kFirstShift & 15]);
  auto second = static_cast<T>(cpu.gpr[note_ >> kSecondShift & 15]);
  if ((note_ & kImmediateIsWide) != 0)
    second = static_cast<T>(cpu.flags_immediate);
  else if ((note_ & kHasImmediate) != 0)
    second = static_cast<T>(static_cast<int16_t>(note_ >> kImmediateShift));
  switch (static_cast<Kind>(note_ & kKindMask)) {
    case kCompare:
      alu::Cmp::apply(first, second, cpu.flags);
      break;
    case kTest:
      alu::Test::apply(first, second, cpu.flags);
      break;
    case kResult:
      alu::Test::apply(first, first, cpu.flags);
      break;
    case kSum:
      alu::Add::apply(static_cast<T>(first - second), second, cpu.flags);
      break;
    case kDifference:
      alu::Cmp::apply(static_cast<T>(first + second), second, cpu.flags);
      break;
    case kNegation:
      alu::Cmp::apply(T{0}, static_cast<T>(T{0} - first), cpu.flags);
      break;
    case kProduct:  // SF, ZF, AF and PF are undefined, and 0 here
      cpu.flags.from_rflags(first != 0 ? decoder::kFlagCf | decoder::kFlagOf : 0);
      break;
    case kWithBit:
      make_with_bit(cpu, first);
      break;
  }
}

void DeferredFlags::make(Cpu* cpu) noexcept {
  const DeferredFlags deferred(uint32_t{cpu->flags.ax} | uint32_t{cpu->flags_note} << 16);
  switch (deferred.note_ >> kSizeShift & 3) {
    case 0:
      return deferred.make_for<uint8_t>(*cpu);
    case 1:
      return deferred.make_for<uint16_t>(*cpu);
    case 2:
      return deferred.make_for<uint32_t>(*cpu);
    default:
      return deferred.make_for<uint64_t>(*cpu);
  }
}

uint32_t registers_before_flags(std::span<const Op> ops, uint64_t by_handler) {
  uint32_t written = 0, before_shown = 0;
  bool is_partly_changed = false;
  for (const Op& op : ops) {
    const Instruction& instruction = *op.instruction;
    // A handler finds flags that have been made for it.
    if ((by_handler >> (&op - ops.data()) & 1) != 0) return is_partly_changed ? kNeedsFlags : before_shown | written;
    if (!is_native(instruction) || flags_read(instruction) != 0) return kNeedsFlags;
    if (may_access_memory(instruction) || instruction.info->state != decoder::StateComponent::kGeneral) {
      if (is_partly_changed) return kNeedsFlags;
      before_shown |= written;
    }
    if (changes_all_flags(instruction)) return before_shown;
    is_partly_changed = is_partly_changed || flags_changed(instruction) != 0;
    written |= written_registers(instruction);
  }
  return kNeedsFlags;
}

}  // namespace bulkhead::engine::jit
