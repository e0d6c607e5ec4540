// The vector and x87 state as a whole: what is in use, and its way in and out of cpu::State.
#pragma once

#include <cstdint>

#include "cpu/state.h"
#include "engine/interpreter/cpu.h"

namespace bulkhead::engine::simd {

// Bits of XCR0, XSTATE_BV and the instruction masks.
enum StateComponent : uint64_t { kStateX87 = 1, kStateSse = 2, kStateAvx = 4, kStateAll = 7 };

// XINUSE: the components that differ from their initial configuration, a function of the registers alone. SSE counts as
// in use when MXCSR differs too.
uint64_t components_in_use(const Cpu& cpu);

// Makes the components what they are after RESET or XRSTOR without data. XMM and YMM registers from `count` up stay.
void initialise_components(Cpu& cpu, uint64_t components, unsigned count = 16);

// cpu::State's XSAVE area, standard format: a component whose XSTATE_BV bit is clear is in its initial configuration.
void import_state(Cpu& cpu, const cpu::State& state);
void export_state(const Cpu& cpu, cpu::State& state);

}  // namespace bulkhead::engine::simd
