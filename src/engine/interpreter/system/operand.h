// Operands of system instructions: registers by their byte offset in Cpu, sizes by value. None of them is hot enough to
// be worth a specialised handler.
#pragma once

#include <cstdint>
#include <cstring>

#include "engine/interpreter/cpu.h"
#include "engine/interpreter/op.h"
#include "engine/interpreter/system/system.h"
#include "engine/mmu/access.h"

namespace bulkhead::engine {

[[nodiscard]] inline uint64_t read_register(const Cpu& cpu, uint8_t offset, unsigned size) {
  uint64_t value = 0;
  std::memcpy(&value, reinterpret_cast<const uint8_t*>(cpu.gpr.data()) + offset, size);
  return value;
}
// 4-byte results clear the upper half, as everywhere in 64-bit mode.
inline void write_register(Cpu& cpu, uint8_t offset, unsigned size, uint64_t value) {
  if (size == 4) {
    value = static_cast<uint32_t>(value);
    size = 8;
  }
  std::memcpy(reinterpret_cast<uint8_t*>(cpu.gpr.data()) + offset, &value, size);
}
[[nodiscard]] inline uint64_t read_sized(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, unsigned size) {
  switch (size) {
    case 1:
      return read<uint8_t>(cpu, segment, offset);
    case 2:
      return read<uint16_t>(cpu, segment, offset);
    case 4:
      return read<uint32_t>(cpu, segment, offset);
    default:
      return read<uint64_t>(cpu, segment, offset);
  }
}
inline void write_sized(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, unsigned size, uint64_t value) {
  switch (size) {
    case 1:
      return write<uint8_t>(cpu, segment, offset, static_cast<uint8_t>(value));
    case 2:
      return write<uint16_t>(cpu, segment, offset, static_cast<uint16_t>(value));
    case 4:
      return write<uint32_t>(cpu, segment, offset, static_cast<uint32_t>(value));
    default:
      return write<uint64_t>(cpu, segment, offset, value);
  }
}
// A 16-bit source in ModRM.rm.
[[nodiscard]] inline uint16_t read_rm16(Cpu& cpu, const Op& op) {
  if (!op.instruction->has_memory()) return static_cast<uint16_t>(read_register(cpu, op.rm, 2));
  return read<uint16_t>(cpu, memory_segment(op), memory_offset(cpu, op));
}
// A 16-bit destination: memory gets 2 bytes, a register the operand size.
inline void write_rm16(Cpu& cpu, const Op& op, uint64_t value) {
  if (!op.instruction->has_memory()) return write_register(cpu, op.rm, op.instruction->operand_size, value);
  write<uint16_t>(cpu, memory_segment(op), memory_offset(cpu, op), static_cast<uint16_t>(value));
}
inline void require_cpl0(const Cpu& cpu) {
  if (cpu.cpl != 0) raise(kGeneralProtection, 0);
}
inline void set_zero_flag(Cpu& cpu, bool zero) {
  cpu.flags.ax =
      static_cast<uint16_t>(zero ? cpu.flags.ax | ArithmeticFlags::kZero : cpu.flags.ax & ~ArithmeticFlags::kZero);
}
// Offset of an operand `bytes` behind the first, truncated to the address size.
[[nodiscard]] inline uint64_t offset_plus(const Op& op, uint64_t offset, unsigned bytes) {
  const uint64_t sum = offset + bytes;
  return op.instruction->address_size == 8   ? sum
         : op.instruction->address_size == 4 ? static_cast<uint32_t>(sum)
                                             : static_cast<uint16_t>(sum);
}

}  // namespace bulkhead::engine
