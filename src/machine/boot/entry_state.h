// The processor as boot protocols want it at a kernel's first instruction: flat segments, in protected or long mode.
// Also writes what that state needs in RAM: a descriptor table and, for long mode, page tables.
#pragma once

#include <cstdint>

#include "cpu/state.h"
#include "machine/boot/placement.h"
#include "memory/guest_memory.h"
#include "support/result.h"

namespace bulkhead::machine::boot {

// Where boot data small enough goes: above the real-mode vectors and data, below the extended BIOS data area.
inline constexpr uint64_t kBootDataStart = 0x1000;
inline constexpr uint64_t kBootDataEnd = 0x9'F000;

// Protected mode, paging off, interrupts off, flat 4 GiB segments: CS = 0x10, data 0x18, TR a TSS at 0.
Result<cpu::State> make_protected_mode_state(memory::GuestMemory& memory, Placement& placement, uint64_t entry);
// Long mode with the first 4 GiB mapped where they are.
Result<cpu::State> make_long_mode_state(memory::GuestMemory& memory, Placement& placement, uint64_t entry);

// What firmware sets on every processor before it boots anything: memory types (RAM write-back, the hole below 4 GiB
// uncacheable). Without it an operating system takes all memory for uncacheable.
void set_memory_types(cpu::State& state);

// Writes a range that the placement gave; fails only if that was not RAM.
Result<> write_ram(memory::GuestMemory& memory, uint64_t address, ByteSpan bytes);
Result<> clear_ram(memory::GuestMemory& memory, uint64_t address, uint64_t size);
// The string and a terminating zero, in the boot data area. Gives its address.
Result<uint64_t> place_string(memory::GuestMemory& memory, Placement& placement, std::string_view what,
                              std::string_view text);

}  // namespace bulkhead::machine::boot
