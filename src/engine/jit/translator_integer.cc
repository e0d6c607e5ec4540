// Integer instructions that are not copied as they are: those that could fault on the host, and some without ModRM.
#include "engine/jit/translator.h"

namespace bulkhead::engine::jit {

using decoder::Instruction;
using decoder::Mnemonic;
using decoder::OperandKind;

// DIV and IDIV of 32 and 64 bits, when it is plain that the quotient fits; else the handler finds out, and leaves the
// flags, all undefined, as they were.
bool Translator::divide(const Op& op) {
  const Instruction& instruction = *op.instruction;
  const bool wide = instruction.operand_size == 8;
  const bool is_memory = instruction.has_memory();
  if (instruction.operand_size < 4) return false;
  if (is_memory && (instruction.address_size != 8 || !can_address(op))) return false;
  flags_to_memory();
  flags_ = Flags::kMemory;
  Slow slow{.from = 0, .back = 0, .op = &op, .flags_to_host = false};
  Host divisor = is_memory ? kNoHost : host_of(instruction.rm);
  if (is_memory) slow = access(op);
  if (divisor == kNoHost) {
    divisor = kScratch2;
    code_.load(divisor, is_memory ? place_ : gpr(instruction.rm), wide);
  }
  std::array<size_t, 2> misses{};
  const bool is_signed = instruction.mnemonic == Mnemonic::kIdiv;
  if (is_signed) {
    // The dividend fits its lower half, and the divisor is neither 0 nor -1.
    code_.op(0x89, kRax, kScratch, wide);
    code_.op(0xC1, 7, kScratch, wide);
    code_.byte(wide ? 63 : 31);
    code_.op(0x3B, kScratch, kRdx, wide);
    misses[0] = code_.jump_if(kIfNotZero);
    code_.rex(wide, kScratch, 0, divisor);  // lea r13, [divisor + 1]
    code_.byte(0x8D);
    code_.modrm_memory(kScratch, {divisor, 1});
    code_.immediate(7, kScratch, 1, wide);
    misses[1] = code_.jump_if(kIfNotAbove);
  } else {
    code_.op(0x3B, kRdx, divisor, wide);
    misses[0] = code_.jump_if(kIfNotCarry);
  }
  code_.op(0xF7, is_signed ? 7 : 6, divisor, wide);
  slow.back = code_.size();
  if (is_memory) slow_.push_back(slow);
  for (const size_t miss : misses) {
    slow.from = miss;
    if (miss != 0) slow_.push_back(slow);
  }
  return true;
}

// LEAVE: RSP = RBP, then POP RBP.
bool Translator::leave_frame(const Op& op) {
  if (op.instruction->operand_size != 8) return false;
  const Slow slow = stack_access(op, {.base = kRbp}, kPopped);
  code_.lea(kR12, {kRbp, 8});
  code_.load(kRbp, place_);
  come_back(slow, false);
  return true;
}

bool Translator::swap_bytes(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (instruction.operand_size < 4) return false;
  Host host = host_of(instruction.rm);
  const bool in_memory = host == kNoHost;
  if (in_memory) {
    host = kScratch;
    code_.load(host, gpr(instruction.rm));
  }
  code_.rex(instruction.operand_size == 8, 0, 0, host);
  code_.byte(0x0F);
  code_.byte(static_cast<uint8_t>(0xC8 | (host & 7)));
  if (in_memory) code_.store(gpr(instruction.rm), host);
  return true;
}

}  // namespace bulkhead::engine::jit
