// Unavailable vector units, and memory operands of any width. See registers.h.
#include "engine/interpreter/simd/registers.h"

namespace bulkhead::engine::simd {

void raise_unavailable(const Cpu& cpu, uint32_t needed) {
  if (!cpu.mode.has(needed)) raise(kInvalidOpcode);
  raise(kDeviceNotAvailable);
}

void load_operand(Cpu& cpu, const Op& op, VectorRegister& out) {
  const decoder::Instruction& instruction = *op.instruction;
  const cpu::SegmentRegister segment = memory_segment(op);
  const uint64_t linear =
      linear_address<MemoryAccess::kRead>(cpu, segment, memory_offset(cpu, op), instruction.memory_size);
  require_alignment(linear, required_alignment(instruction));
  out = {};
  switch (instruction.memory_size) {
    case 1:
      out.lane[0] = read_linear<uint8_t>(cpu, segment, linear);
      break;
    case 2:
      out.lane[0] = read_linear<uint16_t>(cpu, segment, linear);
      break;
    case 4:
      out.lane[0] = read_linear<uint32_t>(cpu, segment, linear);
      break;
    case 8:
      out.lane[0] = read_linear<uint64_t>(cpu, segment, linear);
      break;
    case 16: {
      const auto value = read_linear<Vector128>(cpu, segment, linear);
      std::memcpy(&out, &value, sizeof value);
      break;
    }
    default: {
      const auto value = read_256(cpu, segment, linear);
      std::memcpy(&out, &value, sizeof value);
      break;
    }
  }
}

void store_operand(Cpu& cpu, const Op& op, const VectorRegister& value) {
  const decoder::Instruction& instruction = *op.instruction;
  const cpu::SegmentRegister segment = memory_segment(op);
  const uint64_t linear =
      linear_address<MemoryAccess::kWrite>(cpu, segment, memory_offset(cpu, op), instruction.memory_size);
  require_alignment(linear, required_alignment(instruction));
  switch (instruction.memory_size) {
    case 1:
      write_linear<uint8_t>(cpu, segment, linear, static_cast<uint8_t>(value.lane[0]));
      break;
    case 2:
      write_linear<uint16_t>(cpu, segment, linear, static_cast<uint16_t>(value.lane[0]));
      break;
    case 4:
      write_linear<uint32_t>(cpu, segment, linear, static_cast<uint32_t>(value.lane[0]));
      break;
    case 8:
      write_linear<uint64_t>(cpu, segment, linear, value.lane[0]);
      break;
    case 16:
      write_linear<Vector128>(cpu, segment, linear, {{value.lane[0], value.lane[1]}});
      break;
    default:
      write_256(cpu, segment, linear, {{value.lane[0], value.lane[1], value.lane[2], value.lane[3]}});
      break;
  }
}

}  // namespace bulkhead::engine::simd
