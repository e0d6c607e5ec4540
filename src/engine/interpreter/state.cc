// A vCPU's registers from and to the plain value that every engine shares (cpu/state.h).
#include <algorithm>
#include <cstring>

#include "engine/interpreter/run_loop.h"
#include "engine/interpreter/simd/state.h"
#include "engine/interpreter/system/kvm_clock.h"
#include "engine/mmu/page_walk.h"

namespace bulkhead::engine {

Cpu::Features model_features(const cpu::FeatureSet& features) {
  return {.pcid = features.has("pcid"),
          .smep = features.has("smep"),
          .smap = features.has("smap"),
          .umip = features.has("umip"),
          .fsgsbase = features.has("fsgsbase"),
          .xsave = features.has("xsave"),
          .avx = features.has("avx"),
          .nx = features.has("nx"),
          .syscall = features.has("syscall"),
          .long_mode = features.has("lm"),
          .spec_ctrl = features.has("spec_ctrl"),
          .arch_capabilities = features.has("arch_capabilities")};
}

cpu::State save_state(const Cpu& cpu) {
  cpu::State state = cpu.cold;
  state.gpr = cpu.gpr;
  state.rip = cpu.rip;
  const bool resumes = cpu.resume_at_count == cpu.instruction_count;
  state.rflags = resumes ? cpu.rflags() : cpu.rflags() & ~uint64_t{kFlagResume};
  state.segments = cpu.segments;
  state.ldtr = cpu.ldtr;
  state.tr = cpu.tr;
  state.gdtr = cpu.gdtr;
  state.idtr = cpu.idtr;
  state.cr0 = cpu.cr0;
  state.cr2 = cpu.cr2;
  state.cr3 = cpu.cr3;
  state.cr4 = cpu.cr4;
  if (cpu.io != nullptr) state.cr8 = cpu.io->read_task_priority();
  state.xcr0 = cpu.xcr0;
  state.efer = cpu.efer;
  state.dr = cpu.dr;
  state.dr6 = cpu.dr6;
  state.dr7 = cpu.dr7;
  state.activity = cpu.activity;
  state.interrupt_shadow =
      cpu.shadow_at_count == cpu.instruction_count || cpu.stack_shadow_at_count == cpu.instruction_count;
  state.nmi_blocked = cpu.nmi_blocked;
  state.nmi_pending = (cpu.attention.load() & kAttentionNmi) != 0;
  state.instruction_count = cpu.instruction_count;
  simd::export_state(cpu, state);
  return state;
}

void load_state(Cpu& cpu, const cpu::State& state) {
  cpu.cold = state;
  cpu.gpr = state.gpr;
  cpu.rip = state.rip;
  cpu.op = nullptr;
  cpu.instruction_count = state.instruction_count;
  cpu.segments = state.segments;
  cpu.ldtr = state.ldtr;
  cpu.tr = state.tr;
  cpu.gdtr = state.gdtr;
  cpu.idtr = state.idtr;
  cpu.cr0 = state.cr0;
  cpu.cr2 = state.cr2;
  cpu.cr3 = state.cr3;
  cpu.cr4 = state.cr4;
  cpu.xcr0 = state.xcr0;
  cpu.efer = state.efer;
  cpu.dr = state.dr;
  cpu.dr6 = state.dr6;
  cpu.dr7 = state.dr7;
  cpu.activity = state.activity;
  cpu.shadow_at_count = state.interrupt_shadow ? state.instruction_count : ~0ull;
  cpu.stack_shadow_at_count = ~0ull;
  cpu.resume_at_count = ~0ull;
  cpu.debugger_skips_at_count = ~0ull;
  cpu.nmi_blocked = state.nmi_blocked;
  cpu.attention.fetch_and(~uint32_t{kAttentionTrap});
  if (state.nmi_pending) cpu.attention.fetch_or(kAttentionNmi);
  cpu.pending_debug = 0;
  cpu.step_trap = false;
  simd::import_state(cpu, state);
  // SS.DPL is the CPL wherever a segment is loaded; virtual-8086 mode is always 3, real mode 0.
  cpu.system_flags = static_cast<uint32_t>(state.rflags);
  if ((state.cr0 & kCr0Pe) == 0) {
    cpu.cpl = 0;
  } else {
    cpu.cpl =
        (state.rflags & kFlagVirtual8086) != 0 ? 3 : static_cast<uint8_t>(state.segments[cpu::kSs].attributes >> 5 & 3);
  }
  cpu.tlb.flush_all();
  cpu.tlb.switch_pcid((state.cr4 & kCr4Pcide) != 0 ? static_cast<uint16_t>(state.cr3 & 0xFFF) : uint16_t{0});
  if (mmu::uses_pdptes(state.cr0, state.cr4, state.efer)) (void)mmu::load_pdptes(cpu, state.cr3);
  set_rflags(cpu, state.rflags);
  update_mode(cpu);
}

}  // namespace bulkhead::engine
