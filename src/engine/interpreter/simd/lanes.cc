// Instructions on single lanes, and shifts by an immediate.
#include "engine/interpreter/simd/families.h"
#include "engine/interpreter/simd/registers.h"

namespace bulkhead::engine::simd {
namespace {

using decoder::Instruction;
using decoder::Mnemonic;
using decoder::OperandKind;

template <bool kVex>
void write_128(Cpu& cpu, unsigned number, const Vector128& value) {
  write_xmm(cpu, number, value);
  if constexpr (kVex) zero_upper(cpu, number);
}

// PEXTRB to PEXTRQ, EXTRACTPS: lane of ModRM.reg to memory or, zero-extended, to a general register.
// PEXTRW has an older encoding whose vector register is ModRM.rm.
template <bool kVex, typename T>
void extract(Cpu& cpu, const Op& op) {
  require<kVex>(cpu);
  const Instruction& instruction = *op.instruction;
  const bool to_reg = instruction.info->operands[0].kind == OperandKind::kGprReg;
  const unsigned lane = static_cast<unsigned>(instruction.immediate) & (16 / sizeof(T) - 1);
  T value;
  std::memcpy(&value, xmm(cpu, to_reg ? instruction.rm : instruction.reg) + lane * sizeof(T), sizeof value);
  if (instruction.has_memory())
    store<T, false>(cpu, op, value);
  else
    cpu.gpr[to_reg ? instruction.reg : instruction.rm] = value;
}

template <bool kVex, typename T>
void insert(Cpu& cpu, const Op& op) {
  require<kVex>(cpu);
  const Instruction& instruction = *op.instruction;
  const T value = instruction.has_memory() ? load<T, false>(cpu, op) : static_cast<T>(cpu.gpr[instruction.rm]);
  const unsigned lane = static_cast<unsigned>(instruction.immediate) & (16 / sizeof(T) - 1);
  Vector128 result = read_xmm(cpu, kVex ? instruction.vvvv : instruction.reg);
  std::memcpy(reinterpret_cast<uint8_t*>(&result) + lane * sizeof(T), &value, sizeof value);
  write_128<kVex>(cpu, instruction.reg, result);
}

// INSERTPS: the source lane is chosen by the immediate's bits 7:6 for registers only.
template <bool kVex>
void insert_single(Cpu& cpu, const Op& op) {
  require<kVex>(cpu);
  const Instruction& instruction = *op.instruction;
  const auto immediate = static_cast<unsigned>(instruction.immediate);
  uint32_t value;
  if (instruction.has_memory())
    value = load<uint32_t, false>(cpu, op);
  else
    std::memcpy(&value, xmm(cpu, instruction.rm) + 4 * (immediate >> 6 & 3), sizeof value);
  uint32_t lanes[4];
  std::memcpy(lanes, xmm(cpu, kVex ? instruction.vvvv : instruction.reg), sizeof lanes);
  lanes[immediate >> 4 & 3] = value;
  for (unsigned lane = 0; lane < 4; ++lane) {
    if ((immediate >> lane & 1) != 0) lanes[lane] = 0;
  }
  Vector128 result;
  std::memcpy(&result, lanes, sizeof result);
  write_128<kVex>(cpu, instruction.reg, result);
}

// Shifts of elements by an immediate are shifts by a register that holds it.
template <bool kVex>
void shift_elements(Cpu& cpu, const Op& op) {
  require<kVex>(cpu);
  const Instruction& instruction = *op.instruction;
  const Stub stub = find_stub({.mnemonic = instruction.mnemonic,
                               .kind = !kVex                 ? StubKey::Kind::kSse
                                       : is_256(instruction) ? StubKey::Kind::kAvx256
                                                             : StubKey::Kind::kAvx128},
                              0);
  StubFrame frame;
  read_ymm(cpu, instruction.rm, kVex ? frame.first : frame.reg);
  frame.rm.lane[0] = static_cast<uint8_t>(instruction.immediate);
  if constexpr (kVex) {
    bulkhead_simd_run_avx(&frame, stub.code);
    write_ymm(cpu, instruction.vvvv, frame.reg);
  } else {
    bulkhead_simd_run_sse(&frame, stub.code);
    std::memcpy(xmm(cpu, instruction.rm), &frame.reg, 16);
  }
}

// PSLLDQ, PSRLDQ: whole 128-bit lanes by bytes.
template <bool kVex, bool kLeft>
void shift_bytes(Cpu& cpu, const Op& op) {
  require<kVex>(cpu);
  const Instruction& instruction = *op.instruction;
  const auto immediate = static_cast<uint8_t>(instruction.immediate);
  const unsigned count = immediate > 16 ? 16 : immediate;
  const auto shifted = [count](const uint8_t* from) {
    uint8_t bytes[48] = {};
    std::memcpy(bytes + 16, from, 16);
    Vector128 result;
    std::memcpy(&result, bytes + 16 + (kLeft ? -static_cast<int>(count) : static_cast<int>(count)), 16);
    return result;
  };
  const unsigned to = kVex ? instruction.vvvv : instruction.rm;
  const Vector128 low = shifted(xmm(cpu, instruction.rm));
  if constexpr (kVex) {
    const Vector128 high = is_256(instruction) ? shifted(ymm_high(cpu, instruction.rm)) : Vector128{};
    std::memcpy(ymm_high(cpu, to), &high, 16);
  }
  write_xmm(cpu, to, low);
}

template <bool kVex>
Handler choose(const Instruction& instruction) {
  switch (instruction.mnemonic) {
    case Mnemonic::kPextrb:
      return extract<kVex, uint8_t>;
    case Mnemonic::kPextrw:
      return extract<kVex, uint16_t>;
    case Mnemonic::kExtractps:
    case Mnemonic::kPextrd:
      return extract<kVex, uint32_t>;
    case Mnemonic::kPextrq:
      return extract<kVex, uint64_t>;
    case Mnemonic::kPinsrb:
      return insert<kVex, uint8_t>;
    case Mnemonic::kPinsrw:
      return insert<kVex, uint16_t>;
    case Mnemonic::kPinsrd:
      return insert<kVex, uint32_t>;
    case Mnemonic::kPinsrq:
      return insert<kVex, uint64_t>;
    case Mnemonic::kInsertps:
      return insert_single<kVex>;
    case Mnemonic::kPslldq:
      return shift_bytes<kVex, true>;
    case Mnemonic::kPsrldq:
      return shift_bytes<kVex, false>;
    case Mnemonic::kPsllw:
    case Mnemonic::kPslld:
    case Mnemonic::kPsllq:
    case Mnemonic::kPsrlw:
    case Mnemonic::kPsrld:
    case Mnemonic::kPsrlq:
    case Mnemonic::kPsraw:
    case Mnemonic::kPsrad:
      return instruction.immediate_length != 0 ? shift_elements<kVex> : nullptr;
    default:
      return nullptr;
  }
}

}  // namespace

Handler select_lane(const Instruction& instruction) {
  for (const decoder::OperandSpec& operand : instruction.info->operands) {
    if (operand.kind == OperandKind::kMmxReg || operand.kind == OperandKind::kMmxRm) return nullptr;
  }
  return instruction.is_vex() ? choose<true>(instruction) : choose<false>(instruction);
}

}  // namespace bulkhead::engine::simd
