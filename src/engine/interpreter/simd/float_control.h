// MXCSR: what the host runs with in the guest's stead, and what the flags it raises mean to the guest. The host always
// runs with every exception masked, so no SIGFPE can arise. Intel SDM volume 1, 11.5.
//
// Flags of an instruction with an unmasked exception, as processors were seen to set them: an unmasked #I, #D or #Z
// keeps the results from being computed, so that only #I, #D and #Z of all elements are set; else all flags of all
// elements. One difference from hardware is known: the precision flag beside an unmasked overflow or underflow is that
// of the masked response, which is set more often than it need be (the result would have been exact with a wider
// exponent).
#pragma once

#include <cstdint>

#include "engine/interpreter/cpu.h"
#include "engine/interpreter/simd/stubs.h"

namespace bulkhead::engine::simd {

enum MxcsrBit : uint32_t {
  kMxcsrInvalid = 1,
  kMxcsrDenormal = 2,
  kMxcsrZeroDivide = 4,
  kMxcsrOverflow = 8,
  kMxcsrUnderflow = 16,
  kMxcsrPrecision = 32,
  kMxcsrFlags = 0x3F,
  kMxcsrBeforeComputation = 7,
  kMxcsrDenormalsAreZero = 1 << 6,
  kMxcsrMasks = 0x1F80,
  kMxcsrMaskShift = 7,
  kMxcsrUnderflowMask = 1 << 11,
  kMxcsrFlushToZero = 1 << 15,
  kMxcsrReset = 0x1F80,
  kMxcsrWritable = 0xFFFF,  // shown as MXCSR_MASK
};

using StubRunner = void (*)(StubFrame* frame, const void* stub);

// Runs a stub that depends on MXCSR with the guest's rounding and denormal control. Raises #XM (#UD while
// CR4.OSXMMEXCPT is clear) for an unmasked exception, with MXCSR's flags set. Else gives flags that the caller adds to
// MXCSR with add_float_flags() when nothing can fault any more.
[[nodiscard]] uint32_t run_float(Cpu& cpu, StubFrame& frame, const void* stub, StubRunner runner);
void add_float_flags(Cpu& cpu, uint32_t flags);
// With every instruction that loads MXCSR: translated code takes exceptions to be masked until its block ends.
void leave_block_if_unmasked(Cpu& cpu);

}  // namespace bulkhead::engine::simd
