// Loads, stores and moves of vector registers. Non-temporal hints have no effect on what a program can see.
#include "engine/interpreter/simd/families.h"
#include "engine/interpreter/simd/registers.h"

namespace bulkhead::engine::simd {
namespace {

using decoder::Access;
using decoder::Instruction;
using decoder::Mnemonic;
using decoder::OperandKind;

// Which encoding writes: legacy keeps the upper half of the YMM register, VEX.128 zeroes it.
enum class Width : uint8_t { kLegacy, kVex128, kVex256 };
constexpr bool is_vex(Width width) {
  return width != Width::kLegacy;
}

template <Width kWidth>
void write_low(Cpu& cpu, unsigned number, const Vector128& value) {
  write_xmm(cpu, number, value);
  if constexpr (is_vex(kWidth)) zero_upper(cpu, number);
}

// --- whole registers ---

template <Width kWidth>
void move_register(Cpu& cpu, unsigned to, unsigned from) {
  require<is_vex(kWidth)>(cpu);
  if constexpr (kWidth == Width::kVex256) {
    VectorRegister value;
    read_ymm(cpu, from, value);
    write_ymm(cpu, to, value);
  } else {
    write_low<kWidth>(cpu, to, read_xmm(cpu, from));
  }
}
template <Width kWidth>
void move_to_reg(Cpu& cpu, const Op& op) {
  move_register<kWidth>(cpu, op.instruction->reg, op.instruction->rm);
}
template <Width kWidth>
void move_to_rm(Cpu& cpu, const Op& op) {
  move_register<kWidth>(cpu, op.instruction->rm, op.instruction->reg);
}

template <Width kWidth, bool kFlat, bool kAligned>
void load_whole(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  if constexpr (kWidth == Width::kVex256) {
    const auto value = load<Vector256, kFlat, kAligned ? 32 : 1>(cpu, op);
    std::memcpy(xmm(cpu, op.instruction->reg), &value.lane[0], 16);
    std::memcpy(ymm_high(cpu, op.instruction->reg), &value.lane[2], 16);
  } else {
    write_low<kWidth>(cpu, op.instruction->reg, load<Vector128, kFlat, kAligned ? 16 : 1>(cpu, op));
  }
}

template <Width kWidth, bool kFlat, bool kAligned>
void store_whole(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  if constexpr (kWidth == Width::kVex256) {
    Vector256 value;
    std::memcpy(&value.lane[0], xmm(cpu, op.instruction->reg), 16);
    std::memcpy(&value.lane[2], ymm_high(cpu, op.instruction->reg), 16);
    store<Vector256, kFlat, kAligned ? 32 : 1>(cpu, op, value);
  } else {
    store<Vector128, kFlat, kAligned ? 16 : 1>(cpu, op, read_xmm(cpu, op.instruction->reg));
  }
}

template <Width kWidth>
Handler choose_whole(const Instruction& instruction) {
  const bool stores = instruction.info->operands[0].kind != OperandKind::kXmmReg;
  if (!instruction.has_memory()) return stores ? move_to_rm<kWidth> : move_to_reg<kWidth>;
  const bool aligned = instruction.info->alignment != decoder::Alignment::kNone;
  const auto pick = [&]<bool kFlat>() -> Handler {
    if (stores) return aligned ? store_whole<kWidth, kFlat, true> : store_whole<kWidth, kFlat, false>;
    return aligned ? load_whole<kWidth, kFlat, true> : load_whole<kWidth, kFlat, false>;
  };
  return is_flat(instruction) ? pick.template operator()<true>() : pick.template operator()<false>();
}

// --- MOVSS, MOVSD: T is the scalar ---

template <Width kWidth, typename T, bool kFlat>
void load_scalar(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  write_low<kWidth>(cpu, op.instruction->reg, {{load<T, kFlat>(cpu, op), 0}});
}
template <Width kWidth, typename T, bool kFlat>
void store_scalar(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  T value;
  std::memcpy(&value, xmm(cpu, op.instruction->reg), sizeof value);
  store<T, kFlat>(cpu, op, value);
}
// The low scalar from one register, the rest from the destination or VEX.vvvv.
template <Width kWidth, typename T>
void merge_scalar(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  const Instruction& instruction = *op.instruction;
  const bool to_rm = instruction.info->operands[0].kind == OperandKind::kXmmRm;
  const unsigned to = to_rm ? instruction.rm : instruction.reg, from = to_rm ? instruction.reg : instruction.rm;
  Vector128 value = read_xmm(cpu, is_vex(kWidth) ? instruction.vvvv : to);
  std::memcpy(&value, xmm(cpu, from), sizeof(T));
  write_low<kWidth>(cpu, to, value);
}

template <Width kWidth, typename T>
Handler choose_scalar(const Instruction& instruction) {
  if (!instruction.has_memory()) return merge_scalar<kWidth, T>;
  const bool stores = instruction.info->operands[0].kind != OperandKind::kXmmReg;
  if (is_flat(instruction)) return stores ? store_scalar<kWidth, T, true> : load_scalar<kWidth, T, true>;
  return stores ? store_scalar<kWidth, T, false> : load_scalar<kWidth, T, false>;
}

// --- halves ---

// MOVLPS, MOVHPS and the PD forms from memory: lane kLane is replaced, the other comes from the first source.
template <Width kWidth, unsigned kLane>
void load_half(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  const Instruction& instruction = *op.instruction;
  Vector128 value = read_xmm(cpu, is_vex(kWidth) ? instruction.vvvv : instruction.reg);
  value.lane[kLane] = load<uint64_t, false>(cpu, op);
  write_low<kWidth>(cpu, instruction.reg, value);
}
template <Width kWidth, unsigned kLane>
void store_half(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  store<uint64_t, false>(cpu, op, read_xmm(cpu, op.instruction->reg).lane[kLane]);
}
// MOVHLPS: kTo 0, kFrom 1. MOVLHPS: kTo 1, kFrom 0.
template <Width kWidth, unsigned kTo, unsigned kFrom>
void move_half(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  const Instruction& instruction = *op.instruction;
  Vector128 value = read_xmm(cpu, is_vex(kWidth) ? instruction.vvvv : instruction.reg);
  value.lane[kTo] = read_xmm(cpu, instruction.rm).lane[kFrom];
  write_low<kWidth>(cpu, instruction.reg, value);
}

template <Width kWidth, unsigned kLane>
Handler choose_half(const Instruction& instruction) {
  const bool stores = instruction.info->operands[0].kind != OperandKind::kXmmReg;
  return stores ? store_half<kWidth, kLane> : load_half<kWidth, kLane>;
}

// --- MOVD, MOVQ ---

template <Width kWidth, typename T>
void from_general(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  const Instruction& instruction = *op.instruction;
  const uint64_t value = instruction.has_memory() ? load<T, false>(cpu, op) : static_cast<T>(cpu.gpr[instruction.rm]);
  write_low<kWidth>(cpu, instruction.reg, {{value, 0}});
}
template <Width kWidth, typename T>
void to_general(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  const Instruction& instruction = *op.instruction;
  const T value = static_cast<T>(read_xmm(cpu, instruction.reg).lane[0]);
  if (instruction.has_memory())
    store<T, false>(cpu, op, value);
  else
    cpu.gpr[instruction.rm] = value;
}
template <Width kWidth>
void move_quad(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  const Instruction& instruction = *op.instruction;
  const bool to_rm = instruction.info->operands[0].kind == OperandKind::kXmmRm;
  const uint64_t value = read_xmm(cpu, to_rm ? instruction.reg : instruction.rm).lane[0];
  write_low<kWidth>(cpu, to_rm ? instruction.rm : instruction.reg, {{value, 0}});
}

template <Width kWidth>
Handler choose_quad(const Instruction& instruction) {
  const OperandKind to = instruction.info->operands[0].kind, from = instruction.info->operands[1].kind;
  const bool wide = instruction.mnemonic == Mnemonic::kMovq;
  if (from == OperandKind::kGprRm) return wide ? from_general<kWidth, uint64_t> : from_general<kWidth, uint32_t>;
  if (to == OperandKind::kGprRm) return wide ? to_general<kWidth, uint64_t> : to_general<kWidth, uint32_t>;
  if (!instruction.has_memory()) return move_quad<kWidth>;
  return choose_scalar<kWidth, uint64_t>(instruction);
}

// --- broadcasts (VEX only); the element is the memory operand's size or, from a register, T ---

template <typename T>
void broadcast(Cpu& cpu, const Op& op) {
  require_avx(cpu);
  const Instruction& instruction = *op.instruction;
  T element;
  if (instruction.has_memory())
    element = load<T, false>(cpu, op);
  else
    std::memcpy(&element, xmm(cpu, instruction.rm), sizeof element);
  VectorRegister value{};
  auto* bytes = reinterpret_cast<uint8_t*>(&value);
  for (unsigned offset = 0; offset < instruction.vector_size; offset += sizeof element) {
    std::memcpy(bytes + offset, &element, sizeof element);
  }
  write_ymm(cpu, instruction.reg, value);
}

template <Width kWidth>
Handler choose(const Instruction& instruction) {
  // What has a general or MMX register belongs elsewhere, but for MOVD and MOVQ.
  for (const decoder::OperandSpec& operand : instruction.info->operands) {
    if (operand.kind == OperandKind::kMmxReg || operand.kind == OperandKind::kMmxRm) return nullptr;
  }
  switch (instruction.mnemonic) {
    case Mnemonic::kMovups:
    case Mnemonic::kMovupd:
    case Mnemonic::kMovaps:
    case Mnemonic::kMovapd:
    case Mnemonic::kMovdqa:
    case Mnemonic::kMovdqu:
    case Mnemonic::kLddqu:
    case Mnemonic::kMovntps:
    case Mnemonic::kMovntpd:
    case Mnemonic::kMovntdq:
    case Mnemonic::kMovntdqa:
      return choose_whole<kWidth>(instruction);
    case Mnemonic::kMovss:
      return choose_scalar<kWidth, uint32_t>(instruction);
    case Mnemonic::kMovsd:
      return choose_scalar<kWidth, uint64_t>(instruction);
    case Mnemonic::kMovlps:
    case Mnemonic::kMovlpd:
      return choose_half<kWidth, 0>(instruction);
    case Mnemonic::kMovhps:
    case Mnemonic::kMovhpd:
      return choose_half<kWidth, 1>(instruction);
    case Mnemonic::kMovhlps:
      return move_half<kWidth, 0, 1>;
    case Mnemonic::kMovlhps:
      return move_half<kWidth, 1, 0>;
    case Mnemonic::kMovd:
    case Mnemonic::kMovq:
      return choose_quad<kWidth>(instruction);
    case Mnemonic::kVpbroadcastb:
      return broadcast<uint8_t>;
    case Mnemonic::kVpbroadcastw:
      return broadcast<uint16_t>;
    case Mnemonic::kVbroadcastss:
    case Mnemonic::kVpbroadcastd:
      return broadcast<uint32_t>;
    case Mnemonic::kVbroadcastsd:
    case Mnemonic::kVpbroadcastq:
      return broadcast<uint64_t>;
    case Mnemonic::kVbroadcastf128:
    case Mnemonic::kVbroadcasti128:
      return broadcast<Vector128>;
    default:
      return nullptr;
  }
}

}  // namespace

Handler select_move(const Instruction& instruction) {
  if (!instruction.is_vex()) return choose<Width::kLegacy>(instruction);
  return is_256(instruction) ? choose<Width::kVex256>(instruction) : choose<Width::kVex128>(instruction);
}

}  // namespace bulkhead::engine::simd
