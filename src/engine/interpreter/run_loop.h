// Runs a vCPU block after block, and between blocks looks at what wants attention: requests from other threads,
// interrupts, traps, single steps. The order of events is that of Intel SDM 3, table 6-2.
#pragma once

#include "cpu/model.h"
#include "cpu/state.h"
#include "cpu/vcpu.h"
#include "engine/interpreter/cpu.h"

namespace bulkhead::engine {

cpu::StopReason run_loop(Cpu& cpu);
// INIT and SIPI that have been asked for; between instructions or while the vCPU does not run.
void take_startup_requests(Cpu& cpu);

// The plain value and back; between runs only. Derived members are computed anew.
cpu::State save_state(const Cpu& cpu);
void load_state(Cpu& cpu, const cpu::State& state);
Cpu::Features model_features(const cpu::FeatureSet& features);

}  // namespace bulkhead::engine
