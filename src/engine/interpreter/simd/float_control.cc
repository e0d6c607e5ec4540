// Vector floating-point control and exceptions. See float_control.h.
#include "engine/interpreter/simd/float_control.h"

#include <xmmintrin.h>

#include "engine/interpreter/simd/registers.h"

namespace bulkhead::engine::simd {
namespace {

[[noreturn]] void raise_float_error(Cpu& cpu, uint32_t flags) {
  add_float_flags(cpu, flags);
  raise((cpu.cr4 & kCr4Osxmmexcpt) != 0 ? kSimdError : kInvalidOpcode);
}

// The host's MXCSR while this lives. Nothing but a stub may compute meanwhile.
class GuestMxcsr {
 public:
  explicit GuestMxcsr(uint32_t value) { _mm_setcsr(value); }
  ~GuestMxcsr() { _mm_setcsr(kMxcsrReset); }
  GuestMxcsr(const GuestMxcsr&) = delete;
  GuestMxcsr& operator=(const GuestMxcsr&) = delete;
  [[nodiscard]] static uint32_t flags() { return _mm_getcsr() & kMxcsrFlags; }
};

uint32_t run_with(uint32_t control, StubFrame& frame, const void* stub, StubRunner runner) {
  const GuestMxcsr mxcsr(control);
  runner(&frame, stub);
  return GuestMxcsr::flags();
}

// With underflow unmasked a tiny result counts even when it is exact, and is never flushed to zero. Flushing to zero
// reports any tiny result, so a second run with it tells.
[[gnu::noinline]] uint32_t run_with_underflow_unmasked(StubFrame& frame, const void* stub, StubRunner runner,
                                                       uint32_t control) {
  StubFrame probe = frame;
  const uint32_t raised = run_with(control & ~uint32_t{kMxcsrFlushToZero}, frame, stub, runner);
  return raised | (run_with(control | kMxcsrFlushToZero, probe, stub, runner) & kMxcsrUnderflow);
}

}  // namespace

void add_float_flags(Cpu& cpu, uint32_t flags) {
  set_mxcsr(cpu, mxcsr(cpu) | (flags & kMxcsrFlags));
}

void leave_block_if_unmasked(Cpu& cpu) {
  if ((mxcsr(cpu) & kMxcsrMasks) != kMxcsrMasks) [[unlikely]]
    leave_block(cpu);
}

uint32_t run_float(Cpu& cpu, StubFrame& frame, const void* stub, StubRunner runner) {
  const uint32_t guest = mxcsr(cpu);
  // Nearly always the guest's control bits are those that C++ runs with. Then its flags may stay in the host's
  // register, where they mean nothing to C++: writing MXCSR costs more than most instructions.
  if ((guest & ~uint32_t{kMxcsrFlags}) == kMxcsrReset) [[likely]] {
    if (_mm_getcsr() != guest) _mm_setcsr(guest);
    runner(&frame, stub);
    return _mm_getcsr() & kMxcsrFlags & ~guest;
  }
  const uint32_t control = (guest & ~uint32_t{kMxcsrFlags}) | kMxcsrMasks;
  const uint32_t raised = (guest & kMxcsrUnderflowMask) != 0
                              ? run_with(control, frame, stub, runner)
                              : run_with_underflow_unmasked(frame, stub, runner, control);
  const uint32_t unmasked = raised & ~(guest >> kMxcsrMaskShift);
  if (unmasked != 0) [[unlikely]] {
    raise_float_error(cpu, (unmasked & kMxcsrBeforeComputation) != 0 ? raised & kMxcsrBeforeComputation : raised);
  }
  return raised;
}

}  // namespace bulkhead::engine::simd
