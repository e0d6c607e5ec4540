// The guest's XMM and YMM registers and MXCSR on the host's while translated code runs. Cpu::simd_live says how much of
// them is there; all of it is in Cpu::xsave whenever C++ looks. Never leaves the host with an unmasked exception.
#pragma once

#include <cstdint>

#include "engine/interpreter/cpu.h"
#include "engine/jit/assembler.h"

namespace bulkhead::engine::jit {

// Values of Cpu::simd_live, each with what the one before has.
enum SimdLive : uint32_t {
  kSimdInCpu = 0,
  kSimdXmm = 1,    // XMM registers and MXCSR; the upper halves are in the Cpu
  kSimdClean = 2,  // and the upper halves are zero, there and in the Cpu
  kSimdYmm = 3,    // whole YMM registers
};

// True while MXCSR masks all exceptions; else vector instructions are the interpreter's.
[[nodiscard]] bool masks_all_simd_exceptions(const Cpu& cpu);

// Code, ended by RET, that brings the guest's registers onto the host's for instructions that need `level`. Changes
// R13, R14 and the flags. The result is the place of a jump that is taken, with nothing done, when MXCSR does not mask
// all exceptions.
size_t emit_simd_load(Assembler& code, const Cpu& cpu, SimdLive level);
// Code that brings what is live back into the Cpu. Changes RAX and the flags.
void emit_simd_store(Assembler& code, const Cpu& cpu);

}  // namespace bulkhead::engine::jit
