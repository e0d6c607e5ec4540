// Where translated code finds the vCPU's state: R15 points into the Cpu, so that what is used most is within 127 bytes
// of it; guest registers 0 to 11 live in host registers
// of the same number, but for RSP, which lives in R12; guest R12 to R15 stay in the Cpu; R13 and R14 are scratch.
#pragma once

#include "engine/interpreter/cpu.h"
#include "engine/jit/assembler.h"

namespace bulkhead::engine::jit {

inline constexpr Host kCpu = kR15, kScratch = kR13, kScratch2 = kR14;

// R15 is that far behind the Cpu's beginning.
inline constexpr int32_t kCpuOffset = 224;

// The host register of a guest register, or kNoHost when it stays in memory.
[[nodiscard]] constexpr Host host_of(uint8_t guest) {
  if (guest == cpu::kRsp) return kR12;
  return guest < 12 ? static_cast<Host>(guest) : kNoHost;
}

[[nodiscard]] inline Memory gpr(uint8_t guest) {
  return {kCpu, static_cast<int32_t>(guest * 8) - kCpuOffset};
}
// Of a member of the Cpu; which is not of standard layout, so offsetof is not for it.
template <typename T>
[[nodiscard]] Memory field(const Cpu& cpu, const T& member) {
  const auto offset = reinterpret_cast<const char*>(&member) - reinterpret_cast<const char*>(&cpu);
  return {kCpu, static_cast<int32_t>(offset) - kCpuOffset};
}

// The Cpu as the first argument of a call of C++.
inline void pass_cpu(Assembler& code) {
  code.lea(kRdi, {kCpu, -kCpuOffset});
}

}  // namespace bulkhead::engine::jit
