// The host's own CPU as the oracle for user-mode instructions: one instruction runs natively with given registers,
// between two pages of scratch memory, and what it did comes back. Only one may exist in a process, which must be
// single-threaded while an instruction runs. Not for instructions that would leave user mode, change segments or debug
// state.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "instructions/registers.h"
#include "support/result.h"

namespace bulkhead::instructions {

// Both the host's CPU and the guest see code and scratch memory at these linear addresses, below 2 GiB so that every
// form of address reaches them. The pages around them are not mapped.
inline constexpr uint64_t kCodeAddress = 0x1000'0000;
inline constexpr uint64_t kScratchAddress = 0x2000'0000;
inline constexpr uint64_t kScratchSize = 0x2000;
// Branches that are taken go here.
inline constexpr uint64_t kTakenAddress = kCodeAddress + 0x80;

enum class Exit : uint8_t { kNext, kTaken, kFault };

class HostCpu {
 public:
  static Result<std::unique_ptr<HostCpu>> create();
  ~HostCpu();
  HostCpu(const HostCpu&) = delete;
  HostCpu& operator=(const HostCpu&) = delete;

  [[nodiscard]] std::span<uint8_t, kScratchSize> scratch();

  // Runs the instruction at kCodeAddress; registers.rip becomes the address of what would run next, or of the
  // instruction when it faulted.
  Outcome run(std::span<const uint8_t> instruction, Registers& registers);

  // The base of GS while instructions run; FS stays the host's.
  [[nodiscard]] bool set_gs_base(uint64_t base);

 private:
  HostCpu() = default;
};

}  // namespace bulkhead::instructions
