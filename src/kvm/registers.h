// Between cpu::State, the one plain value, and the structures in which the host kernel takes and gives a vCPU's state.
#pragma once

#include "cpu/state.h"
#include "kvm/system.h"
#include "support/time/clock.h"

namespace bulkhead::kvm {

// The vCPU behind vcpu_fd must not be running. Both include everything of cpu::State but activity and instruction_count,
// which the kernel does not know when the local APICs are ours, and cr8 (a register of the local APIC).
Result<cpu::State> read_state(const System& system, int vcpu_fd, const Clock& clock);
Result<> write_state(const System& system, int vcpu_fd, const Clock& clock, const cpu::State& state, uint64_t apic_base);

}  // namespace bulkhead::kvm
