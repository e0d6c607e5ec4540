// SYSCALL, SYSRET, SYSENTER, SYSEXIT: transfers between CPL 3 and 0 that read no descriptor. Intel SDM 2 and 3, 5.8.7
// and 5.8.8.
#include "engine/interpreter/system/handlers.h"
#include "engine/interpreter/system/operand.h"

namespace bulkhead::engine::system {
namespace {

constexpr uint32_t kLongCode = 0xA09B, kFlatCode = 0xC09B, kFlatData = 0xC093, kUserDpl = 0x60;

cpu::Segment flat(uint64_t selector, uint32_t attributes) {
  return {.base = 0, .limit = 0xFFFF'FFFF, .selector = static_cast<uint16_t>(selector), .attributes = attributes};
}

void enter(Cpu& cpu, uint8_t cpl, const cpu::Segment& code, const cpu::Segment& stack) {
  cpu.cpl = cpl;
  cpu.segments[cpu::kCs] = code;
  cpu.segments[cpu::kSs] = stack;
}

}  // namespace

void syscall(Cpu& cpu, const Op&) {
  if (!cpu.code64() || (cpu.efer & kEferSce) == 0) raise(kInvalidOpcode);
  const uint64_t rflags = cpu.rflags() & ~uint64_t{kFlagResume};
  cpu.gpr[cpu::kRcx] = cpu.next_rip();
  cpu.gpr[cpu::kR11] = rflags;
  const uint64_t selector = cpu.cold.msr_star >> 32 & 0xFFFC;
  enter(cpu, 0, flat(selector, kLongCode), flat(selector + 8, kFlatData));
  const uint64_t kept = rflags & ~cpu.cold.msr_sfmask;
  cpu.flags.from_rflags(kept);
  cpu.system_flags &= ~(static_cast<uint32_t>(cpu.cold.msr_sfmask) | kFlagResume);
  cpu.step_trap = cpu.step_trap && (cpu.system_flags & kFlagTrap) != 0;
  cpu.rip = cpu.cold.msr_lstar;
  update_mode(cpu);
}

void sysret(Cpu& cpu, const Op& op) {
  if (!cpu.code64() || (cpu.efer & kEferSce) == 0) raise(kInvalidOpcode);
  require_cpl0(cpu);
  const bool to_long = op.instruction->operand_size == 8;
  const uint64_t target = to_long ? cpu.gpr[cpu::kRcx] : static_cast<uint32_t>(cpu.gpr[cpu::kRcx]);
  // Intel's choice: the fault is taken here, still at CPL 0 and on the caller's stack.
  if (!is_canonical(target)) raise(kGeneralProtection, 0);
  const uint64_t star = cpu.cold.msr_star >> 48;
  const uint64_t code = (to_long ? star + 16 : star) | 3;
  enter(cpu, 3, flat(code, (to_long ? kLongCode : kFlatCode) | kUserDpl), flat((star + 8) | 3, kFlatData | kUserDpl));
  const uint64_t rflags = cpu.gpr[cpu::kR11];
  constexpr uint32_t kLoaded = 0x3C7FD5;  // all but RF, VM and the reserved ones
  cpu.flags.from_rflags(rflags);
  cpu.system_flags = static_cast<uint32_t>(rflags) & kLoaded & ~0x8D5u;
  cpu.rip = target;
  update_mode(cpu);
}

void sysenter(Cpu& cpu, const Op&) {
  const uint64_t selector = cpu.cold.msr_sysenter_cs & 0xFFFC;
  if ((cpu.cr0 & kCr0Pe) == 0 || selector == 0) raise(kGeneralProtection, 0);
  enter(cpu, 0, flat(selector, cpu.long_mode() ? kLongCode : kFlatCode), flat(selector + 8, kFlatData));
  cpu.system_flags &= ~(kFlagVirtual8086 | kFlagInterrupt | kFlagResume);
  const uint64_t mask = cpu.long_mode() ? ~0ull : 0xFFFF'FFFFull;
  cpu.gpr[cpu::kRsp] = cpu.cold.msr_sysenter_esp & mask;
  cpu.rip = cpu.cold.msr_sysenter_eip & mask;
  update_mode(cpu);
}

void sysexit(Cpu& cpu, const Op& op) {
  const uint64_t selector = cpu.cold.msr_sysenter_cs & 0xFFFC;
  if ((cpu.cr0 & kCr0Pe) == 0 || cpu.cpl != 0 || selector == 0) raise(kGeneralProtection, 0);
  const bool to_long = cpu.code64() && op.instruction->operand_size == 8;
  uint64_t rip = cpu.gpr[cpu::kRdx], rsp = cpu.gpr[cpu::kRcx];
  if (to_long && (!is_canonical(rip) || !is_canonical(rsp))) raise(kGeneralProtection, 0);
  if (!to_long) {
    rip = static_cast<uint32_t>(rip);
    rsp = static_cast<uint32_t>(rsp);
  }
  const uint64_t code = (selector + (to_long ? 32 : 16)) | 3;
  enter(cpu, 3, flat(code, (to_long ? kLongCode : kFlatCode) | kUserDpl), flat(code + 8, kFlatData | kUserDpl));
  cpu.gpr[cpu::kRsp] = rsp;
  cpu.rip = rip;
  update_mode(cpu);
}

}  // namespace bulkhead::engine::system
