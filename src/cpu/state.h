// The architectural state of one vCPU as one plain value, the same for every engine: what get_state() gives under KVM,
// set_state() takes under the soft engine. Names and layouts follow the Intel SDM, volume 3.
#pragma once

#include <array>
#include <cstdint>

#include "support/result.h"
#include "support/state/state.h"

namespace bulkhead::cpu {

// Numbering of the instruction encoding.
enum Register : uint8_t {
  kRax,
  kRcx,
  kRdx,
  kRbx,
  kRsp,
  kRbp,
  kRsi,
  kRdi,
  kR8,
  kR9,
  kR10,
  kR11,
  kR12,
  kR13,
  kR14,
  kR15
};
enum SegmentRegister : uint8_t { kEs, kCs, kSs, kDs, kFs, kGs, kSegmentCount };

struct Segment {
  uint64_t base = 0;
  uint32_t limit = 0xFFFF;  // in bytes, granularity applied
  uint16_t selector = 0;
  // Bits 8 to 15 and 20 to 23 of the descriptor's second doubleword, at those places shifted right by 8: type in bits
  // 3:0, S bit 4, DPL 6:5, P bit 7, AVL bit 12, L bit 13, D/B bit 14, G bit 15; bit 16 set = unusable (null selector).
  uint32_t attributes = 0x93;

  static constexpr uint32_t kUnusable = 1u << 16;
  friend bool operator==(const Segment&, const Segment&) = default;
};

struct DescriptorTable {
  uint64_t base = 0;
  uint16_t limit = 0xFFFF;
  friend bool operator==(const DescriptorTable&, const DescriptorTable&) = default;
};

enum class Activity : uint8_t { kRunning, kHalted, kWaitForSipi, kShutdown };

// An event accepted but not yet delivered through the IDT, or being delivered when the vCPU stopped.
struct PendingEvent {
  enum class Kind : uint8_t { kNone, kExternalInterrupt, kNmi, kException, kSoftwareInterrupt };
  Kind kind = Kind::kNone;
  uint8_t vector = 0;
  bool has_error_code = false;
  uint32_t error_code = 0;
  friend bool operator==(const PendingEvent&, const PendingEvent&) = default;
};

// XSAVE area in standard (non-compacted) format: legacy 512 bytes, header 64 bytes, AVX at 576 (256 bytes), rest
// reserved.
inline constexpr size_t kXsaveAreaSize = 4096;

struct State {
  std::array<uint64_t, 16> gpr{};
  uint64_t rip = 0;
  uint64_t rflags = 2;
  std::array<Segment, kSegmentCount> segments{};
  Segment ldtr{};
  Segment tr{};
  DescriptorTable gdtr{};
  DescriptorTable idtr{};
  uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, cr8 = 0;
  uint64_t xcr0 = 1;
  uint64_t efer = 0;
  std::array<uint64_t, 4> dr{};
  uint64_t dr6 = 0xFFFF0FF0, dr7 = 0x400;

  uint64_t msr_star = 0, msr_lstar = 0, msr_cstar = 0, msr_sfmask = 0, msr_kernel_gs_base = 0, msr_tsc_aux = 0;
  uint64_t msr_sysenter_cs = 0, msr_sysenter_esp = 0, msr_sysenter_eip = 0;
  uint64_t msr_pat = 0x0007040600070406, msr_misc_enable = 1, msr_spec_ctrl = 0;
  uint64_t msr_mtrr_def_type = 0;
  std::array<uint64_t, 11> msr_mtrr_fixed{};     // 250, 258, 259, 268-26F
  std::array<uint64_t, 16> msr_mtrr_variable{};  // base and mask of 8 ranges
  uint64_t msr_kvm_wall_clock = 0, msr_kvm_system_time = 0;

  // Guest TSC = Clock::tsc() + tsc_offset.
  uint64_t tsc_offset = 0;

  Activity activity = Activity::kRunning;
  bool interrupt_shadow = false;  // STI or MOV SS holds interrupts off for one instruction
  bool nmi_blocked = false;       // from NMI delivery to IRET
  bool nmi_pending = false;
  PendingEvent event{};
  uint64_t instruction_count = 0;  // retired by the soft engine; kept as it is by KVM

  alignas(64) std::array<uint8_t, kXsaveAreaSize> xsave{};

  friend bool operator==(const State&, const State&) = default;
};

// What RESET# leaves (SDM 3, table 10-1). vCPU 0 is the bootstrap processor, the others wait for SIPI. Feature bits of
// EDX come from CPUID and are left 0 here.
State reset_state(uint32_t vcpu_index);

void save(const State& state, StateWriter& writer);
// Checks every value against what a processor can hold (reserved bits, canonical addresses, enum ranges).
Result<State> restore(const StateReader& reader);

}  // namespace bulkhead::cpu
