// The families of vector instructions. Each gives the handler when the instruction is its own, else nullptr. Private to
// this folder; simd_handler() in select.cc asks them in turn, the fast direct ones first.
#pragma once

#include "engine/interpreter/op.h"
#include "engine/interpreter/simd/stubs.h"

namespace bulkhead::engine::simd {

Handler select_move(
    const decoder::Instruction& instruction);  // loads, stores, MOVD, MOVSS, broadcasts, non-temporal moves
Handler select_integer(const decoder::Instruction& instruction);  // the commonest integer operations, without a stub
Handler select_lane(
    const decoder::Instruction& instruction);  // PEXTR, PINSR, EXTRACTPS, INSERTPS, byte shifts, by immediate
Handler select_masked(const decoder::Instruction& instruction);   // gathers, MASKMOV
Handler select_control(const decoder::Instruction& instruction);  // LDMXCSR, STMXCSR, VZEROUPPER, VZEROALL
Handler select_mmx(const decoder::Instruction& instruction);      // everything with an MMX register, EMMS
Handler select_stub(const decoder::Instruction& instruction);     // whatever else stubs.inc has
Handler select_state(const decoder::Instruction& instruction);    // FXSAVE, XSAVE and their kin

// True for VEX operations of 256 bits.
inline bool is_256(const decoder::Instruction& instruction) {
  return instruction.is_vex() && instruction.vector_size == 32;
}
inline bool is_flat(const decoder::Instruction& instruction) {
  return instruction.address_size == 8;
}

// The stub of an instruction on XMM or YMM registers.
inline Stub vector_stub(const decoder::Instruction& instruction) {
  const StubKey key{.mnemonic = instruction.mnemonic,
                    .kind = !instruction.is_vex() ? StubKey::Kind::kSse
                            : is_256(instruction) ? StubKey::Kind::kAvx256
                                                  : StubKey::Kind::kAvx128,
                    .wide = instruction.has(decoder::kPrefixW),
                    .immediate = instruction.immediate_length != 0 &&
                                 instruction.info->operands[3].kind != decoder::OperandKind::kXmmIs4};
  return find_stub(key, static_cast<uint8_t>(instruction.immediate));
}

}  // namespace bulkhead::engine::simd
