// Breakpoints: the guest's own in DR0 to DR7 (Intel SDM 3, 17.2) and those of a debugger outside of it.
#pragma once

#include <cstdint>

#include "cpu/vcpu.h"
#include "engine/interpreter/cpu.h"

namespace bulkhead::engine {

enum Dr6Bit : uint64_t { kDr6DebugAccess = 1 << 13, kDr6SingleStep = 1 << 14, kDr6TaskSwitch = 1 << 15 };

// After any change of DR7, RFLAGS.TF, CR0.AM, RFLAGS.AC, CPL or the debugger's points: what must be watched, and how.
void update_watching(Cpu& cpu);

// A data access that will be made: remembers the breakpoints that it hits, for after the instruction.
void note_data_access(Cpu& cpu, uint64_t linear, unsigned size, bool writes);
void note_port_access(Cpu& cpu, uint16_t port, unsigned size);
// DR6 bits of the guest's execution breakpoints at this linear address.
uint64_t code_breakpoints_at(const Cpu& cpu, uint64_t linear);
// Writes DR6 as a #DB delivery does and clears DR7.GD; the exception itself is the caller's.
void enter_debug_exception(Cpu& cpu, uint64_t dr6_bits);

}  // namespace bulkhead::engine
