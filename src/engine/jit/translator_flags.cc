// The arithmetic flags' way between the host's register and the Cpu, and how it is saved: flags that will be
// overwritten before anybody reads them are still seen by a fault in between, but there they can be made again from
// what the instruction that set them has left in the registers (a recipe).
#include "engine/jit/instruction_kinds.h"
#include "engine/jit/translator.h"

namespace bulkhead::engine::jit {

using decoder::Instruction;
using decoder::Mnemonic;
using decoder::OperandKind;

namespace {

constexpr uint32_t kNoRecipe = ~0u;

bool is_register_or_constant(OperandKind kind) {
  switch (kind) {
    case OperandKind::kGprReg:
    case OperandKind::kGprRm:
    case OperandKind::kGprOpcode:
    case OperandKind::kAccumulator:
    case OperandKind::kImmediate:
    case OperandKind::kUnsigned:
    case OperandKind::kOne:
    case OperandKind::kCl:
      return true;
    default:
      return false;
  }
}

// General registers that have to stay as the instruction has left them for its flags to be made again; kNoRecipe: that
// is not known how.
uint32_t recipe_registers(const Instruction& instruction) {
  const Mnemonic mnemonic = instruction.mnemonic;
  const bool compares = mnemonic == Mnemonic::kCmp || mnemonic == Mnemonic::kTest;
  const bool logic = mnemonic == Mnemonic::kAnd || mnemonic == Mnemonic::kOr || mnemonic == Mnemonic::kXor;
  const bool sums = mnemonic == Mnemonic::kAdd || mnemonic == Mnemonic::kSub;
  if (!compares && !logic && !sums && mnemonic != Mnemonic::kNeg) return kNoRecipe;
  if (instruction.operand_size < 4) return kNoRecipe;
  const uint8_t first = operand_register(instruction, 0);
  if (first >= 16) return kNoRecipe;  // memory
  uint32_t registers = 1u << first;
  if (logic || mnemonic == Mnemonic::kNeg) return registers;
  if (instruction.has_memory()) return kNoRecipe;
  const uint8_t second = operand_register(instruction, 1);
  if (second < 16) {
    if (sums && first == second) return kNoRecipe;
    registers |= 1u << second;
  }
  return registers;
}

// Carried out without a handler, but for its memory operand.
bool is_native(const Instruction& instruction) {
  if (instruction.info == nullptr || instruction.has(decoder::kPrefixRep) || instruction.has(decoder::kPrefixRepne))
    return false;
  if (instruction.info->state == decoder::StateComponent::kSse ||
      instruction.info->state == decoder::StateComponent::kAvx)
    return true;
  if (instruction.info->state != decoder::StateComponent::kGeneral || instruction.is_vex()) return false;
  switch (instruction.mnemonic) {
    case Mnemonic::kNop:
    case Mnemonic::kLea:
    case Mnemonic::kPush:
    case Mnemonic::kPop:
    case Mnemonic::kCbw:
    case Mnemonic::kCwd:
      return true;
    default:
      break;
  }
  if (!is_copied(instruction.mnemonic)) return false;
  for (unsigned i = 0; i < instruction.info->operand_count; ++i) {
    if (!is_register_or_constant(instruction.info->operands[i].kind)) return false;
    const uint8_t number = operand_register(instruction, i);
    if (number != decoder::kNoRegister && number >= 16) return false;  // a high byte
  }
  return true;
}

// A fault in it, or a handler that has to stand in for it, sees the flags.
bool may_show_flags(const Instruction& instruction) {
  return instruction.has_memory() || instruction.info->state != decoder::StateComponent::kGeneral ||
         instruction.info->instruction_class == decoder::InstructionClass::kStack || is_shift(instruction.mnemonic) ||
         is_rotate(instruction.mnemonic);
}

}  // namespace

void Translator::flags_to_memory() {
  if (flags_ == Flags::kRecipe) {
    follow_recipe(*producer_);
    flags_ = Flags::kHost;
  }
  if (flags_ == Flags::kHost) save_flags();
}

void Translator::before_look_up(const Op& op) {
  if (flags_ == Flags::kHost && recipe_lasts(op)) flags_ = Flags::kRecipe;
  if (flags_ == Flags::kHost) save_flags();
}

// From `op` on nobody reads the flags before they are all overwritten, and wherever a fault may show them until then,
// the registers are still those that the recipe needs.
bool Translator::recipe_lasts(const Op& op) const {
  const uint32_t needed = recipe_registers(*producer_->instruction);
  if (needed == kNoRecipe) return false;
  bool is_valid = true;
  for (const Op* before = producer_ + 1; before != &op; ++before) {
    if (before->instruction->info == nullptr) return false;
    if ((written_registers(*before->instruction) & needed) != 0) is_valid = false;
  }
  for (const Op* next = &op; next != end(); ++next) {
    const Instruction& instruction = *next->instruction;
    if (!is_native(instruction) || flags_read(instruction) != 0) return false;
    if (!is_valid && may_show_flags(instruction)) return false;
    if (changes_all_flags(instruction)) return true;
    if (flags_changed(instruction) != 0) return false;
    if ((written_registers(instruction) & needed) != 0) is_valid = false;
  }
  return false;
}

// The host's flags become what `recipe` has made them. Changes R13 and R14.
void Translator::follow_recipe(const Op& recipe) {
  const Instruction& instruction = *recipe.instruction;
  const bool wide = instruction.operand_size == 8;
  const auto in_host = [&](uint8_t guest, Host scratch) {
    const Host host = host_of(guest);
    if (host != kNoHost) return host;
    code_.load(scratch, gpr(guest));
    return scratch;
  };
  const uint8_t second_number =
      instruction.info->operand_count > 1 ? operand_register(instruction, 1) : decoder::kNoRegister;
  const bool has_second = second_number < 16 && !instruction.has_memory();
  const Host first = in_host(operand_register(instruction, 0), kScratch);
  const auto with_second = [&](uint8_t opcode, uint8_t digit, Host to) {
    if (has_second)
      code_.op(opcode, to, in_host(second_number, kScratch2), wide);
    else
      code_.immediate(digit, to, static_cast<int32_t>(instruction.immediate), wide);
  };
  constexpr uint8_t kAdd = 0x03, kSub = 0x2B, kCmp = 0x3B, kTest = 0x85;
  switch (instruction.mnemonic) {
    case Mnemonic::kCmp:
      with_second(kCmp, 7, first);
      break;
    case Mnemonic::kTest:
      if (has_second) {
        code_.op(kTest, first, in_host(second_number, kScratch2), wide);
      } else {
        code_.op(0xF7, 0, first, wide);
        code_.value(static_cast<int32_t>(instruction.immediate));
      }
      break;
    case Mnemonic::kAdd:
      if (first != kScratch) code_.move(kScratch, first);
      with_second(kSub, 5, kScratch);
      with_second(kAdd, 0, kScratch);
      break;
    case Mnemonic::kSub:
      if (first != kScratch) code_.move(kScratch, first);
      with_second(kAdd, 0, kScratch);
      with_second(kSub, 5, kScratch);
      break;
    case Mnemonic::kNeg:
      if (first != kScratch) code_.move(kScratch, first);
      code_.op(0xF7, 3, kScratch, wide);
      code_.op(0xF7, 3, kScratch, wide);
      break;
    default:  // AND, OR, XOR: all flags come from the result
      code_.op(kTest, first, first, wide);
      break;
  }
}

bool Translator::flags_matter_after(const Op& op) const {
  for (const Op* next = &op + 1; next != end(); ++next) {
    const Instruction& instruction = *next->instruction;
    // Others may fault, and then the flags are seen.
    const bool cannot_fault = instruction.info != nullptr &&
                              ((!instruction.has_memory() && (is_simd(*next) || is_copied(instruction.mnemonic))) ||
                               instruction.mnemonic == Mnemonic::kLea || instruction.mnemonic == Mnemonic::kCbw ||
                               instruction.mnemonic == Mnemonic::kCwd);
    if (!cannot_fault || flags_read(instruction) != 0) return true;
    if (changes_all_flags(instruction)) return false;
  }
  return true;
}

// LAHF and SETO, in the form that ArithmeticFlags has; the host's flags stay.
void Translator::save_flags() {
  code_.move(kScratch2, kRax);
  code_.byte(0x9F);
  code_.byte(0x0F);
  code_.byte(0x90);
  code_.modrm_register(0, kRax);
  code_.byte(0x66);
  code_.op(0x89, kRax, field(cpu_, cpu_.flags), false);
  code_.move(kRax, kScratch2);
  flags_ = Flags::kBoth;
}

// Those in memory; the host's have them still.
void Translator::clear_flags(uint16_t cleared) {
  code_.byte(0x66);
  code_.op(0x81, 4, field(cpu_, cpu_.flags), false);
  code_.value(static_cast<uint16_t>(~cleared));
  flags_ = Flags::kMemory;
}

// The host's CF alone.
void Translator::carry_to_memory() {
  static_assert(ArithmeticFlags::kCarry == 1 << 8);
  code_.rex(false, 0, 0, kScratch2);
  code_.byte(0x0F);
  code_.byte(0x92);  // setc r14b
  code_.modrm_register(0, kScratch2);
  clear_flags(ArithmeticFlags::kCarry);
  code_.immediate(4, kScratch2, 1, false);
  code_.shift_left(kScratch2, 8);
  code_.byte(0x66);
  code_.op(0x09, kScratch2, field(cpu_, cpu_.flags), false);
}

// OF comes from an addition that overflows when it was set, the others by SAHF.
void Translator::restore_flags(Host temporary) {
  code_.move(temporary, kRax);
  code_.load(kRax, field(cpu_, cpu_.flags), false);
  code_.byte(0x04);  // add al, 127
  code_.byte(0x7F);
  code_.byte(0x9E);
  code_.move(kRax, temporary);
  flags_ = Flags::kBoth;
}

}  // namespace bulkhead::engine::jit
