// Jumps, calls and returns: within the page to an edge that may be linked, else by the table of targets.
#include "engine/jit/translator.h"

namespace bulkhead::engine::jit {

using decoder::Instruction;
using decoder::Mnemonic;
using decoder::OperandKind;

// The target of a direct jump is a displacement away from the page.
bool Translator::reaches(const Op& op) const {
  return fits_32_bits(page_offset() + static_cast<int64_t>(op.immediate));
}

bool Translator::control(const Op& op) {
  const Instruction& instruction = *op.instruction;
  const bool direct =
      instruction.info->operand_count == 1 && instruction.info->operands[0].kind == OperandKind::kRelative;
  bool done = false;
  if (instruction.mnemonic == Mnemonic::kRet) {
    done = ret(op);
  } else if (direct) {
    if (!reaches(op)) return false;
    if (instruction.mnemonic == Mnemonic::kJcc) {
      conditional_jump(op);
      return true;
    } else if (instruction.mnemonic == Mnemonic::kJmp) {
      const auto distance = static_cast<int64_t>(op.immediate);
      edge(distance, op, leave_flags(distance, op));
      done = true;
    } else {
      done = call(op);
    }
  } else {
    done = jump_indirect(op);
  }
  ended_ = done;
  return done;
}

// Not taken, the block goes on; but for a round of a loop, which is left then. One that leads back is taken mostly, so
// its way out stands here and not behind the end.
void Translator::conditional_jump(const Op& op) {
  constexpr uint8_t kOpposite = 1;  // bit 0 of a condition
  flags_to_host();
  if (ends_round(op)) {
    side_exits_.push_back({.jump = code_.jump_if(op.instruction->condition() ^ kOpposite),
                           .op = &op,
                           .distance = op.end_offset,
                           .flags = flags_,
                           .producer = producer_});
    return;
  }
  if (const auto distance = static_cast<int64_t>(op.immediate); distance < op.offset) {
    const size_t goes_on = code_.jump_if(op.instruction->condition() ^ kOpposite);
    const auto flags = flags_;
    edge(distance, op, leave_flags(distance, op));
    flags_ = flags;
    code_.bind_here(goes_on);
    return;
  }
  side_exits_.push_back({.jump = code_.jump_if(op.instruction->condition()),
                         .op = &op,
                         .distance = static_cast<int64_t>(op.immediate),
                         .flags = flags_,
                         .producer = producer_});
}

// JRCXZ and LOOP, or by ECX; the last of their block.
bool Translator::count_jump(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (instruction.address_size < 4 || !reaches(op)) return false;
  const bool wide = instruction.address_size == 8;
  const bool is_loop = instruction.mnemonic == Mnemonic::kLoop;
  flags_to_memory();
  flags_ = Flags::kMemory;
  if (is_loop) code_.op(0x8D, kRcx, Memory{kRcx, -1}, wide);  // lea
  code_.op(0x85, kRcx, kRcx, wide);
  side_exits_.push_back({.jump = code_.jump_if(is_loop ? kIfNotZero : kIfZero),
                         .op = &op,
                         .distance = static_cast<int64_t>(op.immediate),
                         .flags = flags_,
                         .producer = nullptr});
  return true;
}

bool Translator::call(const Op& op) {
  const auto distance = static_cast<int64_t>(op.immediate);
  const Left flags = leave_flags(distance, op);
  slow_.push_back({.from = look_up(stack_address(-8), kPushed), .back = 0, .op = &op, .flags_to_host = false});
  code_.load(kScratch2, field(cpu_, cpu_.jit_page));
  code_.lea(kScratch2, {kScratch2, page_offset() + op.end_offset});
  code_.store(place_, kScratch2);
  code_.lea(kR12, {kR12, -8});
  edge(distance, op, flags);
  return true;
}

// R14 is where to go; one that is not canonical is the handler's.
void Translator::checked_target(std::vector<size_t>& misses) {
  code_.move(kScratch, kScratch2);
  code_.shift_right_signed(kScratch, 47);
  code_.immediate(0, kScratch, 1);
  code_.immediate(7, kScratch, 1);
  misses.push_back(code_.jump_if(kIfAbove));
}

bool Translator::ret(const Op& op) {
  if (op.instruction->operand_size != 8) return false;
  flags_to_memory();
  std::vector<size_t> misses = {look_up(stack_address(0), kPopped)};
  code_.load(kScratch2, place_);
  finish_checked(op, static_cast<int32_t>(8 + op.immediate), misses);
  for (const size_t miss : misses) slow_.push_back({.from = miss, .back = 0, .op = &op, .flags_to_host = false});
  return true;
}

// The target is looked up before the push: when it is known it is canonical.
void Translator::call_to_scratch2(const Op& op, std::vector<size_t>& misses) {
  const auto push_return = [&](bool has_slot) {
    code_.store(field(cpu_, cpu_.jit_target), has_slot ? kScratch : kScratch2);
    misses.push_back(look_up(stack_address(-8), kPushed));
    code_.load(kScratch2, field(cpu_, cpu_.jit_page));
    code_.lea(kScratch2, {kScratch2, page_offset() + op.end_offset});
    code_.store(place_, kScratch2);
    code_.lea(kR12, {kR12, -8});
    count_up_to(op);
  };
  const size_t other = jit_.emit_target_look_up(code_);
  push_return(true);
  code_.load(kScratch, field(cpu_, cpu_.jit_target));
  jit_.emit_target_reload(code_);
  jit_.emit_target_jump(code_);
  code_.bind_here(other);
  forget_groups();
  checked_target(misses);
  push_return(false);
  code_.load(kScratch2, field(cpu_, cpu_.jit_target));
  jump_to(jit_.search_target_);
}

bool Translator::jump_indirect(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (instruction.operand_size != 8 || instruction.info->operands[0].kind != OperandKind::kGprRm) return false;
  std::vector<size_t> misses;
  if (instruction.has_memory()) {
    if (instruction.address_size != 8) return false;
    if (!can_address(op)) return false;
    flags_to_memory();
    misses.push_back(look_up(address(op), {.size = 8, .write = false, .scratch2_is_free = true}));
    code_.load(kScratch2, place_);
  } else {
    flags_to_memory();
    if (const Host from = host_of(instruction.rm); from != kNoHost)
      code_.move(kScratch2, from);
    else
      code_.load(kScratch2, gpr(instruction.rm));
  }
  if (instruction.mnemonic != Mnemonic::kCall) {
    finish_checked(op, 0, misses);
  } else {
    call_to_scratch2(op, misses);
  }
  for (const size_t miss : misses) slow_.push_back({.from = miss, .back = 0, .op = &op, .flags_to_host = false});
  return true;
}

}  // namespace bulkhead::engine::jit
