// The counters of one vCPU under the names that docs/run.md explains; they do not change from version to version.
#include <algorithm>
#include <functional>

#include <fmt/format.h>

#include "engine/soft_vcpu.h"

namespace bulkhead::engine {
namespace {

// "jit.handler.cpuid", "jit.slow.mov": which mnemonics translated code has called the interpreter for, the most
// frequent first, those below a thousandth of all calls left out.
void add_calls(cpu::Statistics& statistics, const jit::Jit::Counters& counters) {
  constexpr uint64_t kSmallestPart = 1000;
  const auto add = [&](const std::string& kind, uint64_t jit::Jit::Calls::* count) {
    cpu::Statistics each;
    uint64_t sum = 0;
    for (size_t i = 0; i < counters.calls.size(); ++i) {
      const uint64_t calls = counters.calls[i].*count;
      sum += calls;
      each.emplace_back(fmt::format("{}.{}", kind, decoder::mnemonic_name(static_cast<decoder::Mnemonic>(i))), calls);
    }
    statistics.emplace_back(kind, sum);
    std::ranges::sort(each, std::ranges::greater(), &cpu::Statistics::value_type::second);
    for (auto& entry : each)
      if (entry.second > sum / kSmallestPart) statistics.push_back(std::move(entry));
  };
  add("jit.handler", &jit::Jit::Calls::handler);
  add("jit.slow", &jit::Jit::Calls::slow);
}

}  // namespace

cpu::Statistics SoftVcpu::statistics() const {
  const Cpu::Counters& counters = cpu_.counters;
  cpu::Statistics statistics = {{"instructions", cpu_.instruction_count},
                                {"instructions.interpreted", counters.interpreted},
                                {"exits.mmio", counters.mmio_exits},
                                {"exits.port", counters.port_exits},
                                {"exits.halt", counters.halts},
                                {"exits.msr", counters.msr_accesses},
                                {"exceptions", counters.exceptions},
                                {"interrupts", counters.interrupts},
                                {"tlb.fills", cpu_.tlb.counters.fills},
                                {"tlb.flushes", cpu_.tlb.counters.flushes},
                                {"tlb.page_flushes", cpu_.tlb.counters.page_flushes},
                                {"blocks.built", counters.blocks_built},
                                {"blocks.lookups", counters.block_lookups},
                                {"blocks.rechecked", counters.blocks_stale},
                                {"blocks.code_writes", counters.code_writes}};
  if (jit_ == nullptr) return statistics;
  const jit::Jit::Counters& translated = jit_->counters();
  const auto exits = [&](jit::Exit kind) { return translated.exits[static_cast<size_t>(kind)]; };
  const cpu::Statistics more = {{"jit.blocks", translated.translations},
                                {"jit.guest_bytes", translated.guest_bytes},
                                {"jit.code_bytes", jit_->code_bytes()},
                                {"jit.native_instructions", translated.native_instructions},
                                {"jit.handler_instructions", translated.handler_instructions},
                                {"jit.resets", translated.resets},
                                {"jit.links", translated.links},
                                {"jit.unlinks", translated.unlinks},
                                {"jit.targets_cleared", translated.targets_cleared},
                                {"jit.entries", translated.entries},
                                {"jit.exits.attention", exits(jit::Exit::kLook)},
                                {"jit.exits.edge", exits(jit::Exit::kEdge)},
                                {"jit.exits.dispatch", exits(jit::Exit::kIndirect)},
                                {"jit.exits.fault", exits(jit::Exit::kFault)},
                                {"slots.places", jit_->places()},
                                {"slots.fills", cpu_.tlb.slots().fills()},
                                {"slots.clears", cpu_.tlb.slots().clears()},
                                {"slots.dropped", translated.slots_dropped},
                                {"jit.flags_wanted", translated.flags_wanted},
                                {"jit.flags_unwanted", translated.flags_unwanted}};
  statistics.insert(statistics.end(), more.begin(), more.end());
  add_calls(statistics, translated);
  return statistics;
}

}  // namespace bulkhead::engine
