#include "engine/interpreter/system/stack_frame.h"

#include "engine/interpreter/system/system.h"
#include "engine/mmu/access.h"

namespace bulkhead::engine {
namespace {

uint64_t checked_address(const StackTarget& stack, uint64_t offset, unsigned width) {
  if (stack.is_64) {
    if (!is_canonical(offset) || !is_canonical(offset + width - 1)) raise(kStackFault, stack.error_code);
    return offset;
  }
  const cpu::Segment& segment = stack.segment;
  const uint64_t last = offset + width - 1;
  const bool expands_down = (segment.attributes & 0xC) == 4;
  const uint64_t top = (segment.attributes & (1u << 14)) != 0 ? 0xFFFF'FFFF : 0xFFFF;
  const bool inside = expands_down ? offset > segment.limit && last <= top : last <= segment.limit;
  if (!inside) raise(kStackFault, stack.error_code);
  return static_cast<uint32_t>(segment.base + offset);
}

}  // namespace

StackTarget StackTarget::current(const Cpu& cpu) {
  return {.segment = cpu.segments[cpu::kSs],
          .pointer = cpu.gpr[cpu::kRsp],
          .mask = cpu.stack_mask(),
          .rights = cpu.rights,
          .error_code = 0,
          .is_64 = cpu.mode.code64()};
}

uint64_t StackFrame::address_of(const StackTarget& stack, unsigned depth) const {
  return checked_address(stack, (stack.pointer - depth) & stack.mask, width_);
}

void StackFrame::check(Cpu& cpu, const StackTarget& stack) const {
  for (unsigned i = 1; i <= count_; ++i) {
    (void)check_access_with(cpu, stack.rights, address_of(stack, i * width_), width_, MemoryAccess::kWrite);
  }
}

uint64_t StackFrame::write(Cpu& cpu, const StackTarget& stack) const {
  const unsigned size = count_ * width_;
  if (stack.is_64 && width_ == 8) [[likely]] {
    // All within one page that may be written: the usual exception frame.
    const uint64_t bottom = stack.pointer - size;
    const mmu::TlbEntry& entry = cpu.tlb.entry(bottom, stack.rights);
    if (bottom - entry.tag_write <= kPageSize - size) [[likely]] {
      auto* host = reinterpret_cast<uint8_t*>(bottom + entry.delta);
      for (unsigned i = 0; i < count_; ++i) store_word<uint64_t>(host + size - (i + 1) * 8, values_[i]);
      return bottom;
    }
  }
  check(cpu, stack);
  for (unsigned i = 0; i < count_; ++i) {
    const uint64_t address = address_of(stack, (i + 1) * width_);
    perform_write(cpu, check_access_with(cpu, stack.rights, address, width_, MemoryAccess::kWrite), &values_[i]);
  }
  return (stack.pointer - size) & stack.mask;
}

uint64_t read_stack(Cpu& cpu, const StackTarget& stack, uint64_t offset, unsigned width) {
  const uint64_t address = checked_address(stack, (stack.pointer + offset) & stack.mask, width);
  uint64_t value = 0;
  perform_read(cpu, check_access_with(cpu, stack.rights, address, width, MemoryAccess::kRead), &value);
  return value;
}

}  // namespace bulkhead::engine
