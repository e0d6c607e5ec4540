// The small world in which a text case runs: descriptor tables, TSS, page tables and one handler per vector at fixed
// addresses (tests/cases/README.md has the map), and the register state of each mode. Plain RAM and cpu::State, so that
// it serves any engine.
#pragma once

#include <cstdint>
#include <string_view>

#include "cpu/state.h"
#include "memory/guest_memory.h"
#include "support/result.h"

namespace bulkhead::instructions {

namespace environment {

inline constexpr uint64_t kGdt = 0x1000, kIdt = 0x2000, kTss = 0x3000, kHandlers = 0x6000, kKernelStack = 0x7F00;
inline constexpr uint64_t kSecondTss = 0x5800, kLdt = 0x5C00;
inline constexpr uint64_t kHandlerSize = 4;
// Code of 16 and 32-bit modes, which have no paging or identity paging.
inline constexpr uint64_t kLowCode = 0x1'0000, kLowData = 0x2'0000, kLowStack = 0x3'0000;
// Linear pages of 64-bit and compatibility mode, where the host's CPU has them as well.
inline constexpr uint64_t kHighCode = 0x1000'0000, kHighScratch = 0x2000'0000;
inline constexpr uint64_t kHighCodePhysical = 0x10'0000, kHighScratchPhysical = 0x20'0000;
// Pages of the paged modes with something special about them.
inline constexpr uint64_t kAbsentPage = 0x4'0000, kReadOnlyPage = 0x4'1000, kSupervisorPage = 0x4'2000,
                          kNoExecutePage = 0x4'3000;

// The physical address behind a linear one of the paged modes, which is what a case file names.
uint64_t physical_of(uint64_t linear);

// Writes everything but the case's own code and memory. compat or 64-bit: long-mode tables instead of 32-bit ones.
void build(memory::GuestMemory& memory, std::string_view mode);
// Registers of the mode at its first instruction; an error when there is no such mode.
Result<cpu::State> initial_state(std::string_view mode);

// Where the page tables of all modes but PAE's four pointers lie.
inline constexpr uint64_t kPageTables = 0x8000, kPageTablesEnd = 0x1'0000;

}  // namespace environment

}  // namespace bulkhead::instructions
