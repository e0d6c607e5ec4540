// The guest's x87 unit on the host's while translated code runs; Cpu::x87_live says whether it is there, and all of it
// is in Cpu::xsave whenever C++ looks. Never leaves the host with an unmasked exception or a register in use.
#pragma once

#include <cstdint>

#include "engine/interpreter/cpu.h"
#include "engine/jit/assembler.h"

namespace bulkhead::engine::jit {

// Values of Cpu::x87_live.
enum X87Live : uint32_t {
  kX87InCpu = 0,
  kX87Loaded = 1,    // nothing has computed; the exception pointers are the Cpu's still
  kX87Computed = 2,  // they are 0
};

// True where x87 instructions may run on the host's unit at all.
[[nodiscard]] bool host_can_hold_x87();
// True while the control word masks all exceptions, so that none is pending; else x87 is the interpreter's.
[[nodiscard]] bool masks_all_x87_exceptions(const Cpu& cpu);

// Code, ended by RET, that brings the guest's unit onto the host's for an instruction that leaves it at `level`.
// Changes the flags alone.
void emit_x87_load(Assembler& code, const Cpu& cpu, X87Live level);
// Code that brings what is live back into the Cpu. Changes RAX, RCX, RDX, RSI, RDI and the flags.
void emit_x87_store(Assembler& code, const Cpu& cpu);

}  // namespace bulkhead::engine::jit
