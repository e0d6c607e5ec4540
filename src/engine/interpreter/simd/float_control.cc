// Vector floating-point control and exceptions. See float_control.h.
#include "engine/interpreter/simd/float_control.h"

#include "engine/interpreter/simd/registers.h"

namespace bulkhead::engine::simd {
namespace {

[[noreturn]] void raise_float_error(Cpu& cpu, uint32_t flags) {
  add_float_flags(cpu, flags);
  raise((cpu.cr4 & kCr4Osxmmexcpt) != 0 ? kSimdError : kInvalidOpcode);
}

// With underflow unmasked a tiny result counts even when it is exact, and is never flushed to zero. Flushing to zero reports
// any tiny result, so a second run with it tells.
[[gnu::noinline]] uint32_t run_with_underflow_unmasked(StubFrame& frame, const void* stub, StubRunner runner,
                                                       uint32_t control) {
  StubFrame probe = frame;
  frame.mxcsr = control & ~uint32_t{kMxcsrFlushToZero};
  runner(&frame, stub);
  probe.mxcsr = control | kMxcsrFlushToZero;
  runner(&probe, stub);
  return (frame.mxcsr & kMxcsrFlags) | (probe.mxcsr & kMxcsrUnderflow);
}

}  // namespace

void add_float_flags(Cpu& cpu, uint32_t flags) { set_mxcsr(cpu, mxcsr(cpu) | (flags & kMxcsrFlags)); }

uint32_t run_float(Cpu& cpu, StubFrame& frame, const void* stub, StubRunner runner) {
  const uint32_t guest = mxcsr(cpu);
  const uint32_t control = (guest & ~uint32_t{kMxcsrFlags}) | kMxcsrMasks;
  uint32_t raised;
  if ((guest & kMxcsrUnderflowMask) != 0) [[likely]] {
    frame.mxcsr = control;
    runner(&frame, stub);
    raised = frame.mxcsr & kMxcsrFlags;
  } else {
    raised = run_with_underflow_unmasked(frame, stub, runner, control);
  }
  const uint32_t unmasked = raised & ~(guest >> kMxcsrMaskShift);
  if (unmasked != 0) [[unlikely]] {
    raise_float_error(cpu, (unmasked & kMxcsrBeforeComputation) != 0 ? raised & kMxcsrBeforeComputation : raised);
  }
  return raised;
}

}  // namespace bulkhead::engine::simd
