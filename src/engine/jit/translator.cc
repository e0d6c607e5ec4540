#include "engine/jit/translator.h"

#include "engine/jit/instruction_kinds.h"

namespace bulkhead::engine::jit {
using decoder::Access;
using decoder::Instruction;
using decoder::Mnemonic;
using decoder::OpcodeMap;
using decoder::OperandKind;

namespace {

bool fits_32_bits(int64_t value) {
  return value == static_cast<int32_t>(value);
}

}  // namespace

struct Translator::Form {
  bool has_reg = false;
  uint8_t reg = 0;
  Access reg_access = Access::kNone;
  Access rm_access = Access::kNone;
  unsigned reg_size = 0, rm_size = 0;

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
    const bool high_byte =
        (has_reg && reg >= decoder::kHighByte) || (!instruction.has_memory() && instruction.rm >= decoder::kHighByte);
    return !high_byte && (!instruction.has_memory() || instruction.address_size == 8);
  }
};

bool Translator::run() {
  if (!block_.mode.code64() || block_.second_page != Block::kNoPage) return false;
  code_.clear();
  plan_simd();
  prologue();
  plan_x87();
  if (last_simd_ != nullptr) load_simd();
  for (const Op* op = block_.ops; op != end(); ++op) {
    if (!code_.has_room()) return false;
    if (native(*op)) {
      ++native_count_;
    } else {
      by_handler(*op);
      ended_ = op + 1 == end();
    }
  }
  if (!ended_) {
    flags_to_memory();
    edge(block_.length, *(end() - 1));
  }
  slow_paths();
  simd_slow_paths();
  x87_slow_paths();
  epilogue();
  return native_count_ != 0;
}

// Three ways in: with RIP in the Cpu, from the same page with a look at what could keep the block from running, and
// without. Nothing has happened yet when it turns away.
void Translator::prologue() {
  code_.load(kScratch, field(cpu_, cpu_.rip));
  code_.lea(kScratch, {kScratch, -page_offset()});
  code_.store(field(cpu_, cpu_.jit_page), kScratch);
  checked_ = code_.size();
  code_.load(kScratch, field(cpu_, cpu_.attention), false);
  code_.op(0x85, kScratch, field(cpu_, cpu_.attention_mask), false);
  looks_.push_back(code_.jump_if(kIfNotZero));
  if (cpu_.counted) {
    code_.load(kScratch, field(cpu_, cpu_.instruction_count));
    code_.immediate(0, kScratch, block_.op_count);
    code_.op(0x3B, kScratch, field(cpu_, cpu_.count_limit));
    looks_.push_back(code_.jump_if(kIfAbove));
  }
  const auto member = [&](const auto& of) {
    return static_cast<int32_t>(reinterpret_cast<const char*>(&of) - reinterpret_cast<const char*>(&block_));
  };
  code_.move(kScratch2, reinterpret_cast<uint64_t>(&block_));
  code_.load(kScratch, {kScratch2, member(block_.version)});
  code_.load(kScratch, {kScratch, 0}, false);
  code_.op(0x3B, kScratch, {kScratch2, member(block_.made_at_version)}, false);
  looks_.push_back(code_.jump_if(kIfNotZero));
  body_ = code_.size();
}

// What is seldom come to, behind the block.
void Translator::epilogue() {
  for (const SideExit& exit : side_exits_) {
    code_.bind_here(exit.jump);
    flags_ = exit.flags;
    flags_to_memory();
    edge(static_cast<int64_t>(exit.op->immediate), *exit.op);
  }
  for (const size_t look : looks_) code_.bind_here(look);
  set_rip(0);
  jump_to(jit_.leave_look_);
  for (size_t i = 0; i < edges_.size(); ++i) {
    Edge& edge = edges_[i];
    code_.bind_here(edge.jump);
    edge.unlinked = code_.size();
    set_rip(edge.distance);
    code_.move(kScratch, reinterpret_cast<uint64_t>(&block_));
    code_.store(field(cpu_, cpu_.jit_block), kScratch);
    code_.op(0xC7, 0, field(cpu_, cpu_.jit_edge), false);
    code_.value(static_cast<uint32_t>(i));
    code_.move(kScratch2, uint64_t{static_cast<uint32_t>(Exit::kEdge)});
    jump_to(jit_.leave_);
  }
}

Translation Translator::translation(const uint8_t* place) const {
  return {.code = place,
          .checked = place + checked_,
          .body = place + body_,
          .edges = {},
          .needs_masked_simd = last_simd_ != nullptr,
          .needs_masked_x87 = has_x87_};
}

