// The paravirtual clock that Linux knows as kvm-clock: a formula from the TSC to the nanoseconds of the machine's life,
// in guest RAM. Linux, Documentation/virt/kvm/x86/msr.rst.
#pragma once

#include "engine/interpreter/cpu.h"

namespace bulkhead::engine {

inline constexpr uint32_t kMsrKvmWallClock = 0x4B564D00, kMsrKvmSystemTime = 0x4B564D01;

// Writes the structure to where MSR_KVM_SYSTEM_TIME_NEW points, when that is enabled. Again after the TSC offset has
// changed.
void publish_system_time(Cpu& cpu);
// Wall-clock time at power-on, to this guest-physical address.
void publish_wall_clock(Cpu& cpu, uint64_t address);

}  // namespace bulkhead::engine
