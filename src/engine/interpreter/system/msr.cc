// RDMSR, WRMSR, the time stamp counter, CPUID. Intel SDM 4 for the registers and their reserved bits.
#include <algorithm>

#include "cpu/model.h"
#include "engine/engine.h"
#include "engine/interpreter/system/handlers.h"
#include "engine/interpreter/system/kvm_clock.h"
#include "engine/interpreter/system/operand.h"

namespace bulkhead::engine {

uint64_t random_bits(Cpu& cpu) {
  return cpu.engine->random().next_u64();
}

}  // namespace bulkhead::engine

namespace bulkhead::engine::system {
namespace {

enum Msr : uint32_t {
  kTsc = 0x10,
  kPlatformId = 0x17,
  kApicBase = 0x1B,
  kSpecCtrl = 0x48,
  kPredCmd = 0x49,
  kMicrocode = 0x8B,
  kMtrrCap = 0xFE,
  kArchCapabilitiesMsr = 0x10A,
  kSysenterCs = 0x174,
  kSysenterEsp = 0x175,
  kSysenterEip = 0x176,
  kMcgCap = 0x179,
  kMcgStatus = 0x17A,
  kMcgCtl = 0x17B,
  kMiscEnable = 0x1A0,
  kMtrrVariable = 0x200,
  kMtrrVariableEnd = 0x20F,
  kMtrrFix64K = 0x250,
  kMtrrFix16K = 0x258,
  kMtrrFix16KEnd = 0x259,
  kMtrrFix4K = 0x268,
  kMtrrFix4KEnd = 0x26F,
  kPat = 0x277,
  kMtrrDefType = 0x2FF,
  kTscDeadline = 0x6E0,
  kX2apic = 0x800,
  kX2apicEnd = 0x8FF,
  kEfer = 0xC0000080,
  kStar = 0xC0000081,
  kLstar = 0xC0000082,
  kCstar = 0xC0000083,
  kSfmask = 0xC0000084,
  kFsBase = 0xC0000100,
  kGsBase = 0xC0000101,
  kKernelGsBase = 0xC0000102,
  kTscAux = 0xC0000103,
};

[[noreturn]] void refuse() {
  raise(kGeneralProtection, 0);
}

bool is_memory_type(uint8_t type) {
  return type <= 1 || (type >= 4 && type <= 7);
}

uint64_t* fixed_mtrr(Cpu& cpu, uint32_t index) {
  auto& fixed = cpu.cold.msr_mtrr_fixed;
  if (index == kMtrrFix64K) return &fixed[0];
  if (index >= kMtrrFix16K && index <= kMtrrFix16KEnd) return &fixed[1 + index - kMtrrFix16K];
  if (index >= kMtrrFix4K && index <= kMtrrFix4KEnd) return &fixed[3 + index - kMtrrFix4K];
  return nullptr;
}

// Registers that are plain values of cpu::State.
uint64_t* plain_register(Cpu& cpu, uint32_t index) {
  cpu::State& cold = cpu.cold;
  switch (index) {
    case kSysenterCs:
      return &cold.msr_sysenter_cs;
    case kSysenterEsp:
      return &cold.msr_sysenter_esp;
    case kSysenterEip:
      return &cold.msr_sysenter_eip;
    case kMiscEnable:
      return &cold.msr_misc_enable;
    case kPat:
      return &cold.msr_pat;
    case kMtrrDefType:
      return &cold.msr_mtrr_def_type;
    case kStar:
      return cpu.features.syscall ? &cold.msr_star : nullptr;
    case kLstar:
      return cpu.features.long_mode ? &cold.msr_lstar : nullptr;
    case kCstar:
      return cpu.features.long_mode ? &cold.msr_cstar : nullptr;
    case kSfmask:
      return cpu.features.syscall ? &cold.msr_sfmask : nullptr;
    case kKernelGsBase:
      return &cold.msr_kernel_gs_base;
    case kTscAux:
      return &cold.msr_tsc_aux;
    case kSpecCtrl:
      return cpu.features.spec_ctrl ? &cold.msr_spec_ctrl : nullptr;
    case kMsrKvmSystemTime:
      return &cold.msr_kvm_system_time;
    case kMsrKvmWallClock:
      return &cold.msr_kvm_wall_clock;
    default:
      break;
  }
  if (index >= kMtrrVariable && index <= kMtrrVariableEnd) return &cold.msr_mtrr_variable[index - kMtrrVariable];
  return fixed_mtrr(cpu, index);
}

bool is_apic_register(uint32_t index) {
  return index == kApicBase || index == kTscDeadline || (index >= kX2apic && index <= kX2apicEnd);
}

uint64_t guest_tsc(const Cpu& cpu) {
  return cpu.engine->clock().tsc() + cpu.cold.tsc_offset;
}

uint64_t read_register_of_apic(Cpu& cpu, uint32_t index) {
  const auto value = cpu.io->read_apic_msr(index);
  if (!value) refuse();
  return *value;
}

void write_register_of_apic(Cpu& cpu, uint32_t index, uint64_t value) {
  if (!cpu.io->write_apic_msr(index, value)) refuse();
}

uint64_t read_msr_value(Cpu& cpu, uint32_t index) {
  if (is_apic_register(index)) return read_register_of_apic(cpu, index);
  switch (index) {
    case kTsc:
      return guest_tsc(cpu);
    case kPlatformId:
    case kMicrocode:
    case kMcgCap:
    case kMcgStatus:
      return 0;
    case kMtrrCap:
      return 0x508;  // 8 variable ranges, fixed ranges, write-combining
    case kArchCapabilitiesMsr:
      if (!cpu.features.arch_capabilities) refuse();
      return cpu::kArchCapabilities;
    case kEfer:
      return cpu.efer;
    case kFsBase:
      return cpu.segments[cpu::kFs].base;
    case kGsBase:
      return cpu.segments[cpu::kGs].base;
    default:
      break;
  }
  const uint64_t* plain = plain_register(cpu, index);
  if (plain == nullptr) refuse();
  return *plain;
}

void write_efer(Cpu& cpu, uint64_t value) {
  uint64_t allowed = kEferLma;
  if (cpu.features.syscall) allowed |= kEferSce;
  if (cpu.features.long_mode) allowed |= kEferLme;
  if (cpu.features.nx) allowed |= kEferNxe;
  if ((value & ~allowed) != 0) refuse();
  if (((value ^ cpu.efer) & kEferLme) != 0 && (cpu.cr0 & kCr0Pg) != 0) refuse();
  value = (value & ~uint64_t{kEferLma}) | (cpu.efer & kEferLma);
  if (((value ^ cpu.efer) & kEferNxe) != 0) cpu.tlb.flush_all();
  cpu.efer = value;
  update_mode(cpu);
}

// #GP for values that the register cannot hold.
void check_plain_value(const Cpu& cpu, uint32_t index, uint64_t value) {
  switch (index) {
    case kLstar:
    case kCstar:
    case kKernelGsBase:
    case kSysenterEsp:
    case kSysenterEip:
      if (!is_canonical(value)) refuse();
      return;
    case kSfmask:
    case kTscAux:
      if (value >> 32 != 0) refuse();
      return;
    case kSpecCtrl:
      if ((value & ~7ull) != 0) refuse();
      return;
    case kPat:
      for (unsigned i = 0; i < 64; i += 8) {
        if (!is_memory_type(static_cast<uint8_t>(value >> i))) refuse();
      }
      return;
    case kMtrrDefType:
      if ((value & ~0xCFFull) != 0 || !is_memory_type(value & 0xFF) || (value & 0xFF) == 7) refuse();
      return;
    default:
      break;
  }
  if (index >= kMtrrVariable && index <= kMtrrVariableEnd) {
    const uint64_t free_bits = (index & 1) != 0 ? 0xFFFull & ~0x800ull : 0xF00;
    if ((value & (~cpu.physical_mask | free_bits)) != 0) refuse();
    if ((index & 1) == 0 && (!is_memory_type(value & 0xFF) || (value & 0xFF) == 7)) refuse();
  } else if (index >= kMtrrFix64K && index <= kMtrrFix4KEnd) {
    for (unsigned i = 0; i < 64; i += 8) {
      const auto type = static_cast<uint8_t>(value >> i);
      if (!is_memory_type(type) || type == 7) refuse();
    }
  }
}

void write_msr_value(Cpu& cpu, uint32_t index, uint64_t value) {
  if (is_apic_register(index)) return write_register_of_apic(cpu, index, value);
  switch (index) {
    case kTsc:
      cpu.cold.tsc_offset = value - cpu.engine->clock().tsc();
      cpu.io->set_tsc_offset(cpu.cold.tsc_offset);
      publish_system_time(cpu);
      return;
    case kMicrocode:
    case kMcgStatus:
      return;
    case kPredCmd:
      if (!cpu.features.spec_ctrl || (value & ~1ull) != 0) refuse();
      return;
    case kEfer:
      return write_efer(cpu, value);
    case kFsBase:
    case kGsBase:
      if (!is_canonical(value)) refuse();
      cpu.segments[index == kFsBase ? cpu::kFs : cpu::kGs].base = value;
      return;
    default:
      break;
  }
  uint64_t* plain = plain_register(cpu, index);
  if (plain == nullptr) refuse();
  check_plain_value(cpu, index, value);
  *plain = value;
  if (index == kMsrKvmSystemTime) publish_system_time(cpu);
  if (index == kMsrKvmWallClock) publish_wall_clock(cpu, value);
}

void set_edx_eax(Cpu& cpu, uint64_t value) {
  cpu.gpr[cpu::kRax] = static_cast<uint32_t>(value);
  cpu.gpr[cpu::kRdx] = value >> 32;
}

void check_tsc_privilege(const Cpu& cpu) {
  if ((cpu.cr4 & kCr4Tsd) != 0 && cpu.cpl > 0) refuse();
}

}  // namespace

void read_msr(Cpu& cpu, const Op&) {
  require_cpl0(cpu);
  ++cpu.counters.msr_accesses;
  set_edx_eax(cpu, read_msr_value(cpu, static_cast<uint32_t>(cpu.gpr[cpu::kRcx])));
}

void write_msr(Cpu& cpu, const Op&) {
  require_cpl0(cpu);
  ++cpu.counters.msr_accesses;
  const uint64_t value = cpu.gpr[cpu::kRdx] << 32 | static_cast<uint32_t>(cpu.gpr[cpu::kRax]);
  write_msr_value(cpu, static_cast<uint32_t>(cpu.gpr[cpu::kRcx]), value);
}

void read_tsc(Cpu& cpu, const Op&) {
  check_tsc_privilege(cpu);
  set_edx_eax(cpu, guest_tsc(cpu));
}

void read_tsc_and_id(Cpu& cpu, const Op&) {
  check_tsc_privilege(cpu);
  set_edx_eax(cpu, guest_tsc(cpu));
  cpu.gpr[cpu::kRcx] = processor_id(cpu);
}

void read_performance_counter(Cpu&, const Op&) {
  refuse();
}  // no counters: every index is wrong

void identify(Cpu& cpu, const Op&) {
  const auto leaf = static_cast<uint32_t>(cpu.gpr[cpu::kRax]);
  const auto subleaf = static_cast<uint32_t>(cpu.gpr[cpu::kRcx]);
  cpu::CpuidLeaf answer = cpu::look_up(cpu.engine->options().leaves[cpu.index], leaf, subleaf);
  if (leaf == 1) {
    // OSXSAVE follows CR4.
    answer.ecx = (answer.ecx & ~(1u << 27)) | ((cpu.cr4 & kCr4Osxsave) != 0 ? 1u << 27 : 0);
  } else if (leaf == 0xD && subleaf <= 1 && cpu.features.xsave) {
    // The size that XCR0 asks for now.
    if (subleaf == 0 || (answer.eax & 2) != 0) answer.ebx = (cpu.xcr0 & 4) != 0 ? 832 : 576;
  }
  cpu.gpr[cpu::kRax] = answer.eax;
  cpu.gpr[cpu::kRbx] = answer.ebx;
  cpu.gpr[cpu::kRcx] = answer.ecx;
  cpu.gpr[cpu::kRdx] = answer.edx;
}

void hypercall(Cpu& cpu, const Op&) {
  constexpr int64_t kNoSuchCall = -1000, kNotPermitted = -1;
  cpu.gpr[cpu::kRax] = static_cast<uint64_t>(cpu.cpl == 0 ? kNoSuchCall : kNotPermitted);
}

}  // namespace bulkhead::engine::system
