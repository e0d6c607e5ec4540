// One vCPU as the interpreter works on it: registers, the block being run, and access to memory. Instruction handlers are free
// functions on this struct, so everything they need is public. Nothing here knows host threads or devices; those are behind
// Vcpu (engine/soft_vcpu.h) and cpu::CpuIo.
//
// Faults: whatever can fault throws GuestFault *before* the instruction has changed anything (memory operands are probed for
// writing before a read-modify-write; multi-part accesses check every part first). The run loop catches it, sets RIP to the
// faulting instruction and delivers the exception. These exceptions never leave engine/.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "cpu/cpu_io.h"
#include "cpu/state.h"
#include "engine/mmu/tlb.h"
#include "memory/guest_memory.h"

namespace bulkhead::engine {

struct Op;
struct Block;
class Engine;

enum Vector : uint8_t {
  kDivideError = 0, kDebug = 1, kNmi = 2, kBreakpoint = 3, kOverflow = 4, kBoundRange = 5, kInvalidOpcode = 6,
  kDeviceNotAvailable = 7, kDoubleFault = 8, kInvalidTss = 10, kSegmentNotPresent = 11, kStackFault = 12,
  kGeneralProtection = 13, kPageFault = 14, kX87Error = 16, kAlignmentCheck = 17, kMachineCheck = 18, kSimdError = 19,
};

struct GuestFault {
  uint8_t vector;
  bool has_error_code = false;
  uint32_t error_code = 0;
  uint64_t cr2 = 0;  // page faults only
};

[[noreturn]] void raise(Vector vector);                           // without an error code: #UD, #DE, #NM, #MF, #XM, ...
[[noreturn]] void raise(Vector vector, uint32_t error_code);      // #GP, #SS, #NP, #TS, #AC, #DF
[[noreturn]] void raise_page_fault(uint64_t linear, uint32_t error_code);

// Arithmetic flags as LAHF and SETO leave them in AX: bits 15:8 = SF ZF 0 AF 0 PF 1 CF, bit 0 = OF. One 16-bit store an
// instruction, no laziness: the host's ALU has computed them anyway.
struct ArithmeticFlags {
  static constexpr uint16_t kCarry = 0x0100, kParity = 0x0400, kAdjust = 0x1000, kZero = 0x4000, kSign = 0x8000, kOverflow = 1;
  uint16_t ax = 0x0200;
  [[nodiscard]] bool carry() const { return ax & kCarry; }
  [[nodiscard]] bool parity() const { return ax & kParity; }
  [[nodiscard]] bool adjust() const { return ax & kAdjust; }
  [[nodiscard]] bool zero() const { return ax & kZero; }
  [[nodiscard]] bool sign() const { return ax & kSign; }
  [[nodiscard]] bool overflow() const { return ax & kOverflow; }
  // The six flags at their RFLAGS places, and back.
  [[nodiscard]] uint32_t to_rflags() const { return ((ax >> 8) & 0xD5u) | ((ax & 1u) << 11); }
  void from_rflags(uint64_t rflags) { ax = static_cast<uint16_t>(((rflags & 0xD5) | 2) << 8 | ((rflags >> 11) & 1)); }
};

// RFLAGS bits other than the arithmetic six.
enum RflagsBit : uint32_t {
  kFlagTrap = 1 << 8, kFlagInterrupt = 1 << 9, kFlagDirection = 1 << 10, kFlagIopl = 3 << 12, kFlagNestedTask = 1 << 14,
  kFlagResume = 1 << 16, kFlagVirtual8086 = 1 << 17, kFlagAlignmentCheck = 1 << 18, kFlagVirtualInterrupt = 1 << 19,
  kFlagVirtualInterruptPending = 1 << 20, kFlagId = 1 << 21,
};

// Everything that decides how bytes decode and how memory is reached; blocks are keyed by (physical address, mode).
struct ModeBits {
  uint32_t value = 0;
  friend bool operator==(ModeBits, ModeBits) = default;
};

// Set by any thread, looked at between blocks.
enum Attention : uint32_t {
  kAttentionInterrupt = 1, kAttentionNmi = 2, kAttentionInit = 4, kAttentionSipi = 8, kAttentionStop = 16,
  kAttentionFlush = 32,  // another thread asks for translations or TLB entries to be dropped
  kAttentionTrap = 64,   // own: single step, pending debug exception, interrupt shadow to count down
};

struct alignas(64) Cpu {
  // --- registers ---
  std::array<uint64_t, 16> gpr{};
  // Directly behind the registers, so that a pre-decoded address needs no branch to find its base: see Op::base.
  uint64_t zero = 0;       // stays 0: the base or index that an address lacks
  uint64_t block_rip = 0;  // RIP of the block's first instruction (offset within CS)
  uint64_t rip = 0;  // valid between blocks and in handlers of class control; inside a block see instruction_rip()
  ArithmeticFlags flags;
  uint32_t system_flags = 0;  // RFLAGS without the arithmetic six and bit 1
  uint8_t cpl = 0;

  // --- the block under way ---
  const Op* op = nullptr;     // the instruction being executed, for faults
  std::atomic<uint32_t> attention{0};

  // --- segments, tables, control ---
  std::array<cpu::Segment, cpu::kSegmentCount> segments{};
  cpu::Segment ldtr{}, tr{};
  cpu::DescriptorTable gdtr{}, idtr{};
  uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, xcr0 = 1, efer = 0;
  std::array<uint64_t, 4> dr{};
  uint64_t dr6 = 0xFFFF0FF0, dr7 = 0x400;
  ModeBits mode{};  // recomputed by update_mode() after any change of CR0, CR4, EFER, CS, CPL, RFLAGS.VM/AC
  bool interrupt_shadow = false, nmi_blocked = false;

  // MSRs, model, cold state: see cpu::State for names.
  cpu::State cold{};

  // x87, MMX, SSE and AVX live in XSAVE standard format, so that FXSAVE and XSAVE are copies and the host's own instructions
  // can load them. XMM i at xsave + 160 + 16 i, high halves of YMM i at xsave + 576 + 16 i, MXCSR at xsave + 24.
  alignas(64) std::array<uint8_t, 1024> xsave{};

  uint64_t instruction_count = 0;

  // --- wires ---
  Engine* engine = nullptr;
  cpu::CpuIo* io = nullptr;
  memory::GuestMemory* memory = nullptr;
  mmu::Tlb tlb;

  [[nodiscard]] uint64_t instruction_rip() const;  // of the instruction under way
  [[nodiscard]] uint64_t next_rip() const;         // behind it
  [[nodiscard]] bool long_mode() const { return efer & (1u << 10); }   // LMA
  [[nodiscard]] bool code64() const { return long_mode() && (segments[cpu::kCs].attributes & (1u << 13)); }
  [[nodiscard]] uint64_t rflags() const { return system_flags | flags.to_rflags() | 2; }
};

// --- memory, by segment and offset; T is uint8_t ... uint64_t or a 16/32-byte vector struct ---
// Segment limits, types, canonical addresses (#GP/#SS), paging (#PF), alignment when AC is on; data breakpoints; MMIO through
// CpuIo. read_modify_write accesses call probe_write first.
template <typename T> [[nodiscard]] T read_memory(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset);
template <typename T> void write_memory(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, const T& value);

}  // namespace bulkhead::engine
