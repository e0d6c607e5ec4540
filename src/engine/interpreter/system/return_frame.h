// What IRET and far RET have in common in protected and long mode: a code segment and perhaps an outer stack off the
// stack.
#pragma once

#include <cstdint>

#include "engine/interpreter/cpu.h"
#include "engine/interpreter/system/descriptor.h"
#include "engine/interpreter/system/stack_frame.h"

namespace bulkhead::engine::system {

struct ReturnFrame {
  StackTarget stack;
  unsigned size = 8;  // of an element
  uint64_t rip = 0;
  uint16_t code_selector = 0;
  unsigned outer_offset = 0;      // of the outer stack pointer above the top; also what is popped when there is none
  bool always_has_stack = false;  // IRET in 64-bit mode: RSP and SS are there even without a change of CPL
  unsigned released = 0;          // RET n: bytes of parameters on either stack

  // Found by check_return().
  uint8_t cpl = 0;
  bool has_stack = false;
  uint64_t outer_pointer = 0;
  uint16_t stack_selector = 0;
  Descriptor code{}, stack_descriptor{};
};

// Reads and checks everything; throws, or finish_return() cannot fail. SDM 2, IRET and RET (far), their order of
// checks.
void check_return(Cpu& cpu, ReturnFrame& frame);
// Loads CS, RIP, SS and RSP, sets the CPL, empties data segments that the outer level may not use. update_mode() is the
// caller's.
void finish_return(Cpu& cpu, ReturnFrame& frame);

}  // namespace bulkhead::engine::system
