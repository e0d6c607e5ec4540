// Vector instructions: SSE to SSE4.2, AES, PCLMULQDQ, SHA, AVX, AVX2, F16C and FMA are copied as they are, since every
// guest XMM and YMM register is the host's of the same number; only general registers and memory are the block's own.
// Those with an MMX register, masked memory, or a gather are the handlers', and so is everything while MXCSR does not
// mask all exceptions. Intel SDM volume 2, 2.3 and 2.4.
#include "engine/interpreter/simd/float_control.h"
#include "engine/interpreter/simd/registers.h"
#include "engine/jit/simd_state.h"
#include "engine/jit/translator.h"

namespace bulkhead::engine::jit {
namespace {

using decoder::Access;
using decoder::Instruction;
using decoder::InstructionClass;
using decoder::Mnemonic;
using decoder::OpcodeMap;
using decoder::OperandKind;

bool is_vzero(Mnemonic mnemonic) {
  return mnemonic == Mnemonic::kVzeroupper || mnemonic == Mnemonic::kVzeroall;
}

bool is_mxcsr_move(Mnemonic mnemonic) {
  return mnemonic == Mnemonic::kLdmxcsr || mnemonic == Mnemonic::kStmxcsr;
}

bool has_copied_operands(const Instruction& instruction) {
  bool has_vector = false;
  for (unsigned i = 0; i < instruction.info->operand_count; ++i) {
    switch (instruction.info->operands[i].kind) {
      case OperandKind::kXmmReg:
      case OperandKind::kXmmRm:
      case OperandKind::kXmmVvvv:
        has_vector = true;
        break;
      case OperandKind::kXmmIs4:
      case OperandKind::kXmm0:
      case OperandKind::kGprReg:
      case OperandKind::kGprRm:
      case OperandKind::kMemory:
      case OperandKind::kImmediate:
      case OperandKind::kUnsigned:
        break;
      default:
        return false;
    }
  }
  return has_vector;
}

bool has_general_operand(const Instruction& instruction) {
  for (unsigned i = 0; i < instruction.info->operand_count; ++i) {
    const OperandKind kind = instruction.info->operands[i].kind;
    if (kind == OperandKind::kGprReg || (kind == OperandKind::kGprRm && !instruction.has_memory())) return true;
  }
  return false;
}

// What has to be on the host's registers for the instruction to be copied; kSimdInCpu: it is not.
SimdLive needs(const Instruction& instruction, ModeBits mode) {
  if (instruction.info == nullptr || mode.has(ModeBits::kTaskSwitched)) return kSimdInCpu;
  const bool is_avx = instruction.info->state == decoder::StateComponent::kAvx;
  if (!is_avx && instruction.info->state != decoder::StateComponent::kSse) return kSimdInCpu;
  if (!mode.has(is_avx ? ModeBits::kAvx : ModeBits::kSse)) return kSimdInCpu;
  const SimdLive level = !is_avx ? kSimdXmm : instruction.vector_size == 32 ? kSimdYmm : kSimdClean;
  if (is_vzero(instruction.mnemonic)) return kSimdClean;
  const bool is_copied = instruction.info->instruction_class == InstructionClass::kCopy ||
                         instruction.info->instruction_class == InstructionClass::kCopyMemory;
  const bool is_mxcsr = is_mxcsr_move(instruction.mnemonic);
  if (!is_mxcsr && (!is_copied || !has_copied_operands(instruction))) return kSimdInCpu;
  if (instruction.has_memory() && (instruction.address_size != 8 || instruction.memory_size == 0 ||
                                   instruction.memory_size > 32 || instruction.info->memory_access == Access::kNone)) {
    return kSimdInCpu;
  }
  return is_mxcsr ? kSimdXmm : level;
}

// The prefix that is part of the opcode, as VEX.pp counts it: 0 none, 1 66, 2 F3, 3 F2.
uint8_t opcode_prefix(const Instruction& instruction, std::span<const uint8_t> source) {
  if (instruction.is_vex()) return source[instruction.opcode_offset - 1u] & 3;
  uint8_t operand_size = 0, repeat = 0;
  for (const uint8_t byte : source.first(instruction.opcode_offset)) {
    if (byte == 0x0F) break;
    if (byte == 0x66) operand_size = 1;
    if (byte == 0xF3) repeat = 2;
    if (byte == 0xF2) repeat = 3;
  }
  return repeat != 0 ? repeat : operand_size;
}

void put_opcode(Assembler& code, const Instruction& instruction, uint8_t prefix, uint8_t reg, uint8_t index,
                uint8_t rm) {
  const bool wide = instruction.has(decoder::kPrefixW);
  const auto map = static_cast<uint8_t>(instruction.opcode_map);
  if (instruction.is_vex()) {
    code.byte(0xC4);
    code.byte(static_cast<uint8_t>((reg < 8 ? 0x80 : 0) | (index < 8 ? 0x40 : 0) | (rm < 8 ? 0x20 : 0) | map));
    code.byte(static_cast<uint8_t>((wide ? 0x80 : 0) | (~instruction.vvvv & 15) << 3 |
                                   (instruction.vector_size == 32 ? 4 : 0) | prefix));
  } else {
    static constexpr std::array<uint8_t, 4> kPrefixes = {0, 0x66, 0xF3, 0xF2};
    if (prefix != 0) code.byte(kPrefixes[prefix]);
    code.rex(wide, reg, index, rm);
    code.byte(0x0F);
    if (instruction.opcode_map == OpcodeMap::k0F38) code.byte(0x38);
    if (instruction.opcode_map == OpcodeMap::k0F3A) code.byte(0x3A);
  }
  code.byte(instruction.opcode);
}
static_assert(static_cast<int>(OpcodeMap::k0F) == 1 && static_cast<int>(OpcodeMap::k0F3A) == 3);

}  // namespace

// Finds out what the block needs before its first instruction is translated.
void Translator::plan_simd() {
  for (const Op* op = ops_.data(); op != end(); ++op) {
    const SimdLive level = needs(*op->instruction, block_.mode);
    if (level == kSimdInCpu) continue;
    simd_level_ = std::max<uint32_t>(simd_level_, level);
    last_simd_ = op;
  }
}

// Copied, so without memory it cannot fault.
bool Translator::is_simd(const Op& op) const {
  return needs(*op.instruction, block_.mode) != kSimdInCpu;
}

// The host's registers hold what the block needs from here on. With nothing there yet the code behind the block's end
// loads it; at the block's beginning that may also turn away.
void Translator::load_simd() {
  flags_to_memory();
  flags_ = Flags::kMemory;
  code_.immediate(7, field(cpu_, cpu_.simd_live), static_cast<int32_t>(simd_level_), false);
  const size_t missing = code_.jump_if(kIfCarry);
  simd_loads_.push_back({missing, code_.size()});
  simd_loaded_ = true;
}

void Translator::call_simd_load() {
  call_common(jit_.load_simd_[simd_level_ - 1]);
}

// In front of the handler: an access to two pages that the TLB knows, and then back.
void Translator::simd_across_pages(const Slow& slow) {
  const Op& op = *slow.op;
  const Instruction& instruction = *op.instruction;
  if (!is_simd(op) || is_vzero(instruction.mnemonic) || is_mxcsr_move(instruction.mnemonic)) return;
  const Access access = instruction.info->memory_access;
  if (access != Access::kRead && access != Access::kWrite) return;
  if (simd::required_alignment(instruction) > 1 || has_general_operand(instruction)) return;
  const auto copy = [&](Memory memory) {
    put_opcode(code_, instruction, opcode_prefix(instruction, source(op)), instruction.reg, memory.index_number(),
               memory.base);
    code_.modrm_memory(instruction.reg, memory);
    code_.bytes(source(op).subspan(instruction.immediate_offset, instruction.immediate_length));
  };
  const bool writes = access == Access::kWrite;
  if (instruction.mnemonic == Mnemonic::kVcvtps2ph) return;  // leaves flags in MXCSR, which a fault must not show
  if (writes) copy(field(cpu_, cpu_.jit_crossing[0]));
  const Linear linear = address(op);
  code_.lea(kScratch, {linear.base, linear.displacement});
  if (writes) code_.move(kScratch2, uint64_t{instruction.memory_size});
  call_common(writes ? jit_.write_across_ : jit_.read_across_);
  code_.op(0x85, kScratch2, kScratch2);
  const size_t other = code_.jump_if(kIfZero);
  if (!writes) copy({kScratch});
  code_.bind(code_.jump(), slow.back);
  code_.bind_here(other);
}

// Behind a handler that stood in for `op`, which has left nothing on the host's registers.
void Translator::reload_simd(const Op& op) {
  if (last_simd_ != nullptr && &op < last_simd_) call_simd_load();
}

void Translator::simd_slow_paths() {
  for (const auto& [from, back] : simd_loads_) {
    code_.bind_here(from);
    set_rip(0);  // it turns away only at the block's beginning
    call_simd_load();
    code_.bind(code_.jump(), back);
  }
}

// Between MXCSR and the memory at place_. What is loaded comes from there once; anything but a value that masks all
// exceptions is the handler's, which then leaves the block; the result is the jump to it, 0 for a store.
size_t Translator::move_mxcsr(bool store) {
  const auto mxcsr = [&](uint8_t digit, Memory memory) {
    code_.rex(false, 0, memory.index_number(), memory.base);
    code_.byte(0x0F);
    code_.byte(0xAE);
    code_.modrm_memory(digit, memory);
  };
  if (store) {
    mxcsr(3, place_);
    return 0;
  }
  constexpr Memory kBelowStack{kRsp, -8};
  code_.load(kScratch2, place_, false);
  code_.op(0x89, kScratch2, kScratch, false);
  code_.immediate(4, kScratch, static_cast<int32_t>(~uint32_t{simd::kMxcsrWritable} | simd::kMxcsrMasks), false);
  code_.immediate(7, kScratch, simd::kMxcsrMasks, false);
  const size_t other = code_.jump_if(kIfNotZero);
  code_.store(kBelowStack, kScratch2, false);
  mxcsr(2, kBelowStack);
  return other;
}

bool Translator::simd(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (!is_simd(op)) return false;
  const bool is_memory = instruction.has_memory();
  if (is_memory && !can_address(op)) return false;
  if (!simd_loaded_) load_simd();
  if (is_vzero(instruction.mnemonic)) {
    code_.byte(0xC5);
    code_.byte(instruction.mnemonic == Mnemonic::kVzeroall ? 0xFC : 0xF8);
    code_.byte(0x77);
    return true;
  }

  Slow miss{.from = 0, .back = 0, .op = &op, .flags_to_host = false},
      second = miss;  // second: misaligned or not a plain MXCSR
  unsigned alignment = is_memory ? simd::required_alignment(instruction) : 1;
  if (alignment > 1 && is_known_to_be_aligned(alignment)) alignment = 1;
  if (is_memory) {
    const Access access = instruction.info->memory_access;
    const bool keeps_flags = alignment == 1 && !is_mxcsr_move(instruction.mnemonic) && joins_group();
    if (!keeps_flags) before_look_up(op);
    miss = second =
        slow_for(op, look_up(address(op), {.size = instruction.memory_size,
                                           .write = access != Access::kRead,
                                           .stack = instruction.base == cpu::kRsp,
                                           .scratch2_is_free = alignment == 1 && !has_general_operand(instruction)}));
    if (alignment > 1) {
      test_address(static_cast<uint8_t>(alignment - 1));
      second.from = code_.jump_if(kIfNotZero);
      note_alignment(alignment);
    }
    if (!keeps_flags) after_look_up();
  }

  if (is_mxcsr_move(instruction.mnemonic)) {
    const size_t other = move_mxcsr(instruction.mnemonic == Mnemonic::kStmxcsr);
    miss.back = second.back = code_.size();
    slow_.push_back(miss);
    if (other != 0) {
      second.from = other;
      slow_.push_back(second);
    }
    return true;
  }

  // General registers; at most one operand is one.
  uint8_t reg = instruction.reg, rm = is_memory ? uint8_t{place_.base} : instruction.rm;
  uint8_t written = decoder::kNoRegister;
  Host written_host = kNoHost;
  for (unsigned i = 0; i < instruction.info->operand_count; ++i) {
    const decoder::OperandSpec& operand = instruction.info->operands[i];
    const bool in_rm = operand.kind == OperandKind::kGprRm && !is_memory;
    if (!in_rm && operand.kind != OperandKind::kGprReg) continue;
    const uint8_t guest = in_rm ? instruction.rm : instruction.reg;
    Host host = host_of(guest);
    if (host == kNoHost) {
      host = kScratch2;
      if (operand.access != Access::kWrite) code_.load(host, gpr(guest));
      if (operand.access != Access::kRead) {
        written = guest;
        written_host = host;
      }
    }
    (in_rm ? rm : reg) = host;
  }

  put_opcode(code_, instruction, opcode_prefix(instruction, source(op)), reg,
             is_memory ? place_.index_number() : uint8_t{0}, rm);
  if (is_memory)
    code_.modrm_memory(reg, place_);
  else
    code_.modrm_register(reg, static_cast<Host>(rm));
  code_.bytes(source(op).subspan(instruction.immediate_offset, instruction.immediate_length));
  if (written_host != kNoHost) code_.store(gpr(written), written_host);
  const bool changes_flags = instruction.info->flags_written != 0;
  if (changes_flags) host_flags_of(op);
  if (is_memory) {
    miss.back = second.back = code_.size();
    miss.flags_to_host = second.flags_to_host = changes_flags;
    slow_.push_back(miss);
    if (alignment > 1) slow_.push_back(second);
  }
  return true;
}

}  // namespace bulkhead::engine::jit
