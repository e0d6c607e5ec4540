// Instructions that touch memory lane by lane under a mask: gathers, VMASKMOV, MASKMOVDQU and MASKMOVQ. A lane whose
// mask is off never faults.
#include <array>

#include "engine/interpreter/simd/families.h"
#include "engine/interpreter/simd/registers.h"

namespace bulkhead::engine::simd {

// MMX side of MASKMOVQ, in mmx.cc.
uint64_t mmx_value(Cpu& cpu, unsigned number);
void begin_mmx(Cpu& cpu);
void end_mmx(Cpu& cpu);

namespace {

using decoder::Instruction;
using decoder::Mnemonic;
using decoder::OperandKind;

template <typename T>
T lane_of(const VectorRegister& value, unsigned lane) {
  T result;
  std::memcpy(&result, reinterpret_cast<const uint8_t*>(&value) + lane * sizeof(T), sizeof result);
  return result;
}
template <typename T>
void set_lane(VectorRegister& value, unsigned lane, T element) {
  std::memcpy(reinterpret_cast<uint8_t*>(&value) + lane * sizeof(T), &element, sizeof element);
}
template <typename T>
bool is_set(T mask) {
  return mask >> (8 * sizeof(T) - 1) != 0;
}

uint64_t truncate(const Instruction& instruction, uint64_t offset) {
  if (instruction.address_size == 8) return offset;
  return instruction.address_size == 4 ? static_cast<uint32_t>(offset) : static_cast<uint16_t>(offset);
}

// Element and index width. Elements are gathered from the lowest up; each done clears its mask lane, so that a fault
// leaves progress behind and the instruction can be run again.
template <typename Element, typename Index>
void gather(Cpu& cpu, const Op& op) {
  require_avx(cpu);
  const Instruction& instruction = *op.instruction;
  const unsigned vector_bytes = instruction.vector_size;
  const unsigned wider = sizeof(Element) > sizeof(Index) ? sizeof(Element) : sizeof(Index);
  const unsigned count = vector_bytes / wider;
  if (instruction.reg == instruction.vvvv || instruction.reg == instruction.index ||
      instruction.vvvv == instruction.index) {
    raise(kInvalidOpcode);
  }
  VectorRegister result, mask, index;
  read_ymm(cpu, instruction.reg, result);
  read_ymm(cpu, instruction.vvvv, mask);
  read_ymm(cpu, instruction.index, index);
  uint64_t base = static_cast<uint64_t>(op.displacement);
  if (instruction.base != decoder::kNoRegister) base += cpu.gpr[instruction.base];

  // Masks are made whole before the first access: every lane all ones or all zeros, nothing above the lanes used.
  for (unsigned lane = 0; lane < count; ++lane) {
    set_lane<Element>(mask, lane,
                      is_set(lane_of<Element>(mask, lane)) ? static_cast<Element>(~Element{0}) : Element{0});
  }
  for (unsigned lane = count; lane < 32 / sizeof(Element); ++lane) {
    set_lane<Element>(mask, lane, Element{0});
    set_lane<Element>(result, lane, Element{0});
  }
  const cpu::SegmentRegister segment = memory_segment(op);
  for (unsigned lane = 0; lane < count; ++lane) {
    if (!is_set(lane_of<Element>(mask, lane))) continue;
    const auto signed_index = static_cast<int64_t>(static_cast<std::make_signed_t<Index>>(lane_of<Index>(index, lane)));
    const uint64_t offset =
        truncate(instruction, base + (static_cast<uint64_t>(signed_index) << instruction.scale_log2));
    try {
      set_lane<Element>(result, lane, read<Element>(cpu, segment, offset));
    } catch (const GuestFault&) {
      write_ymm(cpu, instruction.reg, result);
      write_ymm(cpu, instruction.vvvv, mask);
      throw;
    }
    set_lane<Element>(mask, lane, Element{0});
  }
  write_ymm(cpu, instruction.reg, result);
  write_ymm(cpu, instruction.vvvv, VectorRegister{});
}

// VMASKMOVPS and its kin: ModRM.reg, mask in VEX.vvvv, memory.
template <typename T>
void masked_load(Cpu& cpu, const Op& op) {
  require_avx(cpu);
  const Instruction& instruction = *op.instruction;
  VectorRegister mask, result{};
  read_ymm(cpu, instruction.vvvv, mask);
  const uint64_t offset = memory_offset(cpu, op);
  for (unsigned lane = 0; lane < instruction.vector_size / sizeof(T); ++lane) {
    if (!is_set(lane_of<T>(mask, lane))) continue;
    set_lane<T>(result, lane, read<T>(cpu, memory_segment(op), truncate(instruction, offset + lane * sizeof(T))));
  }
  write_ymm(cpu, instruction.reg, result);
}

// Every lane is tried before the first is written.
template <typename T>
void masked_store(Cpu& cpu, const Op& op) {
  require_avx(cpu);
  const Instruction& instruction = *op.instruction;
  VectorRegister mask, value;
  read_ymm(cpu, instruction.vvvv, mask);
  read_ymm(cpu, instruction.reg, value);
  const uint64_t start = memory_offset(cpu, op);
  const auto each_lane = [&](auto&& act) {
    for (unsigned lane = 0; lane < instruction.vector_size / sizeof(T); ++lane) {
      if (is_set(lane_of<T>(mask, lane))) act(lane, truncate(instruction, start + lane * sizeof(T)));
    }
  };
  each_lane([&](unsigned, uint64_t offset) { probe_write(cpu, memory_segment(op), offset, sizeof(T)); });
  each_lane(
      [&](unsigned lane, uint64_t offset) { write<T>(cpu, memory_segment(op), offset, lane_of<T>(value, lane)); });
}

// MASKMOVDQU, MASKMOVQ: bytes of ModRM.reg to seg:[rDI] where the mask byte in ModRM.rm has its top bit.
void store_bytes(Cpu& cpu, const Op& op, const uint8_t* value, const uint8_t* mask, unsigned count) {
  const Instruction& instruction = *op.instruction;
  const cpu::SegmentRegister segment = memory_segment(op);
  const auto offset_of = [&](unsigned byte) { return truncate(instruction, cpu.gpr[cpu::kRdi] + byte); };
  for (unsigned byte = 0; byte < count; ++byte) {
    if (mask[byte] >> 7 != 0) probe_write(cpu, segment, offset_of(byte), 1);
  }
  for (unsigned byte = 0; byte < count; ++byte) {
    if (mask[byte] >> 7 != 0) write<uint8_t>(cpu, segment, offset_of(byte), value[byte]);
  }
}

template <bool kVex>
void masked_bytes(Cpu& cpu, const Op& op) {
  require<kVex>(cpu);
  const Vector128 value = read_xmm(cpu, op.instruction->reg), mask = read_xmm(cpu, op.instruction->rm);
  store_bytes(cpu, op, reinterpret_cast<const uint8_t*>(&value), reinterpret_cast<const uint8_t*>(&mask), 16);
}

void masked_bytes_mmx(Cpu& cpu, const Op& op) {
  begin_mmx(cpu);
  const uint64_t value = mmx_value(cpu, op.instruction->reg), mask = mmx_value(cpu, op.instruction->rm);
  store_bytes(cpu, op, reinterpret_cast<const uint8_t*>(&value), reinterpret_cast<const uint8_t*>(&mask), 8);
  end_mmx(cpu);
}

}  // namespace

Handler select_masked(const Instruction& instruction) {
  const bool stores = instruction.info->operands[0].kind != OperandKind::kXmmReg;
  switch (instruction.mnemonic) {
    case Mnemonic::kVgatherdps:
    case Mnemonic::kVpgatherdd:
      return gather<uint32_t, uint32_t>;
    case Mnemonic::kVgatherdpd:
    case Mnemonic::kVpgatherdq:
      return gather<uint64_t, uint32_t>;
    case Mnemonic::kVgatherqps:
    case Mnemonic::kVpgatherqd:
      return gather<uint32_t, uint64_t>;
    case Mnemonic::kVgatherqpd:
    case Mnemonic::kVpgatherqq:
      return gather<uint64_t, uint64_t>;
    case Mnemonic::kVmaskmovps:
    case Mnemonic::kVpmaskmovd:
      return stores ? masked_store<uint32_t> : masked_load<uint32_t>;
    case Mnemonic::kVmaskmovpd:
    case Mnemonic::kVpmaskmovq:
      return stores ? masked_store<uint64_t> : masked_load<uint64_t>;
    case Mnemonic::kMaskmovdqu:
      return instruction.is_vex() ? masked_bytes<true> : masked_bytes<false>;
    case Mnemonic::kMaskmovq:
      return masked_bytes_mmx;
    default:
      return nullptr;
  }
}

}  // namespace bulkhead::engine::simd
