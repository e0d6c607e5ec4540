#include "engine/interpreter/run_loop.h"

#include <optional>
#include <utility>

#include "engine/engine.h"
#include "engine/interpreter/block.h"
#include "engine/interpreter/debug.h"
#include "engine/interpreter/system/exceptions.h"
#include "engine/interpreter/system/system.h"
#include "engine/jit/jit.h"
#include "engine/jit/simd_state.h"
#include "engine/jit/x87_state.h"
#include "engine/soft_vcpu.h"

namespace bulkhead::engine {
namespace {

using cpu::Activity;
using cpu::StopReason;

[[nodiscard]] bool wants_attention(const Cpu& cpu) {
  return (cpu.attention.load(std::memory_order_relaxed) & cpu.attention_mask) != 0;
}

uint64_t code_linear(const Cpu& cpu) {
  const uint64_t linear = cpu.rip + cpu.code_base;
  return cpu.mode.code64() ? linear : static_cast<uint32_t>(linear);
}

// Outside of 64-bit mode, RIP beyond CS's limit is #GP(0) before anything is fetched.
void check_rip(const Cpu& cpu) {
  if (cpu.mode.code64() ? !is_canonical(cpu.rip) : cpu.rip > cpu.segments[cpu::kCs].limit) raise(kGeneralProtection, 0);
}

// The first `op_count` operations of a block, or fewer when one of them leaves it.
[[gnu::always_inline]] inline void execute(Cpu& cpu, Block& block, uint64_t op_count) {
  cpu.blocks->decode_again(block);
  const Op* op = block.ops;
  cpu.block_rip = cpu.rip;
  cpu.block_begin = op;
  cpu.block_end = op + op_count;
  cpu.rip += cpu.block_end[-1].end_offset;
  if (!cpu.mode.code64()) [[unlikely]]
    cpu.rip = static_cast<uint32_t>(cpu.rip);
  do {
    cpu.op = op;
    op->handler(cpu, *op);
    ++op;
  } while (op != cpu.block_end);
  cpu.instruction_count += static_cast<uint64_t>(cpu.block_end - cpu.block_begin);
  cpu.counters.interpreted += static_cast<uint64_t>(cpu.block_end - cpu.block_begin);
}

// The block at RIP, checked for CS's limit; or what BlockCache::find() says. Faults of the fetch leave op at nullptr.
Block* next_block(Cpu& cpu, uint64_t linear) {
  cpu.op = nullptr;
  check_rip(cpu);
  return cpu.blocks->find(cpu, linear);
}

[[nodiscard]] bool fits_limit(const Cpu& cpu, const Block& block) {
  return cpu.rip + block.length - 1 <= cpu.segments[cpu::kCs].limit;
}

[[gnu::always_inline]] inline bool is_current(Cpu& cpu, Block& block) {
  return block.version->load(std::memory_order_acquire) == block.made_at_version || cpu.blocks->is_current(cpu, block);
}

// Where translated code came back from, to be linked to what runs next.
struct OpenEdge {
  Block* from = nullptr;
  unsigned number = 0;
};

// Translations live as long as the blocks that they were made from, or until there is no room for more.
void forget_old_translations(Cpu& cpu) {
  if (cpu.jit == nullptr) return;
  if (cpu.jit->is_full()) cpu.blocks->drop_translations();
  if (cpu.jit->is_full() || cpu.jit->flush_count() != cpu.blocks->flush_count())
    cpu.jit->reset(cpu.blocks->flush_count());
}

// Runs the block's translation, made now if it is time. Nothing: the interpreter has to run it.
std::optional<jit::Exit> run_translated(Cpu& cpu, Block& block, OpenEdge& edge) {
  if (cpu.jit == nullptr || block.version->load(std::memory_order_acquire) != block.made_at_version)
    return std::nullopt;
  if (block.translation.code == nullptr) {
    if (!cpu.jit->is_hot(block)) return std::nullopt;
    cpu.jit->translate(block);
    if (cpu.jit->is_full()) {
      forget_old_translations(cpu);
      edge = {};
      cpu.jit->translate(block);
    }
    if (block.translation.code == nullptr) return std::nullopt;
  }
  if (block.translation.needs_masked_simd && !jit::masks_all_simd_exceptions(cpu)) return std::nullopt;
  if (block.translation.needs_masked_x87 && !jit::masks_all_x87_exceptions(cpu)) return std::nullopt;
  if (edge.from != nullptr) cpu.jit->link(*edge.from, edge.number, block);
  edge = {};
  const jit::Exit exit = cpu.jit->run(block);
  if (exit == jit::Exit::kEdge) edge = {cpu.jit_block, cpu.jit_edge};
  return exit;
}

// Until something wants attention. True: there is a fault, Cpu::jit_fault, to be delivered.
bool run_blocks(Cpu& cpu) {
  forget_old_translations(cpu);
  OpenEdge edge;
  uint64_t flush_count = cpu.blocks->flush_count();
  bool turned_away = false;
  while (!wants_attention(cpu)) {
    const uint64_t linear = code_linear(cpu);
    Block* block = cpu.blocks->remembered(linear, cpu.run_context);
    if (block == nullptr || !is_current(cpu, *block)) [[unlikely]] {
      // Nothing is fetched, from a device perhaps, for an instruction that is not to run now.
      if (cpu.instruction_count >= cpu.count_limit) {
        cpu.attention.fetch_or(kAttentionCount);
        return false;
      }
      block = next_block(cpu, linear);
      if (block == nullptr) return true;
      if (flush_count != cpu.blocks->flush_count()) {
        flush_count = cpu.blocks->flush_count();
        forget_old_translations(cpu);
        edge = {};
      }
    }
    if (!cpu.mode.code64() && !fits_limit(cpu, *block)) [[unlikely]] {
      cpu.op = nullptr;
      check_rip(cpu);
      block = cpu.blocks->make_single(cpu, linear);
    }
    if (cpu.instruction_count + block->op_count > cpu.count_limit) [[unlikely]] {
      if (cpu.instruction_count >= cpu.count_limit) {
        cpu.attention.fetch_or(kAttentionCount);
        return false;
      }
      execute(cpu, *block, cpu.count_limit - cpu.instruction_count);
      edge = {};
      continue;
    }
    const bool interprets = std::exchange(turned_away, false);
    if (const auto exit = interprets ? std::nullopt : run_translated(cpu, *block, edge)) {
      if (*exit == jit::Exit::kFault) return true;
      // Code of user mode turns away at an interrupt that is held off, too, and rounds of a loop at a limit that one of
      // them would not reach; both shall come on all the same.
      turned_away = *exit == jit::Exit::kLook;
    } else {
      edge = {};
      execute(cpu, *block, block->op_count);
    }
  }
  return false;
}

// Puts RIP back at the instruction that faulted and delivers the exception, which counts as an instruction: a handler
// whose first instruction faults again must come to every limit too. False: the processor shuts down.
bool take_fault(Cpu& cpu, const GuestFault& fault) {
  if (cpu.op != nullptr) {
    cpu.rip = cpu.instruction_rip();
    cpu.instruction_count += static_cast<uint64_t>(cpu.op - cpu.block_begin);
    cpu.op = nullptr;
  }
  cpu.pending_debug = 0;
  cpu.step_trap = false;
  ++cpu.counters.exceptions;
  if (!deliver_fault(cpu, fault)) return false;
  if (cpu.resume_at_count == cpu.instruction_count) ++cpu.resume_at_count;  // RF of a task that a gate led to
  ++cpu.instruction_count;
  return true;
}

bool resume_flag(const Cpu& cpu) {
  return (cpu.system_flags & kFlagResume) != 0 && cpu.resume_at_count == cpu.instruction_count;
}

// A point of the debugger outside of the guest.
bool debugger_stops_here(Cpu& cpu, uint64_t linear) {
  if (cpu.debugger_skips_at_count == cpu.instruction_count) return false;
  for (const auto& point : cpu.vcpu->debug().points) {
    if (point.kind == cpu::DebugRequest::Point::Kind::kExecute && point.address == linear) return true;
  }
  return false;
}

// The end of an instruction, or of the delivery of its fault: the debugger that steps looks at the handler.
std::optional<StopReason> stop_for_debugger(Cpu& cpu) {
  if (!cpu.debugger_hit && !cpu.vcpu->debug().single_step) return std::nullopt;
  cpu.debugger_hit = false;
  cpu.debugger_skips_at_count = cpu.instruction_count;
  return StopReason::kDebug;
}

// One instruction, with everything that is looked at around it.
std::optional<StopReason> step(Cpu& cpu) {
  cpu.op = nullptr;
  const uint64_t linear = code_linear(cpu);
  if (debugger_stops_here(cpu, linear)) {
    cpu.debugger_skips_at_count = cpu.instruction_count;
    return StopReason::kDebug;
  }
  const bool stack_shadow = cpu.stack_shadow_at_count == cpu.instruction_count;
  if (!resume_flag(cpu) && !stack_shadow) {
    if (const uint64_t hits = code_breakpoints_at(cpu, linear); hits != 0) {
      enter_debug_exception(cpu, hits);
      if (const auto stop = deliver_exception_or_stop(cpu, Event::debug_fault())) return stop;
      return stop_for_debugger(cpu);
    }
  }
  cpu.step_trap = (cpu.system_flags & kFlagTrap) != 0;
  try {
    check_rip(cpu);
    execute(cpu, *cpu.blocks->make_single(cpu, linear), 1);
  } catch (const GuestFault& fault) {
    return take_fault(cpu, fault) ? stop_for_debugger(cpu) : std::optional(StopReason::kShutdown);
  }
  cpu.op = nullptr;
  if (cpu.stack_shadow_at_count == cpu.instruction_count) return std::nullopt;  // traps wait for the next instruction
  const uint64_t bits = cpu.pending_debug | (cpu.step_trap ? uint64_t{kDr6SingleStep} : 0);
  cpu.pending_debug = 0;
  if (bits != 0) {
    enter_debug_exception(cpu, bits);
    if (const auto stop = deliver_exception_or_stop(cpu, Event::debug_trap())) return stop;
  }
  return stop_for_debugger(cpu);
}

void take_init(Cpu& cpu) {
  // INIT keeps the TSC, the x87 and SSE state, MSRs of the memory types and CR0.CD and NW (SDM 3, table 10-1).
  const cpu::State before = save_state(cpu);
  cpu::State state = cpu::reset_state(cpu.index);
  state.xsave = before.xsave;
  state.xcr0 = before.xcr0;
  state.tsc_offset = before.tsc_offset;
  state.cr0 = (before.cr0 & (kCr0Cd | kCr0Nw)) | kCr0Et;
  state.msr_mtrr_def_type = before.msr_mtrr_def_type;
  state.msr_mtrr_fixed = before.msr_mtrr_fixed;
  state.msr_mtrr_variable = before.msr_mtrr_variable;
  state.msr_pat = before.msr_pat;
  state.msr_kvm_system_time = before.msr_kvm_system_time;
  state.msr_kvm_wall_clock = before.msr_kvm_wall_clock;
  state.instruction_count = before.instruction_count;
  // The bootstrap processor runs on from the reset vector.
  state.activity = cpu.index == 0 ? Activity::kRunning : Activity::kWaitForSipi;
  load_state(cpu, state);
}

void take_sipi(Cpu& cpu) {
  const uint8_t vector = cpu.vcpu->sipi_vector();
  cpu.segments[cpu::kCs] = {.base = uint64_t{vector} << 12,
                            .limit = 0xFFFF,
                            .selector = static_cast<uint16_t>(vector << 8),
                            .attributes = 0x9B};
  cpu.rip = 0;
  cpu.activity = Activity::kRunning;
  update_mode(cpu);
}

bool take(Cpu& cpu, uint32_t attention) {
  if ((cpu.attention.load() & attention) == 0) return false;
  cpu.attention.fetch_and(~attention);
  return true;
}

// Waits while halted. Nothing: there is something to run or to look at.
std::optional<StopReason> wait_while_inactive(Cpu& cpu) {
  const uint32_t attention = cpu.attention.load();
  switch (cpu.activity) {
    case Activity::kRunning:
      return std::nullopt;
    case Activity::kShutdown:
      return StopReason::kShutdown;
    case Activity::kWaitForSipi:
      if (cpu.counted) return StopReason::kHalted;
      cpu.vcpu->wait(kAttentionSipi | kAttentionInit | kAttentionStop);
      return std::nullopt;
    case Activity::kHalted: {
      uint32_t wake = kAttentionInit | kAttentionStop;
      if (!cpu.nmi_blocked) wake |= kAttentionNmi;
      if ((cpu.system_flags & kFlagInterrupt) != 0) wake |= kAttentionInterrupt;
      if ((attention & wake) == 0) {
        if (cpu.counted) return StopReason::kHalted;
        ++cpu.counters.halts;
        cpu.vcpu->wait(wake);
      }
      return std::nullopt;
    }
  }
  return std::nullopt;
}

// Everything between two instructions but the instruction itself. Nothing: run on.
std::optional<StopReason> attend(Cpu& cpu) {
  cpu.op = nullptr;
  if (take(cpu, kAttentionFlush)) {
    cpu.engine->attend_flush(cpu);
    if (cpu.jit != nullptr) cpu.jit->look_at_code_changes(cpu.engine->code_changes());
  }
  take_startup_requests(cpu);
  if (take(cpu, kAttentionSite)) cpu.jit->drop_slot(cpu.jit_site);
  if (take(cpu, kAttentionStop)) return StopReason::kRequested;
  (void)take(cpu, kAttentionCount);
  if (cpu.instruction_count >= cpu.count_limit) return StopReason::kCountReached;
  if (cpu.activity != Activity::kRunning) {
    if (const auto stop = wait_while_inactive(cpu)) return stop;
  }
  if (cpu.activity == Activity::kWaitForSipi) return std::nullopt;
  const uint32_t attention = cpu.attention.load();

  const bool shadow =
      cpu.shadow_at_count == cpu.instruction_count || cpu.stack_shadow_at_count == cpu.instruction_count;
  if ((attention & kAttentionNmi) != 0 && !cpu.nmi_blocked && !shadow) {
    cpu.attention.fetch_and(~uint32_t{kAttentionNmi});
    cpu.activity = Activity::kRunning;
    cpu.nmi_blocked = true;
    update_mode(cpu);
    if (const auto stop = deliver_exception_or_stop(cpu, Event::nmi())) return stop;
  } else if ((attention & kAttentionInterrupt) != 0 && (cpu.system_flags & kFlagInterrupt) != 0 && !shadow) {
    if (const auto vector = cpu.io->acknowledge_interrupt()) {
      cpu.activity = Activity::kRunning;
      ++cpu.counters.interrupts;
      cpu.tlb.slots().refresh();
      if (const auto stop = deliver_exception_or_stop(cpu, Event::external(*vector))) return stop;
    }
    // Else the request went away, and its line with it; HLT goes on.
  }
  if (cpu.activity != Activity::kRunning) return std::nullopt;
  refresh_trap_attention(cpu);
  // One step where every step is looked at, in a shadow, and where a request cannot be met now: there is always
  // progress.
  if (cpu.stepping || wants_attention(cpu)) return step(cpu);
  return std::nullopt;
}

}  // namespace

void take_startup_requests(Cpu& cpu) {
  if (take(cpu, kAttentionInit)) take_init(cpu);
  if (take(cpu, kAttentionSipi) && cpu.activity == Activity::kWaitForSipi) {
    take_sipi(cpu);
  }
}

cpu::StopReason run_loop(Cpu& cpu) {
  if (const auto stop = deliver_pending_event(cpu)) return *stop;
  while (true) {
    try {
      if (wants_attention(cpu) || cpu.activity != Activity::kRunning) {
        if (const auto stop = attend(cpu)) return *stop;
        if (cpu.activity != Activity::kRunning) continue;
      }
      if (!cpu.stepping && run_blocks(cpu) && !take_fault(cpu, cpu.jit_fault)) return StopReason::kShutdown;
    } catch (const GuestFault& fault) {
      if (!take_fault(cpu, fault)) return StopReason::kShutdown;
    }
  }
}

}  // namespace bulkhead::engine
