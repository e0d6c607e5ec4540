// Between cpu::State, the one plain value, and the structures in which the host kernel takes and gives a vCPU's state.
#pragma once

#include <optional>

#include "cpu/state.h"
#include "kvm/system.h"

namespace bulkhead::kvm {

// The vCPU behind vcpu_fd must not be running. Both include everything of cpu::State but activity and
// instruction_count, which the kernel does not know when the local APICs are ours, cr8 (a register of the local APIC),
// and tsc_offset.
Result<cpu::State> read_state(const System& system, int vcpu_fd);
Result<> write_state(const System& system, int vcpu_fd, const cpu::State& state, uint64_t apic_base);

// Guest TSC = host TSC + this. Nothing where the host kernel does not tell.
std::optional<uint64_t> read_kernel_tsc_offset(int vcpu_fd);
Result<> write_kernel_tsc_offset(int vcpu_fd, uint64_t offset);

}  // namespace bulkhead::kvm
