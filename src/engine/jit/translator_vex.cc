// The VEX-encoded instructions on general registers (BMI1, BMI2): copied with other registers, all three of which may
// be among those that live in the Cpu. Intel SDM 2, 2.3.
#include "engine/jit/instruction_kinds.h"
#include "engine/jit/translator.h"

namespace bulkhead::engine::jit {

using decoder::Instruction;
using decoder::OperandKind;

bool Translator::vex_integer(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (!is_copied(instruction.mnemonic)) return false;
  const bool is_memory = instruction.has_memory();
  if (is_memory && (instruction.address_size != 8 || !can_address(op))) return false;
  const bool matters = flags_changed(instruction) != 0 && flags_matter_after(op);
  Slow slow{.from = 0, .back = 0, .op = &op, .flags_to_host = false};
  if (is_memory) slow = access(op);

  // At most one of two sources and one of two destinations finds its scratch register taken: sources are read before
  // destinations are written.
  struct Register {
    uint8_t guest;
    Host host;
    decoder::Access access;
  };
  Register reg{instruction.reg, static_cast<Host>(instruction.reg), decoder::Access::kNone};  // or an opcode's digit
  Register vvvv{instruction.vvvv, host_of(instruction.vvvv), decoder::Access::kNone};
  Register rm{instruction.rm, kScratch, decoder::Access::kNone};
  for (unsigned i = 0; i < instruction.info->operand_count; ++i) {
    const decoder::OperandSpec& operand = instruction.info->operands[i];
    if (operand.kind == OperandKind::kGprReg) {
      reg.access = operand.access;
      reg.host = host_of(instruction.reg);
      if (reg.host == kNoHost) reg.host = kScratch2;
    } else if (operand.kind == OperandKind::kGprVvvv) {
      vvvv.access = operand.access;
    } else if (operand.kind == OperandKind::kGprRm && !is_memory) {
      rm.access = operand.access;
      rm.host = host_of(instruction.rm);
      if (rm.host == kNoHost) rm.host = kScratch;
    }
  }
  if (vvvv.access == decoder::Access::kNone) {
    vvvv.host = kRax;  // coded as if it were absent
  } else if (vvvv.host == kNoHost) {
    // MULX has a second destination, which is the only one where both are the same register.
    const bool is_second = writes(vvvv.access) && reg.host == kScratch2 && reg.guest != vvvv.guest;
    vvvv.host = is_second ? kScratch : kScratch2;
  }
  const auto lives_in_cpu = [](const Register& one) {
    return one.access != decoder::Access::kNone && host_of(one.guest) == kNoHost;
  };
  for (const Register& one : {vvvv, rm})
    if (lives_in_cpu(one) && reads(one.access)) code_.load(one.host, gpr(one.guest));

  const std::span<const uint8_t> bytes = source(op);
  code_.byte(0xC4);
  const uint8_t index = is_memory ? place_.index_number() : uint8_t{0};
  const uint8_t base = is_memory ? place_.base : rm.host;
  code_.byte(static_cast<uint8_t>((reg.host < 8 ? 0x80 : 0) | (index < 8 ? 0x40 : 0) | (base < 8 ? 0x20 : 0) |
                                  static_cast<uint8_t>(instruction.opcode_map)));
  const uint8_t prefix = bytes[instruction.opcode_offset - 1] & 3;
  code_.byte(static_cast<uint8_t>((instruction.has(decoder::kPrefixW) ? 0x80 : 0) | (~vvvv.host & 15) << 3 | prefix));
  code_.byte(instruction.opcode);
  if (is_memory)
    code_.modrm_memory(reg.host, place_);
  else
    code_.modrm_register(reg.host, rm.host);
  code_.bytes(bytes.subspan(instruction.immediate_offset, instruction.immediate_length));

  for (const Register& one : {vvvv, reg})
    if (lives_in_cpu(one) && writes(one.access)) code_.store(gpr(one.guest), one.host);
  if (flags_changed(instruction) != 0) host_flags_of(op);
  if (is_memory) come_back(slow, matters);
  if (const uint16_t cleared = cleared_flags(instruction); matters && cleared != 0) save_flags(cleared);
  return true;
}

}  // namespace bulkhead::engine::jit
