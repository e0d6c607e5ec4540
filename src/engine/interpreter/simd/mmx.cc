// Instructions with MMX registers, which are the significands of the physical x87 registers. Any of them takes the x87
// unit over: TOP becomes 0, every tag valid, and a written register's exponent all ones (Intel SDM volume 1, 9.5).
#include "engine/interpreter/simd/families.h"
#include "engine/interpreter/simd/float_control.h"
#include "engine/interpreter/simd/registers.h"
#include "engine/interpreter/x87/image.h"

namespace bulkhead::engine::simd {
namespace {

using decoder::Access;
using decoder::Instruction;
using decoder::Mnemonic;
using decoder::OperandKind;

uint64_t read_mmx(Cpu& cpu, unsigned number) {
  uint64_t value;
  std::memcpy(&value, x87::stack_register(cpu, ((number & 7) - x87::top(cpu)) & 7), sizeof value);
  return value;
}

// After the last thing that can fault.
void take_over(Cpu& cpu) {
  x87::set_top(cpu, 0);
  x87::set_tags(cpu, 0xFF);
}
void write_mmx(Cpu& cpu, unsigned number, uint64_t value) {
  constexpr uint16_t kExponent = 0xFFFF;
  uint8_t* bytes = x87::stack_register(cpu, number & 7);
  std::memcpy(bytes, &value, sizeof value);
  std::memcpy(bytes + 8, &kExponent, sizeof kExponent);
}

void require_mmx(Cpu& cpu) {
  if (cpu.mode.has(ModeBits::kEmulation)) [[unlikely]]
    raise(kInvalidOpcode);
  if (cpu.mode.has(ModeBits::kTaskSwitched)) [[unlikely]]
    raise(kDeviceNotAvailable);
  x87::check_pending_error(cpu);
}

struct Roles {
  bool mmx_reg = false, mmx_rm = false, xmm_reg = false, xmm_rm = false, gpr_reg = false, gpr_rm = false;
  OperandKind written = OperandKind::kNone;
};

Roles roles_of(const Instruction& instruction) {
  Roles roles;
  for (const decoder::OperandSpec& operand : instruction.info->operands) {
    switch (operand.kind) {
      case OperandKind::kMmxReg:
        roles.mmx_reg = true;
        break;
      case OperandKind::kMmxRm:
        roles.mmx_rm = true;
        break;
      case OperandKind::kXmmReg:
        roles.xmm_reg = true;
        break;
      case OperandKind::kXmmRm:
        roles.xmm_rm = true;
        break;
      case OperandKind::kGprReg:
        roles.gpr_reg = true;
        break;
      case OperandKind::kGprRm:
        roles.gpr_rm = true;
        break;
      default:
        break;
    }
    if (operand.access == Access::kWrite || operand.access == Access::kReadWrite) roles.written = operand.kind;
  }
  return roles;
}

Stub mmx_stub(const Instruction& instruction, bool immediate) {
  return find_stub({.mnemonic = instruction.mnemonic, .kind = StubKey::Kind::kMmx, .immediate = immediate},
                   static_cast<uint8_t>(instruction.immediate));
}

// Whatever has a stub: reg <- reg, rm with MMX, XMM or general registers on either side.
void operate(Cpu& cpu, const Op& op) {
  const Instruction& instruction = *op.instruction;
  const Roles roles = roles_of(instruction);
  if (roles.xmm_reg || roles.xmm_rm) require_sse(cpu);
  require_mmx(cpu);
  StubFrame frame;
  if (instruction.has_memory()) {
    load_operand(cpu, op, frame.rm);
    frame.mmx_rm = frame.rm.lane[0];
  } else if (roles.xmm_rm) {
    std::memcpy(&frame.rm, xmm(cpu, instruction.rm), 16);
  } else {
    frame.mmx_rm = read_mmx(cpu, instruction.rm);
  }
  if (roles.xmm_reg) std::memcpy(&frame.reg, xmm(cpu, instruction.reg), 16);
  if (roles.mmx_reg) frame.mmx_reg = read_mmx(cpu, instruction.reg);
  // CVTPI2PS and CVTPI2PD from memory leave the x87 unit alone; the others take it over before they may raise #XM.
  if (roles.mmx_reg || !instruction.has_memory()) take_over(cpu);
  const Stub stub = mmx_stub(instruction, instruction.immediate_length != 0);
  uint32_t flags = 0;
  if (stub.uses_mxcsr) {
    flags = run_float(cpu, frame, stub.code, bulkhead_simd_run_mmx);
  } else {
    bulkhead_simd_run_mmx(&frame, stub.code);
  }
  if (roles.written == OperandKind::kMmxReg) write_mmx(cpu, instruction.reg, frame.mmx_reg);
  if (roles.written == OperandKind::kXmmReg) std::memcpy(xmm(cpu, instruction.reg), &frame.reg, 16);
  if (roles.written == OperandKind::kGprReg) cpu.gpr[instruction.reg] = frame.gpr_reg;
  if (flags != 0) add_float_flags(cpu, flags);
}

// Element shifts by an immediate: the destination is ModRM.rm.
void shift(Cpu& cpu, const Op& op) {
  require_mmx(cpu);
  const Instruction& instruction = *op.instruction;
  StubFrame frame;
  frame.mmx_reg = read_mmx(cpu, instruction.rm);
  frame.mmx_rm = static_cast<uint8_t>(instruction.immediate);
  bulkhead_simd_run_mmx(&frame, mmx_stub(instruction, false).code);
  take_over(cpu);
  write_mmx(cpu, instruction.rm, frame.mmx_reg);
}

// MOVD and MOVQ between an MMX register and a general register, memory or another MMX register; MOVNTQ.
void move(Cpu& cpu, const Op& op) {
  require_mmx(cpu);
  const Instruction& instruction = *op.instruction;
  const Roles roles = roles_of(instruction);
  const bool to_reg = instruction.info->operands[0].kind == OperandKind::kMmxReg;
  const bool wide = instruction.mnemonic != Mnemonic::kMovd;
  if (to_reg) {
    uint64_t value;
    if (instruction.has_memory())
      value = wide ? load<uint64_t, false>(cpu, op) : load<uint32_t, false>(cpu, op);
    else if (roles.gpr_rm)
      value = wide ? cpu.gpr[instruction.rm] : static_cast<uint32_t>(cpu.gpr[instruction.rm]);
    else
      value = read_mmx(cpu, instruction.rm);
    take_over(cpu);
    write_mmx(cpu, instruction.reg, value);
    return;
  }
  const uint64_t value = read_mmx(cpu, instruction.reg);
  if (instruction.has_memory()) {
    if (wide)
      store<uint64_t, false>(cpu, op, value);
    else
      store<uint32_t, false>(cpu, op, static_cast<uint32_t>(value));
  }
  take_over(cpu);
  if (instruction.has_memory()) return;
  if (roles.gpr_rm)
    cpu.gpr[instruction.rm] = wide ? value : static_cast<uint32_t>(value);
  else
    write_mmx(cpu, instruction.rm, value);
}

void insert_word(Cpu& cpu, const Op& op) {
  require_mmx(cpu);
  const Instruction& instruction = *op.instruction;
  const uint64_t word =
      instruction.has_memory() ? load<uint16_t, false>(cpu, op) : static_cast<uint16_t>(cpu.gpr[instruction.rm]);
  const unsigned shift = 16 * (static_cast<unsigned>(instruction.immediate) & 3);
  const uint64_t value = (read_mmx(cpu, instruction.reg) & ~(uint64_t{0xFFFF} << shift)) | word << shift;
  take_over(cpu);
  write_mmx(cpu, instruction.reg, value);
}

void extract_word(Cpu& cpu, const Op& op) {
  require_mmx(cpu);
  const Instruction& instruction = *op.instruction;
  const uint64_t value = read_mmx(cpu, instruction.rm);
  take_over(cpu);
  cpu.gpr[instruction.reg] = static_cast<uint16_t>(value >> 16 * (static_cast<unsigned>(instruction.immediate) & 3));
}

void to_xmm(Cpu& cpu, const Op& op) {  // MOVQ2DQ
  require_sse(cpu);
  require_mmx(cpu);
  const uint64_t value = read_mmx(cpu, op.instruction->rm);
  take_over(cpu);
  write_xmm(cpu, op.instruction->reg, {{value, 0}});
}
void from_xmm(Cpu& cpu, const Op& op) {  // MOVDQ2Q
  require_sse(cpu);
  require_mmx(cpu);
  take_over(cpu);
  write_mmx(cpu, op.instruction->reg, read_xmm(cpu, op.instruction->rm).lane[0]);
}

void empty(Cpu& cpu, const Op&) {  // EMMS
  require_mmx(cpu);
  x87::set_top(cpu, 0);
  x87::set_tags(cpu, 0);
}

}  // namespace

uint64_t mmx_value(Cpu& cpu, unsigned number) {
  return read_mmx(cpu, number);
}
void begin_mmx(Cpu& cpu) {
  require_mmx(cpu);
}
void end_mmx(Cpu& cpu) {
  take_over(cpu);
}

Handler select_mmx(const Instruction& instruction) {
  if (instruction.mnemonic == Mnemonic::kEmms) return empty;
  const Roles roles = roles_of(instruction);
  if (!roles.mmx_reg && !roles.mmx_rm) return nullptr;
  switch (instruction.mnemonic) {
    case Mnemonic::kMovd:
    case Mnemonic::kMovq:
    case Mnemonic::kMovntq:
      return move;
    case Mnemonic::kMovq2dq:
      return to_xmm;
    case Mnemonic::kMovdq2q:
      return from_xmm;
    case Mnemonic::kPinsrw:
      return insert_word;
    case Mnemonic::kPextrw:
      return extract_word;
    case Mnemonic::kPsllw:
    case Mnemonic::kPslld:
    case Mnemonic::kPsllq:
    case Mnemonic::kPsrlw:
    case Mnemonic::kPsrld:
    case Mnemonic::kPsrlq:
    case Mnemonic::kPsraw:
    case Mnemonic::kPsrad:
      return instruction.immediate_length != 0 ? shift : operate;
    default:
      return mmx_stub(instruction, instruction.immediate_length != 0).code != nullptr ? operate : nullptr;
  }
}

}  // namespace bulkhead::engine::simd
