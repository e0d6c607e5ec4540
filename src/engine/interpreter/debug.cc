#include "engine/interpreter/debug.h"

#include <algorithm>

#include "engine/soft_vcpu.h"

namespace bulkhead::engine {
namespace {

enum class Condition : uint8_t { kExecute = 0, kWrite = 1, kPort = 2, kReadWrite = 3 };

bool is_enabled(const Cpu& cpu, unsigned index) {
  return (cpu.dr7 >> (index * 2) & 3) != 0;
}
Condition condition_of(const Cpu& cpu, unsigned index) {
  return static_cast<Condition>(cpu.dr7 >> (16 + index * 4) & 3);
}
unsigned length_of(const Cpu& cpu, unsigned index) {
  constexpr unsigned kLengths[] = {1, 2, 8, 4};
  return kLengths[cpu.dr7 >> (18 + index * 4) & 3];
}

// A Cpu without a SoftVcpu (tests of single instructions) has no debugger.
const cpu::DebugRequest& debugger_of(const Cpu& cpu) {
  static const cpu::DebugRequest kNone;
  return cpu.vcpu != nullptr ? cpu.vcpu->debug() : kNone;
}

bool overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size) {
  return a - b < b_size || b - a < a_size;
}

}  // namespace

void update_watching(Cpu& cpu) {
  const cpu::DebugRequest& debugger = debugger_of(cpu);
  bool data = false;
  for (unsigned i = 0; i < 4 && (cpu.dr7 & 0xFF) != 0; ++i) {
    data |=
        is_enabled(cpu, i) && condition_of(cpu, i) != Condition::kExecute && condition_of(cpu, i) != Condition::kPort;
  }
  for (const auto& point : debugger.points) data |= point.kind != cpu::DebugRequest::Point::Kind::kExecute;
  const bool alignment = cpu.cpl == 3 && (cpu.cr0 & kCr0Am) != 0 && (cpu.system_flags & kFlagAlignmentCheck) != 0;
  cpu.checks_every_access = data || alignment;
  cpu.stepping =
      (cpu.system_flags & kFlagTrap) != 0 || (cpu.dr7 & 0xFF) != 0 || debugger.single_step || !debugger.points.empty();
  if (cpu.stepping) cpu.attention.fetch_or(kAttentionTrap);
}

void note_data_access(Cpu& cpu, uint64_t linear, unsigned size, bool writes) {
  for (unsigned i = 0; i < 4; ++i) {
    if (!is_enabled(cpu, i)) continue;
    const Condition condition = condition_of(cpu, i);
    if (condition != Condition::kReadWrite && !(condition == Condition::kWrite && writes)) continue;
    const unsigned length = length_of(cpu, i);
    if (overlaps(linear, size, cpu.dr[i] & ~uint64_t{length - 1}, length)) cpu.pending_debug |= 1u << i;
  }
  for (const auto& point : debugger_of(cpu).points) {
    using Kind = cpu::DebugRequest::Point::Kind;
    if (point.kind == Kind::kExecute || (point.kind == Kind::kWrite && !writes)) continue;
    if (overlaps(linear, size, point.address, point.size)) cpu.debugger_hit = true;
  }
}

void note_port_access(Cpu& cpu, uint16_t port, unsigned size) {
  if ((cpu.dr7 & 0xFF) == 0 || (cpu.cr4 & kCr4De) == 0) return;
  for (unsigned i = 0; i < 4; ++i) {
    if (!is_enabled(cpu, i) || condition_of(cpu, i) != Condition::kPort) continue;
    const unsigned length = length_of(cpu, i);
    if (overlaps(port, size, cpu.dr[i] & ~uint64_t{length - 1}, length)) cpu.pending_debug |= 1u << i;
  }
}

uint64_t code_breakpoints_at(const Cpu& cpu, uint64_t linear) {
  uint64_t hits = 0;
  for (unsigned i = 0; i < 4; ++i) {
    if (is_enabled(cpu, i) && condition_of(cpu, i) == Condition::kExecute && cpu.dr[i] == linear) hits |= 1u << i;
  }
  return hits;
}

void enter_debug_exception(Cpu& cpu, uint64_t dr6_bits) {
  // B0 to B3 are replaced; BS, BT and BD are only ever set by the processor.
  cpu.dr6 = (cpu.dr6 & ~0xFull) | dr6_bits;
  cpu.dr7 &= ~uint64_t{1 << 13};
}

}  // namespace bulkhead::engine
