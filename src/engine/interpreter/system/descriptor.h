// Segment, system and gate descriptors, and how they are read from the guest's tables. Intel SDM 3, 3.4.5, 3.5
// and 6.11.
#pragma once

#include <cstdint>

#include "engine/interpreter/cpu.h"

namespace bulkhead::engine {

enum SystemType : uint8_t {
  kTss16Available = 1,
  kLdt = 2,
  kTss16Busy = 3,
  kCallGate16 = 4,
  kTaskGate = 5,
  kInterruptGate16 = 6,
  kTrapGate16 = 7,
  kTss32Available = 9,
  kTss32Busy = 11,
  kCallGate32 = 12,
  kInterruptGate32 = 14,
  kTrapGate32 = 15,
};

struct Descriptor {
  uint64_t low = 0;   // all of a segment descriptor
  uint64_t high = 0;  // second half of the 16-byte ones of long mode

  [[nodiscard]] uint8_t type() const { return low >> 40 & 15; }
  [[nodiscard]] bool is_segment() const { return (low >> 44 & 1) != 0; }  // code or data
  [[nodiscard]] uint8_t dpl() const { return low >> 45 & 3; }
  [[nodiscard]] bool present() const { return (low >> 47 & 1) != 0; }
  [[nodiscard]] bool is_long() const { return (low >> 53 & 1) != 0; }
  [[nodiscard]] bool is_big() const { return (low >> 54 & 1) != 0; }

  [[nodiscard]] bool is_code() const { return is_segment() && (type() & 8) != 0; }
  [[nodiscard]] bool is_conforming() const { return is_code() && (type() & 4) != 0; }
  [[nodiscard]] bool is_readable() const { return is_segment() && ((type() & 8) == 0 || (type() & 2) != 0); }
  [[nodiscard]] bool is_writable() const { return is_segment() && (type() & 0xA) == 2; }

  [[nodiscard]] uint64_t base() const { return (low >> 16 & 0xFF'FFFF) | (low >> 32 & 0xFF00'0000); }
  [[nodiscard]] uint64_t base64() const { return base() | high << 32; }
  [[nodiscard]] uint32_t limit() const {
    const auto raw = static_cast<uint32_t>((low & 0xFFFF) | (low >> 32 & 0xF'0000));
    return (low >> 55 & 1) != 0 ? raw << 12 | 0xFFF : raw;
  }
  [[nodiscard]] uint32_t attributes() const { return static_cast<uint32_t>(low >> 40) & 0xF0FF; }

  // Gates.
  [[nodiscard]] uint16_t gate_selector() const { return static_cast<uint16_t>(low >> 16); }
  [[nodiscard]] uint64_t gate_offset() const { return (low & 0xFFFF) | (low >> 32 & 0xFFFF'0000); }
  [[nodiscard]] uint64_t gate_offset64() const { return gate_offset() | high << 32; }
  [[nodiscard]] uint8_t gate_ist() const { return low >> 32 & 7; }
  [[nodiscard]] uint8_t gate_parameter_count() const { return low >> 32 & 31; }
};

[[nodiscard]] constexpr bool is_null_selector(uint16_t selector) {
  return (selector & 0xFFFC) == 0;
}
[[nodiscard]] constexpr uint32_t selector_error(uint16_t selector) {
  return selector & 0xFFFCu;
}

// The 8 bytes that a selector names; `vector`(selector + external) when its table does not reach so far. The selector
// is not null.
Descriptor read_descriptor(Cpu& cpu, uint16_t selector, Vector vector, uint32_t external = 0);
// The same without a fault: false when the table does not reach.
[[nodiscard]] bool try_read_descriptor(Cpu& cpu, uint16_t selector, Descriptor& out);
// Adds the second 8 bytes of a system descriptor or call gate in long mode; #GP when its type field is not 0.
void read_upper_half(Cpu& cpu, uint16_t selector, Descriptor& descriptor, Vector vector, uint32_t external = 0);
// Sets the accessed bit (or, for a TSS, any type bits) in the table.
void set_accessed(Cpu& cpu, uint16_t selector, Descriptor& descriptor);
void change_type(Cpu& cpu, uint16_t selector, Descriptor& descriptor, uint8_t set, uint8_t clear);

[[nodiscard]] cpu::Segment to_segment(uint16_t selector, const Descriptor& descriptor);
[[nodiscard]] cpu::Segment null_segment(uint16_t selector, uint8_t dpl = 0);
// Real and virtual-8086 mode: base = selector * 16, the rest as it was (real) or fixed (virtual-8086).
void load_real_segment(Cpu& cpu, cpu::SegmentRegister segment, uint16_t selector);

// What accesses at another CPL may do, with the present CR4 and RFLAGS.
[[nodiscard]] mmu::Rights rights_at(const Cpu& cpu, uint8_t cpl);

// Checks of a stack segment for `cpl`, as in stack switches and returns (SDM 3, 5.8.5): null and wrong ones are
// `vector`(selector + external), absent ones #SS.
Descriptor check_stack_segment(Cpu& cpu, uint16_t selector, uint8_t cpl, Vector vector, uint32_t external = 0);

}  // namespace bulkhead::engine