bool Translator::native(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (simd(op) || x87(op)) return true;
  if (instruction.info == nullptr || instruction.is_vex() ||
      instruction.info->state != decoder::StateComponent::kGeneral) {
    return false;
  }
  switch (instruction.mnemonic) {
    case Mnemonic::kNop:
      return true;
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
    default:
      break;
  }
  if (!is_copied(instruction.mnemonic)) return false;
  if (instruction.modrm_offset != 0) return general(op) || high_byte(op);
  return move_immediate(op) || accumulator_or_none(op);
}

void Translator::call_handler(const Op& op) {
  code_.move(kScratch, reinterpret_cast<uint64_t>(&op));
  code_.move(kScratch2, reinterpret_cast<uint64_t>(&block_));
  const size_t place = code_.call();
  code_.set(place, jit_.call_handler_ - (jit_.cache_->end() + place + 4));
}

void Translator::by_handler(const Op& op) {
  flags_to_memory();
  call_handler(op);
  flags_ = Flags::kMemory;
  simd_loaded_ = false;
}

void Translator::slow_paths() {
  for (const Slow& slow : slow_) {
    code_.bind_here(slow.from);
    if (slow.recipe != nullptr) {
      follow_recipe(*slow.recipe);
      save_flags();
    }
    call_handler(*slow.op);
    if (slow.op + 1 == end() && slow.back == 0) continue;  // never comes back
    reload_simd(*slow.op);
    if (slow.flags_to_host) {
      flags_ = Flags::kMemory;
      restore_flags(kScratch2);
    }
    const size_t jump = code_.jump();
    code_.bind(jump, slow.back);
  }
}

// --- instructions that are copied ---

void Translator::encode(const Instruction& instruction, uint8_t reg, Host rm, bool is_memory, bool force_rex) {
  if (instruction.has(decoder::kPrefixLock)) code_.byte(0xF0);
  if (instruction.has(decoder::kPrefixOperandSize)) code_.byte(0x66);
  if (is_count(instruction.mnemonic)) code_.byte(0xF3);
  code_.rex(instruction.has(decoder::kPrefixW), reg, 0, rm, force_rex);
  if (instruction.opcode_map != OpcodeMap::kOneByte) code_.byte(0x0F);
  code_.byte(instruction.opcode);
  if (is_memory)
    code_.modrm_memory(reg, {rm, 0});
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
  save_flags();
  clear_flags(ArithmeticFlags::kAdjust);
  code_.op(0x89, kRcx, kScratch2, false);
  code_.immediate(4, kScratch2, shift_mask(instruction), false);
  code_.immediate(7, kScratch2, 1, false);
  const size_t by_one = code_.jump_if(kIfZero);
  clear_flags(ArithmeticFlags::kOverflow);
  code_.bind_here(by_one);
  code_.bind_here(done);
}

