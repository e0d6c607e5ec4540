// The arithmetic flags' way between the host's register and the Cpu, and how it is saved: flags that will be
// overwritten before anybody reads them are still seen by a fault in between, but there they can be made again from
// what the instruction that set them has left in the registers (a recipe).
#include "engine/jit/deferred_flags.h"
#include "engine/jit/instruction_kinds.h"
#include "engine/jit/translator.h"

namespace bulkhead::engine::jit {

using decoder::Instruction;
using decoder::Mnemonic;
using decoder::OperandKind;

namespace {

// A fault in it, or a handler that has to stand in for it, sees the flags.
bool may_show_flags(const Instruction& instruction) {
  return instruction.has_memory() || instruction.info->state != decoder::StateComponent::kGeneral ||
         instruction.info->instruction_class == decoder::InstructionClass::kStack || is_shift(instruction.mnemonic) ||
         is_rotate(instruction.mnemonic);
}

}  // namespace

void Translator::flags_to_memory() {
  if (flags_ == Flags::kRecipe) {
    // For a handler, which finds them made.
    note_flags(*recipe_);
    flags_ = Flags::kMemory;
  }
  if (flags_ == Flags::kHost) save_flags();
}

Translator::Left Translator::leave_flags(int64_t distance, const Op& last) {
  Left left{.registers = 0, .deferred = false};
  if (flags_ == Flags::kRecipe) {
    // Only what the target was found to do without came here, but this block as it was then may have been the target.
    left = {.registers = recipe_->registers(), .deferred = true};
    defers_wrongly_ |= !can_do_without_flags(distance, left.registers);
    flags_to_memory();
    return left;
  }
  if (flags_ == Flags::kHost && !block_.without_deferred_flags) {
    const auto deferred = DeferredFlags::of(*producer_->instruction);
    uint32_t written = last.instruction->mnemonic == Mnemonic::kCall ? 1u << cpu::kRsp : 0;
    for (const Op* since = producer_ + 1; since <= &last; ++since) written |= written_registers(*since->instruction);
    if (deferred && (deferred->registers() & written) == 0) {
      left = {.registers = deferred->registers(), .deferred = can_do_without_flags(distance, deferred->registers())};
      if (left.deferred) {
        note_flags(*deferred);
        flags_ = Flags::kMemory;
        return left;
      }
    }
  }
  if (&last + 1 == end() && flags_ != Flags::kHost) left.registers = deferrable_;
  flags_to_memory();
  return left;
}

// As far as it is known by now; what a block is linked to is looked at again.
bool Translator::can_do_without_flags(int64_t distance, uint32_t registers) const {
  const int64_t offset = page_offset() + distance;
  if (offset < 0 || offset >= static_cast<int64_t>(kPageSize)) return false;
  uint32_t written = kNeedsFlags;
  if (distance == 0) {
    written = registers_before_flags(ops_, by_handler_);
  } else {
    const uint64_t physical = block_.physical + static_cast<uint64_t>(distance);
    const Block* target = cpu_.blocks->index().find(block_key(physical, block_.mode.value));
    if (target == nullptr) return false;
    if (target->translation.code != nullptr)
      written = target->translation.registers_before_flags;
    else if (target->ops != nullptr)
      written = registers_before_flags({target->ops, target->op_count}, 0);
  }
  return (written & (registers | kNeedsFlags)) == 0;
}

void Translator::note_flags(const DeferredFlags& deferred) {
  code_.op(0xC7, 0, field(cpu_, cpu_.flags), false);
  code_.value(deferred.note());
  if (const auto immediate = deferred.wide_immediate()) {
    code_.op(0xC7, 0, field(cpu_, cpu_.flags_immediate), false);
    code_.value(*immediate);
  }
}

void Translator::before_look_up(const Op& op, bool keeps_flags) {
  if (flags_ == Flags::kHost && try_recipe(DeferredFlags::of(*producer_->instruction), op)) flags_ = Flags::kRecipe;
  keeps_flags_ = keeps_flags && flags_ != Flags::kRecipe;
  if (flags_ == Flags::kHost && !keeps_flags_) save_flags();
}

// From `op` on nobody reads the flags before they are all overwritten, and wherever a fault may show them until then,
// the registers are still those that the recipe needs. Or so it is up to the block's end, and the next one can do with
// a note.
bool Translator::try_recipe(const std::optional<DeferredFlags>& recipe, const Op& op) {
  if (!recipe) return false;
  const uint32_t needed = recipe->registers();
  bool is_valid = true;
  for (const Op* before = producer_ + 1; before != &op; ++before) {
    if (before->instruction->info == nullptr) return false;
    if ((written_registers(*before->instruction) & needed) != 0) is_valid = false;
  }
  const Op* last = end() - 1;
  const auto distance = distance_of_last_edge();
  const bool jumps = distance && *distance != last->end_offset;
  for (const Op* next = &op; next != (jumps ? last : end()); ++next) {
    const Instruction& instruction = *next->instruction;
    if (!is_native(instruction) || flags_read(instruction) != 0) return false;
    if (!is_valid && may_show_flags(instruction)) return false;
    if (changes_all_flags(instruction)) {
      recipe_ = recipe;
      return true;
    }
    if (flags_changed(instruction) != 0) return false;
    if ((written_registers(instruction) & needed) != 0) is_valid = false;
  }
  const bool pushes = last->instruction->mnemonic == Mnemonic::kCall && (needed >> cpu::kRsp & 1) != 0;
  if (!is_valid || pushes || block_.without_deferred_flags || !distance) return false;
  if (!can_do_without_flags(*distance, needed)) {
    deferrable_ = needed;
    return false;
  }
  recipe_ = recipe;
  return true;
}

// To where the block goes on when it comes to its end.
std::optional<int64_t> Translator::distance_of_last_edge() const {
  const Op& last = *(end() - 1);
  const Instruction& instruction = *last.instruction;
  if (instruction.info == nullptr) return std::nullopt;
  if (instruction.info->instruction_class != decoder::InstructionClass::kControl) return last.end_offset;
  const bool is_direct =
      instruction.info->operand_count == 1 && instruction.info->operands[0].kind == OperandKind::kRelative;
  if (!is_direct || (instruction.mnemonic != Mnemonic::kJmp && instruction.mnemonic != Mnemonic::kCall))
    return std::nullopt;
  return static_cast<int64_t>(last.immediate);
}

// Behind an instruction that leaves flags undefined, which are 0 here.
void Translator::leave_cleared_flags(const Op& op, uint16_t cleared) {
  if (&op + 1 != end()) {
    const Op& next = *(&op + 1);
    if (try_recipe(DeferredFlags::of(*op.instruction), next)) {
      flags_ = Flags::kRecipe;
      return;
    }
    if (try_recipe(DeferredFlags::with_bit(*op.instruction), next)) {
      const Memory bit = field(cpu_, cpu_.flags_immediate);
      code_.rex(false, 0, 0, bit.base);
      code_.byte(0x0F);
      code_.byte(static_cast<uint8_t>(0x90 | DeferredFlags::bit_condition(*op.instruction)));  // setcc
      code_.modrm_memory(0, bit);
      flags_ = Flags::kRecipe;
      return;
    }
  }
  save_flags(cleared);
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

// LAHF and SETO, in the form that ArithmeticFlags has, without those that `cleared` says. The host's flags stay, or
// become the same, or are lost.
void Translator::save_flags(uint16_t cleared) {
  code_.move(kScratch2, kRax);
  code_.byte(0x9F);
  code_.byte(0x0F);
  code_.byte(0x90);
  code_.modrm_register(0, kRax);
  flags_ = Flags::kBoth;
  if (cleared != 0) {
    code_.byte(0x25);  // and eax
    code_.value(~uint32_t{cleared});
  }
  code_.byte(0x66);
  code_.op(0x89, kRax, field(cpu_, cpu_.flags), false);
  if (cleared != 0) {
    // AND has cleared the host's OF, too.
    if ((cleared & ArithmeticFlags::kOverflow) != 0)
      code_.byte(0x9E);  // sahf
    else
      flags_ = Flags::kMemory;
  }
  code_.move(kRax, kScratch2);
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

// CF of those in memory; the host's others are lost.
void Translator::carry_to_host() {
  constexpr uint8_t kCarryBit = 8;
  static_assert(ArithmeticFlags::kCarry == 1 << kCarryBit);
  const Memory flags = field(cpu_, cpu_.flags);
  code_.byte(0x66);  // as wide as it was stored
  code_.rex(false, 0, 0, flags.base);
  code_.byte(0x0F);
  code_.byte(0xBA);  // bt
  code_.modrm_memory(4, flags);
  code_.byte(kCarryBit);
}

void Translator::restore_flags(Host temporary) {
  code_.move(temporary, kRax);
  load_flags();
  code_.move(kRax, temporary);
  flags_ = Flags::kBoth;
}

// By way of RAX. OF comes from an addition that overflows when it was set, the others by SAHF.
void Translator::load_flags() {
  code_.load_word(kRax, field(cpu_, cpu_.flags));  // as wide as it was stored, or it would have to wait
  code_.byte(0x04);                                // add al, 127
  code_.byte(0x7F);
  code_.byte(0x9E);
}

}  // namespace bulkhead::engine::jit
