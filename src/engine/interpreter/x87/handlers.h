// The x87 instructions as handlers of the interpreter.
#pragma once

#include "engine/interpreter/op.h"

namespace bulkhead::engine::x87 {

Handler select(const decoder::Instruction& instruction);              // nullptr: not an x87 instruction
Handler select_environment(const decoder::Instruction& instruction);  // control, status, environment, FNSAVE, FRSTOR

// #UD and #NM as CR0 asks for them.
void require_x87(const Cpu& cpu);

}  // namespace bulkhead::engine::x87