bool Translator::general(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (instruction.opcode_map != OpcodeMap::kOneByte && instruction.opcode_map != OpcodeMap::k0F) return false;
  if (instruction.has(decoder::kPrefixRep) || instruction.has(decoder::kPrefixRepne)) return false;
  Form form;
  if (!form.read(instruction)) return false;
  const bool is_memory = instruction.has_memory();
  const bool matters = flags_changed(instruction) != 0 && flags_matter_after(op);
  const bool shift = is_shift(instruction.mnemonic) || is_rotate(instruction.mnemonic);
  if (shift && shift_count(instruction) == 0) return false;
  const bool by_cl = counts_by_cl(instruction);
  const bool is_double = instruction.mnemonic == Mnemonic::kShld || instruction.mnemonic == Mnemonic::kShrd;
  if (is_double && (by_cl || instruction.operand_size == 2)) return false;
  const bool shifts_cl = !is_memory && instruction.rm == cpu::kRcx;  // the count is gone after it
  if (matters && by_cl && (is_memory || shifts_cl || is_rotate(instruction.mnemonic))) return false;
  const bool bit_test = is_bit_test(instruction.mnemonic);
  if (bit_test && is_memory && form.has_reg) return false;  // it may be any word beyond the address
  const bool keeps_some = flags_changed(instruction) != 0 && !changes_all_flags(instruction) &&
                          !is_shift(instruction.mnemonic) && !bit_test;
  // Only some of them are the host's; the others have to be in memory.
  if (matters && (bit_test || by_cl)) {
    flags_to_memory();
    flags_ = Flags::kMemory;
  }
  const bool needs_flags = flags_read(instruction) != 0 || (keeps_some && matters);

  Slow slow{.from = 0, .back = 0, .op = &op, .flags_to_host = false};
  Host rm = kScratch;
  if (is_memory) {
    const Access access = instruction.info->memory_access;
    if (instruction.memory_size == 0 || instruction.memory_size > 8 || access == Access::kNone) return false;
    if (!can_address(op)) return false;
    before_look_up(op);
    address(op);
    if (op.segment >= cpu::kFs) code_.op(0x03, kScratch, field(cpu_, cpu_.segments[op.segment].base));
    slow = slow_for(op, look_up(instruction.memory_size, writes(access)));
    after_look_up();
  }
  // LOCK across two cache lines is the handler's business, which does not lock the host's bus.
  const bool is_locked =
      is_memory && (instruction.has(decoder::kPrefixLock) || instruction.mnemonic == Mnemonic::kXchg);
  size_t misaligned = 0;
  if (is_locked && instruction.memory_size > 1) {
    code_.op(0xF7, 0, kScratch);  // test r13, size - 1
    code_.value(static_cast<int32_t>(instruction.memory_size - 1));
    misaligned = code_.jump_if(kIfNotZero);
  }
  if (needs_flags) flags_to_host();
  if (!is_memory) {
    rm = host_of(instruction.rm);
    if (rm == kNoHost) {
      rm = kScratch;
      const bool is_both = form.has_reg && form.reg == instruction.rm;
      if (is_both || reads(form.rm_access) || form.rm_size < 4) code_.load(rm, gpr(instruction.rm));
    }
  }
  uint8_t reg = instruction.reg;
  if (form.has_reg) {
    reg = host_of(form.reg);
    if (reg == kNoHost && !is_memory && form.reg == instruction.rm) {
      reg = rm;  // both operands are one register
    } else if (reg == kNoHost) {
      reg = kScratch2;
      if (reads(form.reg_access) || form.reg_size < 4) code_.load(kScratch2, gpr(form.reg));
    }
  }
  const bool force_rex =
      (form.has_reg && form.reg_size == 1 && reg >= 4) || (!is_memory && form.rm_size == 1 && rm >= 4);
  const auto copy = [&] {
    encode(instruction, reg, rm, is_memory, force_rex);
    code_.bytes(source(op).subspan(instruction.immediate_offset, instruction.immediate_length));
  };
  if (matters && by_cl) {
    shift_by_cl(instruction, copy);
  } else {
    copy();
  }
  if (!is_memory && rm == kScratch && writes(form.rm_access)) code_.store(gpr(instruction.rm), rm);
  const bool reg_is_scratch = reg == kScratch2 || (!is_memory && reg == kScratch);
  if (form.has_reg && reg_is_scratch && writes(form.reg_access)) code_.store(gpr(form.reg), static_cast<Host>(reg));
  if (flags_changed(instruction) != 0 && !(matters && by_cl))
    host_flags_of(op);
  else if (is_memory && flags_ != Flags::kRecipe)
    flags_ = Flags::kMemory;  // the slow way comes back without them
  if (is_memory) {
    slow.back = code_.size();
    slow.flags_to_host = matters;
    slow_.push_back(slow);
    if (misaligned != 0) {
      slow.from = misaligned;
      slow_.push_back(slow);
    }
  }
  if (matters && bit_test) {
    carry_to_memory();
  } else if (const uint16_t cleared = cleared_flags(instruction); matters && !by_cl && cleared != 0) {
    save_flags();
    clear_flags(cleared);
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
  code_.move(to == kNoHost ? kScratch : to, value);
  if (to == kNoHost) code_.store(gpr(instruction.rm), kScratch);
  return true;
}

bool Translator::load_address(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (instruction.address_size != 8 || instruction.operand_size < 4) return false;
  if (!can_address(op)) return false;
  address(op);
  const Host to = host_of(instruction.reg);
  const bool wide = instruction.operand_size == 8;
  if (to == kNoHost) {
    if (!wide) code_.op(0x89, kScratch, kScratch, false);
    code_.store(gpr(instruction.reg), kScratch);
  } else {
    code_.op(0x89, kScratch, to, wide);
  }
  return true;
}

// --- the stack ---

bool Translator::push(const Op& op) {
  const Instruction& instruction = *op.instruction;
  const OperandKind kind = instruction.info->operands[0].kind;
  if (instruction.operand_size != 8) return false;
  const bool immediate = kind == OperandKind::kImmediate;
  if (!immediate && kind != OperandKind::kGprOpcode) return false;
  before_look_up(op);
  code_.lea(kScratch, {kR12, -8});
  Slow slow = slow_for(op, look_up(8, true));
  after_look_up();
  if (immediate) {
    code_.op(0xC7, 0, Memory{kScratch, 0});
    code_.value(static_cast<int32_t>(op.immediate));
  } else {
    Host from = host_of(instruction.rm);
    if (from == kNoHost) {
      from = kScratch2;
      code_.load(from, gpr(instruction.rm));
    }
    code_.store({kScratch, 0}, from);
  }
  code_.lea(kR12, {kR12, -8});
  slow.back = code_.size();
  slow_.push_back(slow);
  return true;
}

bool Translator::pop(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (instruction.operand_size != 8 || instruction.info->operands[0].kind != OperandKind::kGprOpcode) return false;
  before_look_up(op);
  code_.move(kScratch, kR12);
  Slow slow = slow_for(op, look_up(8, false));
  after_look_up();
  code_.load(kScratch2, {kScratch, 0});
  code_.lea(kR12, {kR12, 8});
  if (const Host to = host_of(instruction.rm); to != kNoHost)
    code_.move(to, kScratch2);
  else
    code_.store(gpr(instruction.rm), kScratch2);
  slow.back = code_.size();
  slow_.push_back(slow);
  return true;
}

// --- transfers of control ---

bool Translator::control(const Op& op) {
  const Instruction& instruction = *op.instruction;
  const bool direct =
      instruction.info->operand_count == 1 && instruction.info->operands[0].kind == OperandKind::kRelative;
  bool done = false;
  if (instruction.mnemonic == Mnemonic::kRet) {
    done = ret(op);
  } else if (direct) {
    if (!fits_32_bits(static_cast<int64_t>(op.immediate))) return false;
    if (instruction.mnemonic == Mnemonic::kJcc) {
      conditional_jump(op);
      return true;
    } else if (instruction.mnemonic == Mnemonic::kJmp) {
      flags_to_memory();
      edge(static_cast<int64_t>(op.immediate), op);
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

// Not taken, the block goes on.
void Translator::conditional_jump(const Op& op) {
  flags_to_host();
  side_exits_.push_back({.jump = code_.jump_if(op.instruction->condition()), .op = &op, .flags = flags_});
}

bool Translator::call(const Op& op) {
  flags_to_memory();
  code_.lea(kScratch, {kR12, -8});
  slow_.push_back({.from = look_up(8, true), .back = 0, .op = &op, .flags_to_host = false});
  code_.load(kScratch2, field(cpu_, cpu_.jit_page));
  code_.lea(kScratch2, {kScratch2, page_offset() + op.end_offset});
  code_.store({kScratch, 0}, kScratch2);
  code_.lea(kR12, {kR12, -8});
  edge(static_cast<int64_t>(op.immediate), op);
  return true;
}

// R14 is where to go; one that is not canonical is the handler's.
void Translator::checked_target(const Op& op, std::vector<size_t>& misses) {
  (void)op;
  code_.move(kScratch, kScratch2);
  code_.shift_right_signed(kScratch, 47);
  code_.immediate(0, kScratch, 1);
  code_.immediate(7, kScratch, 1);
  misses.push_back(code_.jump_if(kIfAbove));
}

bool Translator::ret(const Op& op) {
  if (op.instruction->operand_size != 8) return false;
  flags_to_memory();
  code_.move(kScratch, kR12);
  std::vector<size_t> misses = {look_up(8, false)};
  code_.load(kScratch2, {kScratch, 0});
  checked_target(op, misses);
  code_.lea(kR12, {kR12, static_cast<int32_t>(8 + op.immediate)});
  finish_indirect(op);
  for (const size_t miss : misses) slow_.push_back({.from = miss, .back = 0, .op = &op, .flags_to_host = false});
  return true;
}

bool Translator::jump_indirect(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (instruction.operand_size != 8 || instruction.info->operands[0].kind != OperandKind::kGprRm) return false;
  std::vector<size_t> misses;
  if (instruction.has_memory()) {
    if (instruction.address_size != 8) return false;
    if (!can_address(op)) return false;
    flags_to_memory();
    address(op);
    if (op.segment >= cpu::kFs) code_.op(0x03, kScratch, field(cpu_, cpu_.segments[op.segment].base));
    misses.push_back(look_up(8, false));
    code_.load(kScratch2, {kScratch, 0});
  } else {
    flags_to_memory();
    if (const Host from = host_of(instruction.rm); from != kNoHost)
      code_.move(kScratch2, from);
    else
      code_.load(kScratch2, gpr(instruction.rm));
  }
  checked_target(op, misses);
  if (instruction.mnemonic == Mnemonic::kCall) {
    code_.store(field(cpu_, cpu_.jit_target), kScratch2);
    code_.lea(kScratch, {kR12, -8});
    misses.push_back(look_up(8, true));
    code_.load(kScratch2, field(cpu_, cpu_.jit_page));
    code_.lea(kScratch2, {kScratch2, page_offset() + op.end_offset});
    code_.store({kScratch, 0}, kScratch2);
    code_.lea(kR12, {kR12, -8});
    code_.load(kScratch2, field(cpu_, cpu_.jit_target));
  }
  finish_indirect(op);
  for (const size_t miss : misses) slow_.push_back({.from = miss, .back = 0, .op = &op, .flags_to_host = false});
  return true;
}

}  // namespace bulkhead::engine::jit
