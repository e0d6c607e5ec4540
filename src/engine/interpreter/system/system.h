// The system side of the processor as other instruction families call it. Handlers of this family (system_handler() in
// integer/select_handler.h) cover: segment register loads and stores (MOV, LDS ... LGS; not PUSH and POP), descriptor
// tables and tasks, control and debug registers, MSRs, CPUID, TSC, IN and OUT (not INS and OUTS), interrupt flag and
// PUSHF/POPF, INT n, INT1, INT3, INTO, BOUND, IRET, far JMP, CALL and RET, SYSCALL ... SYSEXIT, HLT, cache and TLB
// control, SWAPGS, FS/GS base, CLAC, STAC, XGETBV, XSETBV, ARPL, VERR, VERW, LAR, LSL.
#pragma once

#include <cstdint>

#include "engine/interpreter/cpu.h"
#include "engine/interpreter/op.h"

namespace bulkhead::engine {

// Loads ES, SS, DS, FS or GS as MOV and POP do: real mode, virtual-8086, descriptor checks, accessed bit. Never CS (#UD
// is the caller's). After MOV SS and POP SS (not LSS) the caller adds hold_off_interrupts().
void load_segment(Cpu& cpu, cpu::SegmentRegister segment, uint16_t selector);
// No interrupt and no debug trap before the end of the next instruction.
void hold_off_interrupts(Cpu& cpu);

// The next instruction is at `target`, an offset in CS already truncated to the operand size: #GP(0) outside of the
// limit or not canonical, before any change.
inline bool is_canonical(uint64_t address) {
  return static_cast<uint64_t>(static_cast<int64_t>(address << 16) >> 16) == address;
}
inline void check_near_target(const Cpu& cpu, uint64_t target) {
  if (cpu.mode.code64() ? !is_canonical(target) : target > cpu.segments[cpu::kCs].limit) [[unlikely]] {
    raise(kGeneralProtection, 0);
  }
}
inline void jump_near(Cpu& cpu, uint64_t target) {
  check_near_target(cpu, target);
  cpu.rip = target;
}

// #GP(0) when IOPL and the TSS's bitmap do not allow the port to the present CPL. size is 1, 2 or 4.
void check_port(Cpu& cpu, uint16_t port, unsigned size);
// After check_port(); the access is made once. Counts I/O breakpoints.
uint32_t port_read(Cpu& cpu, uint16_t port, unsigned size);
void port_write(Cpu& cpu, uint16_t port, unsigned size, uint32_t value);

// True when the instruction must be the last of its block: it changes RIP, the mode, translations, or what may be
// delivered.
bool system_ends_block(const decoder::Instruction& instruction);

// The offset of the ModRM or moffs memory operand within its segment, truncated to the address size.
[[nodiscard]] inline uint64_t memory_offset(const Cpu& cpu, const Op& op) {
  const auto* registers = reinterpret_cast<const uint8_t*>(cpu.gpr.data());
  const auto base = *reinterpret_cast<const uint64_t*>(registers + op.base);
  const auto index = *reinterpret_cast<const uint64_t*>(registers + op.index);
  const uint64_t offset = base + (index << op.scale_log2) + static_cast<uint64_t>(op.displacement);
  switch (op.instruction->address_size) {
    case 8:
      return offset;
    case 4:
      return static_cast<uint32_t>(offset);
    default:
      return static_cast<uint16_t>(offset);
  }
}
[[nodiscard]] inline cpu::SegmentRegister memory_segment(const Op& op) {
  return static_cast<cpu::SegmentRegister>(op.segment);
}

// Of the machine: its randomness, for RDRAND and RDSEED.
uint64_t random_bits(Cpu& cpu);
// Value of RDPID and the low half of RDTSCP's ECX.
inline uint32_t processor_id(const Cpu& cpu) {
  return static_cast<uint32_t>(cpu.cold.msr_tsc_aux);
}

}  // namespace bulkhead::engine
