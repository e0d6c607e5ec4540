// The one place where an instruction meets its handler: operands are laid out, then the families are asked in turn.
#include "engine/interpreter/integer/select_handler.h"

#include <cstddef>

#include "engine/interpreter/integer/families.h"
#include "engine/interpreter/system/system.h"

namespace bulkhead::engine {
namespace {

constexpr uint8_t register_offset(uint8_t number) {
  if (number >= decoder::kHighByte && number < decoder::kHighByte + 4) {
    return static_cast<uint8_t>((number - decoder::kHighByte) * 8 + 1);
  }
  return static_cast<uint8_t>((number & 15) * 8);
}

constexpr uint8_t address_register_offset(uint8_t number) {
  if (number == decoder::kNoRegister) return kZeroOffset;
  if (number == decoder::kRipRelative) return kBlockRipOffset;
  return register_offset(number);
}

uint16_t segment_base_offset(uint8_t segment, bool code64) {
  if (!code64 || segment < cpu::kFs) return kZeroOffset;
  return static_cast<uint16_t>(kSegmentsOffset + segment * sizeof(cpu::Segment) + offsetof(cpu::Segment, base));
}

void undefined(Cpu&, const Op&) {
  raise(kInvalidOpcode);
}

bool select_integer(const integer::Selection& selection) {
  return integer::select_move(selection) || integer::select_arithmetic(selection) ||
         integer::select_branch(selection) || integer::select_stack(selection) || integer::select_shift(selection) ||
         integer::select_bit(selection) || integer::select_multiply(selection) || integer::select_string(selection) ||
         integer::select_atomic(selection) || integer::select_other(selection);
}

}  // namespace

void prepare(Op& op, const decoder::Instruction& instruction, HandlerMode mode) {
  op.instruction = &instruction;
  op.immediate = static_cast<uint64_t>(instruction.immediate);
  op.displacement = instruction.displacement + (instruction.base == decoder::kRipRelative ? op.end_offset : 0);
  op.reg = register_offset(instruction.reg);
  op.rm = register_offset(instruction.rm);
  op.vvvv = register_offset(instruction.vvvv);
  op.base = address_register_offset(instruction.base);
  op.index = address_register_offset(instruction.index);
  op.scale_log2 = instruction.scale_log2;
  op.segment = instruction.segment;
  op.segment_base = segment_base_offset(instruction.segment, mode.code64);
  const bool goes_on = mode.code64 && instruction.mnemonic == decoder::Mnemonic::kJcc;
  op.ends_block = (instruction.info->instruction_class == decoder::InstructionClass::kControl && !goes_on) ||
                  system_ends_block(instruction);

  const bool flat = mode.code64 && instruction.address_size == 8;
  if (select_integer({op, instruction, mode.code64, flat})) return;
  op.handler = system_handler(instruction);
  if (op.handler == nullptr) op.handler = simd_handler(instruction);
  if (op.handler == nullptr) op.handler = undefined;
}

}  // namespace bulkhead::engine
