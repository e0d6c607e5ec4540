// A stack being written or read during a transfer of control, before the vCPU has switched to it.
#pragma once

#include <array>
#include <cstdint>

#include "engine/interpreter/cpu.h"

namespace bulkhead::engine {

struct StackTarget {
  cpu::Segment segment{};  // not looked at in 64-bit mode
  uint64_t pointer = 0;
  uint64_t mask = ~0ull;
  mmu::Rights rights = mmu::Rights::kSupervisor;
  uint32_t error_code = 0;  // of the #SS for a limit or a canonical address
  bool is_64 = false;

  // Address size of a stack with this segment, outside of 64-bit mode.
  static uint64_t mask_of(const cpu::Segment& segment) {
    return (segment.attributes & (1u << 14)) != 0 ? 0xFFFF'FFFF : 0xFFFF;
  }
  // The stack in use.
  static StackTarget current(const Cpu& cpu);
};

class StackFrame {
 public:
  explicit StackFrame(unsigned width) : width_(width) {}
  void push(uint64_t value) { values_[count_++] = value; }
  // Checks every element, then writes them. Returns the stack pointer afterwards, masked.
  uint64_t write(Cpu& cpu, const StackTarget& stack) const;
  void check(Cpu& cpu, const StackTarget& stack) const;

 private:
  // Linear address of the element that ends `depth` bytes below the pointer; #SS outside of the limit.
  uint64_t address_of(const StackTarget& stack, unsigned depth) const;

  unsigned width_;
  unsigned count_ = 0;
  std::array<uint64_t, 48> values_;
};

// The element `offset` bytes above the pointer.
uint64_t read_stack(Cpu& cpu, const StackTarget& stack, uint64_t offset, unsigned width);

}  // namespace bulkhead::engine
