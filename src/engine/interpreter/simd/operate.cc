// Vector instructions carried out by a pre-assembled host instruction: operands into a StubFrame, run, results back.
#include "engine/interpreter/simd/families.h"
#include "engine/interpreter/simd/float_control.h"
#include "engine/interpreter/simd/registers.h"

namespace bulkhead::engine::simd {
namespace {

using decoder::Access;
using decoder::Instruction;
using decoder::Mnemonic;
using decoder::OperandKind;

template <bool kVex>
void load_register(Cpu& cpu, unsigned number, VectorRegister& out) {
  if constexpr (kVex) {
    read_ymm(cpu, number, out);
  } else {
    std::memcpy(&out, xmm(cpu, number), 16);
  }
}

// VEX: the stub's own result has zeros above what it writes.
template <bool kVex>
void store_register(Cpu& cpu, unsigned number, const VectorRegister& value) {
  if constexpr (kVex) {
    write_ymm(cpu, number, value);
  } else {
    std::memcpy(xmm(cpu, number), &value, 16);
  }
}

template <bool kVex>
uint32_t run(Cpu& cpu, StubFrame& frame, const Stub& stub) {
  constexpr StubRunner kRunner = kVex ? bulkhead_simd_run_avx : bulkhead_simd_run_sse;
  if (stub.uses_mxcsr) return run_float(cpu, frame, stub.code, kRunner);
  kRunner(&frame, stub.code);
  return 0;
}

// reg <- [vvvv,] rm [, is4 or XMM0] [, immediate], all of them vectors: by far the commonest shape.
template <bool kVex, bool kMemory>
void operate_vector(Cpu& cpu, const Op& op) {
  require<kVex>(cpu);
  const Instruction& instruction = *op.instruction;
  StubFrame frame;
  if constexpr (kMemory)
    load_operand(cpu, op, frame.rm);
  else
    load_register<kVex>(cpu, instruction.rm, frame.rm);
  load_register<kVex>(cpu, instruction.reg, frame.reg);
  if constexpr (kVex) {
    load_register<kVex>(cpu, instruction.vvvv, frame.first);
    if (instruction.info->operands[3].kind == OperandKind::kXmmIs4)
      load_register<kVex>(cpu, instruction.is4, frame.fourth);
  } else {
    load_register<kVex>(cpu, 0, frame.implicit);
  }
  const uint32_t flags = run<kVex>(cpu, frame, vector_stub(instruction));
  store_register<kVex>(cpu, instruction.reg, frame.reg);
  if (flags != 0) add_float_flags(cpu, flags);
}

struct Roles {
  bool reads_gpr_rm = false, writes_gpr_reg = false, writes_vector_reg = false, writes_vector_rm = false;
};

Roles roles_of(const Instruction& instruction) {
  Roles roles;
  for (const decoder::OperandSpec& operand : instruction.info->operands) {
    const bool written = operand.access == Access::kWrite || operand.access == Access::kReadWrite;
    if (operand.kind == OperandKind::kGprRm) roles.reads_gpr_rm = true;
    if (operand.kind == OperandKind::kGprReg) roles.writes_gpr_reg = written;
    if (operand.kind == OperandKind::kXmmReg) roles.writes_vector_reg = written;
    if (operand.kind == OperandKind::kXmmRm) roles.writes_vector_rm = written;
  }
  return roles;
}

// Any mixture of vectors, general registers and flags.
template <bool kVex>
void operate_mixed(Cpu& cpu, const Op& op) {
  require<kVex>(cpu);
  const Instruction& instruction = *op.instruction;
  const Roles roles = roles_of(instruction);
  StubFrame frame;
  if (!instruction.has_memory()) {
    if (roles.reads_gpr_rm)
      frame.gpr_rm = cpu.gpr[instruction.rm];
    else
      load_register<kVex>(cpu, instruction.rm, frame.rm);
  } else if (!roles.writes_vector_rm) {
    load_operand(cpu, op, frame.rm);
    frame.gpr_rm = frame.rm.lane[0];
  }
  load_register<kVex>(cpu, instruction.reg & 15u, frame.reg);
  if constexpr (kVex) load_register<kVex>(cpu, instruction.vvvv, frame.first);
  const uint32_t flags = run<kVex>(cpu, frame, vector_stub(instruction));
  if (roles.writes_vector_rm) {
    if (instruction.has_memory())
      store_operand(cpu, op, frame.rm);
    else
      store_register<kVex>(cpu, instruction.rm, frame.rm);
  }
  if (roles.writes_vector_reg) store_register<kVex>(cpu, instruction.reg, frame.reg);
  // The stub names a 32-bit register where the upper half becomes zero.
  if (roles.writes_gpr_reg) cpu.gpr[instruction.reg] = frame.gpr_reg;
  if (instruction.info->flags_written != 0) cpu.flags.from_rflags(frame.rflags);
  if (flags != 0) add_float_flags(cpu, flags);
}

// PCMPESTRI, PCMPISTRI and the mask forms: lengths in RAX and RDX, result in ECX or XMM0, and flags.
template <bool kVex, bool kMask>
void compare_strings(Cpu& cpu, const Op& op) {
  require<kVex>(cpu);
  const Instruction& instruction = *op.instruction;
  StubFrame frame;
  if (instruction.has_memory())
    load_operand(cpu, op, frame.rm);
  else
    load_register<kVex>(cpu, instruction.rm, frame.rm);
  load_register<kVex>(cpu, instruction.reg, frame.reg);
  frame.rax = cpu.gpr[cpu::kRax];
  frame.gpr_rm = cpu.gpr[cpu::kRdx];
  run<kVex>(cpu, frame, vector_stub(instruction));
  if constexpr (kMask)
    store_register<kVex>(cpu, 0, frame.implicit);
  else
    cpu.gpr[cpu::kRcx] = frame.gpr_reg;
  cpu.flags.from_rflags(frame.rflags);
}

template <bool kVex>
Handler select(const Instruction& instruction) {
  switch (instruction.mnemonic) {
    case Mnemonic::kPcmpestrm:
    case Mnemonic::kPcmpistrm:
      return compare_strings<kVex, true>;
    case Mnemonic::kPcmpestri:
    case Mnemonic::kPcmpistri:
      return compare_strings<kVex, false>;
    default:
      break;
  }
  bool vectors_only = instruction.info->flags_written == 0;
  for (size_t index = 0; index < instruction.info->operands.size(); ++index) {
    const decoder::OperandSpec& operand = instruction.info->operands[index];
    if (operand.kind == OperandKind::kGprReg || operand.kind == OperandKind::kGprRm) vectors_only = false;
    if (operand.kind == OperandKind::kXmmRm && operand.access != Access::kRead) vectors_only = false;
  }
  if (!vectors_only) return operate_mixed<kVex>;
  return instruction.has_memory() ? operate_vector<kVex, true> : operate_vector<kVex, false>;
}

}  // namespace

Handler select_stub(const Instruction& instruction) {
  if (vector_stub(instruction).code == nullptr) return nullptr;
  return instruction.is_vex() ? select<true>(instruction) : select<false>(instruction);
}

}  // namespace bulkhead::engine::simd
