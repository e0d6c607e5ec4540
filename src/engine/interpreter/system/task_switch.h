// Hardware task switches between TSSs. Intel SDM 3, chapter 8. Not in long mode.
#pragma once

#include <cstdint>

#include "engine/interpreter/cpu.h"

namespace bulkhead::engine {

enum class TaskSwitch : uint8_t {
  kJump,
  kNested,  // CALL or interrupt: the old task stays busy and is linked
  kReturn,  // IRET with NT
};

// To the TSS that `selector` names; its type, presence and privilege have been checked. cpu.rip is what the old task
// goes on with. The fault for anything wrong with the new task's segments is raised in the new task. fault: RF is set
// in the saved flags.
void switch_task(Cpu& cpu, uint16_t selector, TaskSwitch kind, bool fault);

}  // namespace bulkhead::engine
