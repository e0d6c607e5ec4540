#include "engine/jit/translator.h"

#include <algorithm>
#include <bit>

#include "engine/jit/deferred_flags.h"
#include "engine/jit/instruction_kinds.h"

namespace bulkhead::engine::jit {
using decoder::Access;
using decoder::Instruction;
using decoder::Mnemonic;
using decoder::OpcodeMap;
using decoder::OperandKind;

struct Translator::Form {
  bool has_reg = false;
  uint8_t reg = 0;
  Access reg_access = Access::kNone;
  Access rm_access = Access::kNone;
  unsigned reg_size = 0, rm_size = 0;

  [[nodiscard]] bool has_high_byte() const { return has_reg && reg >= decoder::kHighByte; }

  // False: an operand that the general way does not know.
  bool read(const Instruction& instruction) {
    for (unsigned i = 0; i < instruction.info->operand_count; ++i) {
      const decoder::OperandSpec& operand = instruction.info->operands[i];
      switch (operand.kind) {
        case OperandKind::kGprReg:
          has_reg = true;
          reg = instruction.reg;
          reg_access = operand.access;
          reg_size = operand_size_bytes(instruction, i);
          break;
        case OperandKind::kGprRm:
        case OperandKind::kMemory:
          rm_access = operand.access;
          rm_size = operand_size_bytes(instruction, i);
          break;
        case OperandKind::kImmediate:
        case OperandKind::kUnsigned:
        case OperandKind::kOne:
        case OperandKind::kCl:
          break;
        default:
          return false;
      }
    }
    // With memory a high byte goes by way of R14.
    const bool high_byte = instruction.has_memory() ? has_high_byte() && !__builtin_cpu_supports("bmi2")
                                                    : has_high_byte() || instruction.rm >= decoder::kHighByte;
    return !high_byte && (!instruction.has_memory() || instruction.address_size == 8);
  }
};

// A block that is left most of the time by a jump back to its beginning is translated several times over, as one: what
// all rounds share is looked up once, and flags, counts and attention are looked after once.
void Translator::plan_rounds() {
  constexpr size_t kMostRounds = 8;
  const std::span<const Op> ops(block_.ops, block_.op_count);
  ops_ = ops;
  const auto jumps_back = [](const Op& op) {
    return op.instruction->mnemonic == Mnemonic::kJcc && static_cast<int64_t>(op.immediate) == 0;
  };
  const auto last = std::ranges::find_if(ops, jumps_back);
  if (last == ops.end()) return;
  const auto body = ops.first(static_cast<size_t>(last - ops.begin()) + 1);
  const size_t rounds = std::min(kMostRounds, BlockCache::kMaximumOps / body.size());
  if (rounds < 2) return;
  rounds_.reserve(rounds * body.size());
  for (size_t i = 0; i < rounds; ++i) rounds_.insert(rounds_.end(), body.begin(), body.end());
  ops_ = rounds_;
  block_.loop_ops = static_cast<uint8_t>(body.size());
}

// Of an instruction of the block, bit n is set in `marks`: so it is for each round of it.
uint64_t Translator::in_all_rounds(uint64_t marks) const {
  if (block_.loop_ops == 0) return marks;
  uint64_t all = 0;
  for (size_t i = 0; i < ops_.size(); ++i) all |= (marks >> (i % block_.loop_ops) & 1) << i;
  return all;
}

bool Translator::run() {
  if (!block_.mode.code64() || block_.second_page != Block::kNoPage) return false;
  code_.clear();
  plan_simd();
  prologue();
  plan_x87();
  if (last_simd_ != nullptr) load_simd();
  if (!translate_from(ops_.data())) return false;
  const size_t once = block_.loop_ops != 0 ? block_.loop_ops : ops_.size();
  handler_count_ = static_cast<size_t>(std::popcount(by_handler_ & ((uint64_t{1} << once) - 1)));
  native_count_ = once - handler_count_;
  if (!crossings()) return false;
  emit_sites();
  slow_paths();
  simd_slow_paths();
  x87_slow_paths();
  epilogue();
  return !code_.overflows();
}

// To the block's end.
bool Translator::translate_from(const Op* first) {
  ended_ = false;
  for (const Op* op = first; op != end(); ++op) {
    if (!code_.has_room()) return false;
    current_ = op;
    if (native(*op)) continue;
    by_handler(*op);
    by_handler_ |= uint64_t{1} << index_of(*op);
    ended_ = op + 1 == end();
  }
  if (!ended_) {
    const Op& last = *(end() - 1);
    const Left flags = leave_flags(last.end_offset, last);
    edge(last.end_offset, last, flags);
  }
  return true;
}

// Three ways in: with RIP in R14, from the same page with a look at attention, and without. The count's limit holds for
// all of them. Nothing has happened yet when it turns away. No way in stands open to a block whose page has changed:
// who changes code asks for attention, or leaves its block, and then Jit::targets_ forgets all.
void Translator::prologue() {
  code_.lea(kScratch, {kScratch2, -page_offset()});
  code_.store(field(cpu_, cpu_.jit_page), kScratch);
  checked_ = code_.size();
  if (is_user()) {
    // Interrupts are hardly ever held off there, and if they are the run loop knows.
    code_.immediate(7, field(cpu_, cpu_.attention), 0, false);
  } else {
    code_.load(kScratch, field(cpu_, cpu_.attention), false);
    code_.op(0x85, kScratch, field(cpu_, cpu_.attention_mask), false);
  }
  looks_.push_back(code_.jump_if(kIfNotZero));
  body_ = code_.size();
  if (cpu_.counted) {
    code_.load(kScratch, field(cpu_, cpu_.instruction_count));
    code_.immediate(0, kScratch, static_cast<int32_t>(ops_.size()));
    code_.op(0x3B, kScratch, field(cpu_, cpu_.count_limit));
    looks_.push_back(code_.jump_if(kIfAbove));
  }
}

// What is seldom come to, behind the block.
void Translator::epilogue() {
  for (const SideExit& exit : side_exits_) {
    code_.bind_here(exit.jump);
    flags_ = exit.flags;
    producer_ = exit.producer;
    const Left flags = leave_flags(exit.distance, *exit.op);
    edge(exit.distance, *exit.op, flags);
  }
  for (const size_t look : looks_) code_.bind_here(look);
  code_.move(kScratch, static_cast<uint64_t>(page_offset()));
  jump_to(jit_.leave_look_at_);
  const uint32_t number = cpu_.blocks->number_of(block_);
  for (size_t i = 0; i < edges_.size(); ++i) {
    Edge& edge = edges_[i];
    code_.bind_here(edge.jump);
    edge.unlinked = code_.size();
    code_.move(kScratch, uint64_t{place_of(number, i)});
    jump_to(jit_.leave_edge_);
  }
}

Translation Translator::translation(const uint8_t* place) const {
  return {.code = place,
          .checked_at = static_cast<uint16_t>(checked_),
          .body_at = static_cast<uint16_t>(body_),
          .by_handler = by_handler_,
          .edge_count = static_cast<uint8_t>(edges_.size()),
          .registers_before_flags = registers_before_flags(ops_, by_handler_),
          .opens_interrupts = (end() - 1)->instruction->mnemonic == Mnemonic::kSti,
          .needs_masked_simd = last_simd_ != nullptr,
          .needs_masked_x87 = has_x87_};
}

bool Translator::native(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (simd(op) || x87(op)) return true;
  if (instruction.info == nullptr || instruction.info->state != decoder::StateComponent::kGeneral) return false;
  if (instruction.is_vex()) return vex_integer(op);
  switch (instruction.mnemonic) {
    case Mnemonic::kNop:
      return true;
    case Mnemonic::kJcxz:
    case Mnemonic::kLoop:
      return count_jump(op);
    case Mnemonic::kLfence:
    case Mnemonic::kSfence:
    case Mnemonic::kMfence:
      code_.bytes(source(op));
      return true;
    case Mnemonic::kLea:
      return load_address(op);
    case Mnemonic::kPush:
      return push(op);
    case Mnemonic::kPop:
      return pop(op);
    case Mnemonic::kJcc:
    case Mnemonic::kJmp:
    case Mnemonic::kCall:
    case Mnemonic::kRet:
      return control(op);
    case Mnemonic::kCbw:
    case Mnemonic::kCwd:
      code_.bytes(source(op));
      return true;
    case Mnemonic::kDiv:
    case Mnemonic::kIdiv:
      return divide(op);
    case Mnemonic::kLeave:
      return leave_frame(op);
    case Mnemonic::kBswap:
      return swap_bytes(op);
    case Mnemonic::kMovs:
    case Mnemonic::kStos:
      forget_groups();
      return repeated_string(op);
    case Mnemonic::kCmpxchg8b:
    case Mnemonic::kCmpxchg16b:
      return compare_exchange_pair(op);
    default:
      break;
  }
  if (system(op)) {
    forget_groups();  // whose rights accesses have may be others now, or where a segment is
    return true;
  }
  if (!is_copied(instruction.mnemonic)) return false;
  // With 16 bits, AMD's processors read 32 from memory and Intel's 16 (APM 3 and SDM 2, MOVSXD).
  if (instruction.mnemonic == Mnemonic::kMovsxd && instruction.operand_size == 2) return false;
  if (instruction.modrm_offset != 0) return general(op) || high_byte(op);
  return move_immediate(op) || accumulator_or_none(op);
}

void Translator::call_handler(const Op& op) {
  code_.move(kScratch, uint64_t{place_of(cpu_.blocks->number_of(block_), index_of(op))});
  call_common(jit_.call_handler_);
}

void Translator::call_common(const uint8_t* place) {
  const size_t call = code_.call();
  code_.set(call, place - (jit_.cache_->end() + call + 4));
}

void Translator::by_handler(const Op& op) {
  flags_to_memory();
  forget_groups();
  call_handler(op);
  flags_ = Flags::kMemory;
  simd_loaded_ = false;
}

// --- instructions that are copied ---

void Translator::encode(const Instruction& instruction, uint8_t reg, Host rm, bool is_memory, bool force_rex) {
  if (instruction.has(decoder::kPrefixLock)) code_.byte(0xF0);
  if (instruction.has(decoder::kPrefixOperandSize)) code_.byte(0x66);
  if (const uint8_t prefix = opcode_prefix(instruction.mnemonic); prefix != 0) code_.byte(prefix);
  code_.rex(instruction.has(decoder::kPrefixW), reg, is_memory ? place_.index_number() : uint8_t{0},
            is_memory ? place_.base : rm, force_rex);
  if (instruction.opcode_map != OpcodeMap::kOneByte) code_.byte(0x0F);
  if (instruction.opcode_map == OpcodeMap::k0F38) code_.byte(0x38);
  code_.byte(instruction.opcode);
  if (is_memory)
    code_.modrm_memory(reg, place_);
  else
    code_.modrm_register(reg, rm);
}

template <typename Copy>
void Translator::shift_by_cl(const Instruction& instruction, Copy&& copy) {
  code_.byte(0xF6);  // test cl, mask
  code_.modrm_register(0, kRcx);
  code_.byte(shift_mask(instruction));
  const size_t counted = code_.jump_if(kIfNotZero);
  copy();
  const size_t done = code_.jump();
  code_.bind_here(counted);
  copy();
  save_flags(ArithmeticFlags::kAdjust);
  code_.op(0x89, kRcx, kScratch2, false);
  code_.immediate(4, kScratch2, shift_mask(instruction), false);
  code_.immediate(7, kScratch2, 1, false);
  const size_t by_one = code_.jump_if(kIfZero);
  clear_flags(ArithmeticFlags::kOverflow);
  code_.bind_here(by_one);
  code_.bind_here(done);
}

// A register that lives in the Cpu, as ModRM's operand: the instruction can reach it there.
bool Translator::stays_in_cpu(const Instruction& instruction, const Form& form) {
  if (instruction.has_memory() || host_of(instruction.rm) != kNoHost) return false;
  if (form.has_reg && form.reg == instruction.rm) return false;
  if (is_bit_test(instruction.mnemonic) || counts_by_cl(instruction)) return false;  // mean something else, or are slow
  switch (instruction.mnemonic) {
    case Mnemonic::kXchg:  // would lock
    case Mnemonic::kXadd:
    case Mnemonic::kCmpxchg:
      return false;
    default:  // a 32-bit result has to clear the upper half
      return form.rm_access == Access::kRead || form.rm_size == 8;
  }
}

// OP rm, reg with a source that lives in the Cpu, the other way round: OP reg, memory.
bool Translator::source_in_cpu(const Op& op, const Form& form) {
  const Instruction& instruction = *op.instruction;
  if (instruction.has_memory() || instruction.opcode_map != OpcodeMap::kOneByte || instruction.operand_size < 4)
    return false;
  if (!form.has_reg || form.reg_access != Access::kRead || host_of(form.reg) != kNoHost) return false;
  const Host to = host_of(instruction.rm);
  if (to == kNoHost) return false;
  constexpr uint8_t kTest = 0x85, kMove = 0x89, kLastArithmetic = 0x39, kFromMemory = 2;
  const uint8_t opcode = instruction.opcode;
  const bool is_arithmetic = opcode <= kLastArithmetic && (opcode & 7) == 1;
  if (opcode != kTest && opcode != kMove && !is_arithmetic) return false;
  if (flags_read(instruction) != 0) flags_to_host();
  code_.op(opcode == kTest ? opcode : static_cast<uint8_t>(opcode | kFromMemory), to, gpr(form.reg),
           instruction.has(decoder::kPrefixW));
  if (flags_changed(instruction) != 0) host_flags_of(op);
  return true;
}

// Bits 15:8 of RAX, RCX, RDX or RBX become the lowest of `from`; no flag changes.
void Translator::insert_high_byte(uint8_t number, Host from) {
  const auto whole = static_cast<Host>(number & 3);
  code_.rotate_right(whole, whole, 8);
  code_.rex(false, from, 0, whole);
  code_.byte(0x88);
  code_.modrm_register(from, whole);
  code_.rotate_right(whole, whole, 56);
}

bool Translator::general(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (instruction.has(decoder::kPrefixRep) || instruction.has(decoder::kPrefixRepne)) return false;
  Form form;
  if (!form.read(instruction)) return false;
  if (source_in_cpu(op, form)) return true;
  const bool is_memory = instruction.has_memory();
  const bool in_cpu = stays_in_cpu(instruction, form);
  const bool matters = flags_changed(instruction) != 0 && flags_matter_after(op);
  const bool shift = is_shift(instruction.mnemonic) || is_rotate(instruction.mnemonic);
  if (shift && shift_count(instruction) == 0) return false;
  const bool by_cl = counts_by_cl(instruction);
  const bool is_double = instruction.mnemonic == Mnemonic::kShld || instruction.mnemonic == Mnemonic::kShrd;
  if (is_double && (by_cl || instruction.operand_size == 2)) return false;
  const bool shifts_cl = !is_memory && instruction.rm == cpu::kRcx;  // the count is gone after it
  if (matters && by_cl && (is_memory || shifts_cl || is_rotate(instruction.mnemonic))) return false;
  const bool bit_test = is_bit_test(instruction.mnemonic);
  if (bit_test && is_memory && form.has_reg) return bit_in_memory(op);
  const bool keeps_some = flags_changed(instruction) != 0 && !changes_all_flags(instruction) &&
                          !is_shift(instruction.mnemonic) && !bit_test;
  // Only some of them are the host's; the others have to be in memory.
  if (matters && (bit_test || by_cl)) {
    flags_to_memory();
    flags_ = Flags::kMemory;
  }
  const bool needs_flags = flags_read(instruction) != 0 || (keeps_some && matters);

  // LOCK across two cache lines is the handler's business, which does not lock the host's bus.
  const bool is_locked =
      is_memory && (instruction.has(decoder::kPrefixLock) || instruction.mnemonic == Mnemonic::kXchg);
  const bool tests_address = is_locked && instruction.memory_size > 1;
  Slow slow{.from = 0, .back = 0, .op = &op, .flags_to_host = false};
  Host rm = kScratch;
  if (is_memory) {
    if (instruction.memory_size == 0 || instruction.memory_size > 8) return false;
    if (instruction.info->memory_access == Access::kNone || !can_address(op)) return false;
    slow = access(op, !tests_address && !needs_flags && (!form.has_reg || host_of(form.reg) != kNoHost), tests_address);
  }
  size_t misaligned = 0;
  if (tests_address) {
    test_address(static_cast<uint8_t>(instruction.memory_size - 1));
    misaligned = code_.jump_if(kIfNotZero);
  }
  const bool wants_carry_alone = flags_read(instruction) == decoder::kFlagCf &&
                                 (changes_all_flags(instruction) || flags_changed(instruction) == 0);
  if (needs_flags && wants_carry_alone && flags_ == Flags::kMemory)
    carry_to_host();
  else if (needs_flags)
    flags_to_host();
  if (in_cpu) {
    place_ = gpr(instruction.rm);
  } else if (!is_memory) {
    rm = host_of(instruction.rm);
    if (rm == kNoHost) {
      rm = kScratch;
      const bool is_both = form.has_reg && form.reg == instruction.rm;
      const bool is_zero = is_both && form.rm_size >= 4 &&
                           (instruction.mnemonic == Mnemonic::kXor || instruction.mnemonic == Mnemonic::kSub);
      const bool is_read = is_both || reads(form.rm_access) || form.rm_size < 4;
      if (is_read && !is_zero) code_.load(rm, gpr(instruction.rm));
    }
  }
  uint8_t reg = instruction.reg;
  if (form.has_reg) {
    reg = host_of(form.reg);
    if (form.has_high_byte()) {
      reg = kScratch2;
      code_.rotate_right(kScratch2, static_cast<Host>(form.reg & 3), 8);
    } else if (reg == kNoHost && !is_memory && form.reg == instruction.rm) {
      reg = rm;  // both operands are one register
    } else if (reg == kNoHost) {
      reg = kScratch2;
      if (reads(form.reg_access) || form.reg_size < 4) code_.load(kScratch2, gpr(form.reg));
    }
  }
  const bool force_rex =
      (form.has_reg && form.reg_size == 1 && reg >= 4) || (!is_memory && !in_cpu && form.rm_size == 1 && rm >= 4);
  const auto copy = [&] {
    encode(instruction, reg, rm, is_memory || in_cpu, force_rex);
    code_.bytes(source(op).subspan(instruction.immediate_offset, instruction.immediate_length));
  };
  if (matters && by_cl) {
    shift_by_cl(instruction, copy);
  } else {
    copy();
  }
  if (!is_memory && !in_cpu && rm == kScratch && writes(form.rm_access)) code_.store(gpr(instruction.rm), rm);
  const bool reg_is_scratch = reg == kScratch2 || (!is_memory && reg == kScratch);
  if (form.has_reg && reg_is_scratch && writes(form.reg_access)) {
    if (form.has_high_byte())
      insert_high_byte(form.reg, kScratch2);
    else
      code_.store(gpr(form.reg), static_cast<Host>(reg));
  }
  if (flags_changed(instruction) != 0 && !(matters && by_cl)) host_flags_of(op);
  if (is_memory) {
    come_back(slow, matters);
    if (misaligned == 0) {
      note_delta_in_scratch(slow);
    } else {
      slow.from = misaligned;
      come_back(slow, matters);
    }
  }
  if (matters && bit_test) {
    carry_to_memory();
  } else if (const uint16_t cleared = cleared_flags(instruction); matters && !by_cl && cleared != 0) {
    leave_cleared_flags(op, cleared);
  }
  return true;
}

// ADD AL, imm and its like: the registers are where the guest has them.
bool Translator::accumulator_or_none(const Op& op) {
  const Instruction& instruction = *op.instruction;
  for (unsigned i = 0; i < instruction.info->operand_count; ++i) {
    const OperandKind kind = instruction.info->operands[i].kind;
    if (kind != OperandKind::kAccumulator && kind != OperandKind::kImmediate && kind != OperandKind::kUnsigned)
      return false;
  }
  const bool undefined = (instruction.info->flags_undefined & decoder::kArithmeticFlags) != 0;
  if (undefined && !is_logic(instruction.mnemonic)) return false;
  if (flags_read(instruction) != 0) flags_to_host();
  code_.bytes(source(op));
  if (flags_changed(instruction) != 0) host_flags_of(op);
  return true;
}

// AH, CH, DH and BH, which no instruction with a REX prefix can name: copied as it stands where the other operand is
// the host's register of the same number too.
bool Translator::high_byte(const Op& op) {
  const Instruction& instruction = *op.instruction;
  switch (instruction.mnemonic) {
    case Mnemonic::kMov:
    case Mnemonic::kMovzx:
    case Mnemonic::kAdd:
    case Mnemonic::kSub:
    case Mnemonic::kAnd:
    case Mnemonic::kOr:
    case Mnemonic::kXor:
    case Mnemonic::kCmp:
    case Mnemonic::kTest:
      break;
    default:
      return false;
  }
  if (instruction.has_memory() || instruction.has(decoder::kPrefixRex) || instruction.has(decoder::kPrefixRep) ||
      instruction.has(decoder::kPrefixRepne)) {
    return false;
  }
  bool has_high_byte = false;
  for (unsigned i = 0; i < instruction.info->operand_count; ++i) {
    const OperandKind kind = instruction.info->operands[i].kind;
    if (kind == OperandKind::kImmediate || kind == OperandKind::kUnsigned) continue;
    if (kind != OperandKind::kGprReg && kind != OperandKind::kGprRm) return false;
    const uint8_t guest = kind == OperandKind::kGprReg ? instruction.reg : instruction.rm;
    if (guest < decoder::kHighByte && host_of(guest) != guest) return false;
    has_high_byte = has_high_byte || guest >= decoder::kHighByte;
  }
  if (!has_high_byte) return false;
  code_.bytes(source(op));
  if (flags_changed(instruction) != 0) host_flags_of(op);
  return true;
}

bool Translator::move_immediate(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (instruction.mnemonic != Mnemonic::kMov || instruction.info->operands[0].kind != OperandKind::kGprOpcode ||
      instruction.operand_size < 4) {
    return false;
  }
  const uint64_t value = instruction.operand_size == 8 ? op.immediate : static_cast<uint32_t>(op.immediate);
  const Host to = host_of(instruction.rm);
  if (to == kNoHost && fits_32_bits(static_cast<int64_t>(value))) {
    code_.op(0xC7, 0, gpr(instruction.rm));
    code_.value(static_cast<int32_t>(value));
    return true;
  }
  code_.move(to == kNoHost ? kScratch : to, value);
  if (to == kNoHost) code_.store(gpr(instruction.rm), kScratch);
  return true;
}

bool Translator::load_address(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (instruction.address_size != 8 || instruction.operand_size < 4) return false;
  if (!can_address(op)) return false;
  const Host to = host_of(instruction.reg);
  const bool wide = instruction.operand_size == 8;
  const Host result = to == kNoHost ? kScratch : to;
  const Host base = instruction.base < 16 ? host_of(instruction.base) : kNoHost;
  const Host index = instruction.index < 16 ? host_of(instruction.index) : kNoHost;
  if (base != kNoHost && index != kNoHost) {
    code_.lea(result, base, index, instruction.scale_log2, static_cast<int32_t>(instruction.displacement), wide);
  } else {
    const Linear linear = address(op);
    code_.op(0x8D, result, Memory{linear.base, linear.displacement}, wide);
  }
  if (to == kNoHost) code_.store(gpr(instruction.reg), result);
  return true;
}

// --- the stack ---

// Again, for a slow way: the same as address() or the stack's gave.
Linear Translator::linear_of(const Op& op) {
  switch (op.instruction->mnemonic) {
    case Mnemonic::kPush:
      return stack_address(-8);
    case Mnemonic::kPop:
      return stack_address(0);
    case Mnemonic::kLeave:
      return {.base = kRbp};
    default:
      return address(op);
  }
}

bool Translator::push(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (instruction.has_memory()) return push_memory(op);
  const OperandKind kind = instruction.info->operands[0].kind;
  if (instruction.operand_size != 8) return false;
  const bool immediate = kind == OperandKind::kImmediate;
  if (!immediate && kind != OperandKind::kGprOpcode) return false;
  const Slow slow = stack_access(op, stack_address(-8), kPushed);
  if (immediate) {
    code_.op(0xC7, 0, place_);
    code_.value(static_cast<int32_t>(op.immediate));
  } else {
    Host from = host_of(instruction.rm);
    if (from == kNoHost) {
      from = kScratch2;
      code_.load(from, gpr(instruction.rm));
    }
    code_.store(place_, from);
  }
  code_.lea(kR12, {kR12, -8});
  come_back(slow, false);
  note_delta_in_scratch(slow);
  return true;
}

bool Translator::pop(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (instruction.operand_size != 8 || instruction.info->operands[0].kind != OperandKind::kGprOpcode) return false;
  const Slow slow = stack_access(op, stack_address(0), kPopped);
  const Host to = host_of(instruction.rm);
  code_.load(to == kNoHost ? kScratch2 : to, place_);
  if (to != kR12) code_.lea(kR12, {kR12, 8});
  if (to == kNoHost) code_.store(gpr(instruction.rm), kScratch2);
  come_back(slow, false);
  note_delta_in_scratch(slow);
  return true;
}

}  // namespace bulkhead::engine::jit
