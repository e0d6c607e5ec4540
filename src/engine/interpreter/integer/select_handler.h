// Chooses the handler of an instruction and lays its operands out for it, once, when its block is made.
#pragma once

#include "engine/interpreter/op.h"

namespace bulkhead::engine {

// What of the CPU's mode decides which handler runs.
struct HandlerMode {
  bool code64 = false;  // 64-bit mode: CS.L and EFER.LMA
  bool code32 = false;  // CS.D outside of it
};

// Fills op from the instruction, which must live as long as the block. op.offset and op.end_offset are set already.
// Every instruction that decodes gets a handler; one that no family carries out raises #UD.
void prepare(Op& op, const decoder::Instruction& instruction, HandlerMode mode);

// The families outside of integer/: nullptr when the instruction is not theirs.
Handler simd_handler(const decoder::Instruction& instruction);    // interpreter/simd and interpreter/x87
Handler system_handler(const decoder::Instruction& instruction);  // interpreter/system

}  // namespace bulkhead::engine
