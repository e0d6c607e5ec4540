// x87 instructions that compute, load or store run as they are on the host's unit, which holds the guest's registers,
// control and status word; so do FLDCW, FNSTCW and FNSTSW. Environments and whole states are the handlers', and so is
// everything while the control word does not mask all exceptions. Intel SDM volume 1, chapter 8.
#include "engine/interpreter/x87/image.h"
#include "engine/jit/translator.h"
#include "engine/jit/x87_state.h"

namespace bulkhead::engine::jit {
namespace {

using decoder::Instruction;
using decoder::Mnemonic;

bool is_control(Mnemonic mnemonic) {
  return mnemonic == Mnemonic::kFldcw || mnemonic == Mnemonic::kFnstcw || mnemonic == Mnemonic::kFnstsw;
}
bool is_environment(Mnemonic mnemonic) {
  switch (mnemonic) {
    case Mnemonic::kFnstenv:
    case Mnemonic::kFldenv:
    case Mnemonic::kFnsave:
    case Mnemonic::kFrstor:
    case Mnemonic::kFnclex:
    case Mnemonic::kFninit:
      return true;
    default:
      return false;
  }
}

}  // namespace

bool Translator::is_x87(const Op& op) const {
  const Instruction& instruction = *op.instruction;
  if (instruction.info == nullptr || instruction.info->state != decoder::StateComponent::kX87 || instruction.is_vex() ||
      instruction.opcode_map != decoder::OpcodeMap::kOneByte || (instruction.opcode & 0xF8) != 0xD8 ||
      is_environment(instruction.mnemonic) || block_.mode.has(ModeBits::kX87Off) || !host_can_hold_x87()) {
    return false;
  }
  return !instruction.has_memory() ||
         (instruction.address_size == 8 && instruction.memory_size != 0 && instruction.memory_size <= 10 &&
          instruction.info->memory_access != decoder::Access::kNone && can_address(op));
}

// At the block's beginning. What unmasks exceptions later leaves the block.
void Translator::plan_x87() {
  for (const Op* op = ops_.data(); op != end() && !has_x87_; ++op) has_x87_ = is_x87(*op);
  if (!has_x87_) return;
  // While the unit is live its old control word is here, and masks them as well.
  code_.load(kScratch, field(cpu_, cpu_.xsave[x87::kControlOffset]), false);
  code_.immediate(4, kScratch, x87::kControlMasks, false);
  code_.immediate(7, kScratch, x87::kControlMasks, false);
  looks_.push_back(code_.jump_if(kIfNotZero));
}

// Right in front of the instruction, so that the exception pointers change only with it.
void Translator::load_x87(uint32_t level) {
  code_.immediate(7, field(cpu_, cpu_.x87_live), static_cast<int32_t>(level), false);
  const size_t missing = code_.jump_if(kIfCarry);
  x87_loads_.push_back({missing, code_.size(), level});
}

void Translator::x87_slow_paths() {
  for (const auto& [from, back, level] : x87_loads_) {
    code_.bind_here(from);
    const size_t place = code_.call();
    code_.set(place, jit_.load_x87_[level - 1] - (jit_.cache_->end() + place + 4));
    code_.bind(code_.jump(), back);
  }
}

bool Translator::x87(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (!has_x87_ || !is_x87(op)) return false;
  const bool is_memory = instruction.has_memory();
  flags_to_memory();
  Slow miss{.from = 0, .back = 0, .op = &op, .flags_to_host = false};
  if (is_memory) {
    miss = slow_for(op, look_up(address(op), {.size = instruction.memory_size,
                                              .write = instruction.info->memory_access != decoder::Access::kRead}));
  }
  load_x87(is_control(instruction.mnemonic) ? kX87Loaded : kX87Computed);
  flags_ = Flags::kMemory;
  const uint32_t flags = instruction.info->flags_read | instruction.info->flags_written;
  if (flags != 0) restore_flags(kScratch2);
  if (instruction.mnemonic == Mnemonic::kFldcw) {
    const size_t other = load_x87_control();
    miss.back = code_.size();
    slow_.push_back({.from = other, .back = code_.size(), .op = &op, .flags_to_host = false});
    slow_.push_back(miss);
    return true;
  }
  if (is_memory) {
    code_.op(instruction.opcode, instruction.reg & 7, place_, false);
    miss.back = code_.size();
    slow_.push_back(miss);
  } else {
    code_.byte(instruction.opcode);
    code_.modrm_register(instruction.reg & 7, static_cast<Host>(instruction.rm & 7));
  }
  if (instruction.info->flags_written != 0) host_flags_of(op);
  return true;
}

// From the memory at place_, which is read once. A value that unmasks an exception is the handler's, which then leaves
// the block; the result is the jump to it.
size_t Translator::load_x87_control() {
  constexpr Memory kBelowStack{kRsp, -8};
  code_.rex(false, kScratch2, place_.index_number(), place_.base);
  code_.byte(0x0F);
  code_.byte(0xB7);  // movzx r14d, word
  code_.modrm_memory(kScratch2, place_);
  code_.op(0x89, kScratch2, kScratch, false);
  code_.immediate(4, kScratch, x87::kControlMasks, false);
  code_.immediate(7, kScratch, x87::kControlMasks, false);
  const size_t other = code_.jump_if(kIfNotZero);
  code_.immediate(4, kScratch2, x87::kControlWritable, false);
  code_.immediate(1, kScratch2, x87::kControlFixed, false);
  code_.store(kBelowStack, kScratch2, false);
  code_.byte(0xD9);
  code_.modrm_memory(5, kBelowStack);
  return other;
}

}  // namespace bulkhead::engine::jit
