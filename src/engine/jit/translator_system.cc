// Instructions of the system that kernels run at every entry, exit and critical section, as far as they are a few words
// of the Cpu. A block belongs to one CPL, so privilege is known here; what a register that can change while the block
// lives has to allow (CR4) is looked at each time. Everything else about them is the handler's (interpreter/system).
#include "engine/jit/translator.h"

namespace bulkhead::engine::jit {

using decoder::Instruction;
using decoder::Mnemonic;

bool Translator::system(const Op& op) {
  const bool is_kernel = (block_.mode.value & ModeBits::kCplMask) == 0;
  switch (op.instruction->mnemonic) {
    case Mnemonic::kPrefetch:
    case Mnemonic::kPrefetchw:
    case Mnemonic::kPrefetchnta:
    case Mnemonic::kPrefetcht0:
    case Mnemonic::kPrefetcht1:
    case Mnemonic::kPrefetcht2:
      return true;
    case Mnemonic::kCld:
      change_system_flags(4, ~int32_t{kFlagDirection});
      return true;
    case Mnemonic::kCli:
      if (!is_kernel) return false;
      change_system_flags(4, ~int32_t{kFlagInterrupt});
      code_.immediate(4, field(cpu_, cpu_.attention_mask), ~int32_t{kAttentionInterrupt}, false);
      return true;
    case Mnemonic::kSti:
      if (!is_kernel) return false;
      set_interrupt_flag(op);
      return true;
    case Mnemonic::kClac:
    case Mnemonic::kStac:
      if (!is_kernel) return false;
      change_access_check(op.instruction->mnemonic == Mnemonic::kStac);
      return true;
    case Mnemonic::kSwapgs:
      if (!is_kernel) return false;
      code_.load(kScratch, field(cpu_, cpu_.segments[cpu::kGs].base));
      code_.load(kScratch2, field(cpu_, cpu_.cold.msr_kernel_gs_base));
      code_.store(field(cpu_, cpu_.segments[cpu::kGs].base), kScratch2);
      code_.store(field(cpu_, cpu_.cold.msr_kernel_gs_base), kScratch);
      return true;
    case Mnemonic::kPushf:
      return push_flags(op);
    case Mnemonic::kMovFromControl:
      return is_kernel && move_from_control(op);
    case Mnemonic::kMovFromSegment:
      return move_from_segment(op);
    case Mnemonic::kRdfsbase:
    case Mnemonic::kRdgsbase:
    case Mnemonic::kWrfsbase:
    case Mnemonic::kWrgsbase:
      segment_base(op);
      return true;
    default:
      return false;
  }
}

// and (4), or (1).
void Translator::change_system_flags(uint8_t digit, int32_t operand) {
  flags_to_memory();
  flags_ = Flags::kMemory;
  code_.immediate(digit, field(cpu_, cpu_.system_flags), operand, false);
}

// The jump that is taken when the flag is set, or is not.
size_t Translator::jump_by_system_flag(int32_t flag, bool when_set) {
  flags_to_memory();
  flags_ = Flags::kMemory;
  code_.op(0xF7, 0, field(cpu_, cpu_.system_flags), false);
  code_.value(flag);
  return code_.jump_if(when_set ? kIfNotZero : kIfZero);
}

// The last of its block, and Jit::link() lets no edge of it lead past a look at attention.
void Translator::set_interrupt_flag(const Op& op) {
  const size_t is_set = jump_by_system_flag(kFlagInterrupt, true);
  change_system_flags(1, kFlagInterrupt);
  code_.immediate(1, field(cpu_, cpu_.attention_mask), kAttentionInterrupt, false);
  code_.load(kScratch, field(cpu_, cpu_.instruction_count));
  code_.lea(kScratch, {kScratch, static_cast<int32_t>(index_of(op) + 1)});
  code_.store(field(cpu_, cpu_.shadow_at_count), kScratch);
  code_.bind_here(is_set);
}

// What update_mode() would change: with SMAP, whose rights the accesses of the kernel have.
void Translator::change_access_check(bool set) {
  const size_t is_same = jump_by_system_flag(kFlagAlignmentCheck, set);
  change_system_flags(set ? 1 : 4, set ? int32_t{kFlagAlignmentCheck} : ~int32_t{kFlagAlignmentCheck});
  const mmu::Rights rights = set ? mmu::Rights::kSupervisor : mmu::Rights::kSupervisorNoUserData;
  const auto byte_operation = [&](uint8_t opcode, uint8_t digit, const mmu::Rights& member, mmu::Rights value) {
    code_.op(opcode, digit, field(cpu_, member), false);
    code_.byte(static_cast<uint8_t>(value));
  };
  byte_operation(0x80, 7, cpu_.system_rights, mmu::Rights::kSupervisorNoUserData);  // cmp
  const size_t no_smap = code_.jump_if(kIfNotZero);
  byte_operation(0xC6, 0, cpu_.rights, rights);  // mov
  byte_operation(0xC6, 0, cpu_.tlb.rights(), rights);
  code_.op(0xC7, 0, field(cpu_, cpu_.keeps_slots), false);
  code_.value(int32_t{set ? 1 : 0});
  code_.load(kScratch, field(cpu_, cpu_.tlb.choice(rights)));
  code_.store(field(cpu_, cpu_.tlb.current()), kScratch);
  code_.bind_here(is_same);
  code_.bind_here(no_smap);
}

bool Translator::push_flags(const Op& op) {
  if (op.instruction->operand_size != 8) return false;
  flags_to_memory();
  Slow slow = slow_for(op, look_up(stack_address(-8), kPushed));
  flags_ = Flags::kMemory;
  const Memory low = field(cpu_, cpu_.flags);
  code_.rex(false, kScratch2, 0, low.base);
  code_.byte(0x0F);
  code_.byte(0xB6);  // movzx r14d, SF ZF 0 AF 0 PF 1 CF
  code_.modrm_memory(kScratch2, {low.base, low.displacement + 1});
  code_.immediate(4, kScratch2, 0xD5, false);
  code_.op(0xF6, 0, low, false);  // test OF, 1
  code_.byte(1);
  const size_t no_overflow = code_.jump_if(kIfZero);
  code_.immediate(1, kScratch2, 1 << 11, false);
  code_.bind_here(no_overflow);
  code_.immediate(1, kScratch2, 2, false);
  code_.op(0x0B, kScratch2, field(cpu_, cpu_.system_flags), false);
  code_.immediate(4, kScratch2, ~int32_t{kFlagVirtual8086 | kFlagResume}, false);
  code_.store(place_, kScratch2);
  code_.lea(kR12, {kR12, -8});
  come_back(slow, false);
  return true;
}

// PUSH from memory. The second access may send the whole instruction to the handler: the first was to RAM.
bool Translator::push_memory(const Op& op) {
  const Instruction& instruction = *op.instruction;
  if (instruction.operand_size != 8 || instruction.address_size != 8 || !can_address(op)) return false;
  flags_to_memory();
  const Look read{.size = 8, .write = false, .stack = instruction.base == cpu::kRsp, .scratch2_is_free = true};
  Slow slow = slow_for(op, look_up(address(op), read));
  flags_ = Flags::kMemory;
  code_.load(kScratch2, place_);
  code_.store(field(cpu_, cpu_.jit_target), kScratch2);
  const size_t stack_miss = look_up(stack_address(-8), kPushed);
  code_.load(kScratch2, field(cpu_, cpu_.jit_target));
  code_.store(place_, kScratch2);
  code_.lea(kR12, {kR12, -8});
  come_back(slow, false);
  slow.from = stack_miss;
  come_back(slow, false);
  return true;
}

void Translator::to_register(uint8_t guest, Memory from, bool wide) {
  const Host to = host_of(guest);
  code_.load(to == kNoHost ? kScratch : to, from, wide);
  if (to == kNoHost) code_.store(gpr(guest), kScratch);
}

bool Translator::move_from_control(const Op& op) {
  const uint8_t rm = op.instruction->rm;
  switch (op.instruction->reg) {
    case 0:
      to_register(rm, field(cpu_, cpu_.cr0), true);
      return true;
    case 2:
      to_register(rm, field(cpu_, cpu_.cr2), true);
      return true;
    case 3:
      to_register(rm, field(cpu_, cpu_.cr3), true);
      return true;
    case 4:
      to_register(rm, field(cpu_, cpu_.cr4), true);
      return true;
    default:
      return false;
  }
}

bool Translator::move_from_segment(const Op& op) {
  const Instruction& instruction = *op.instruction;
  const unsigned segment = instruction.reg & 7;
  if (instruction.has_memory() || instruction.operand_size < 4 || segment > cpu::kGs) return false;
  const Host to = host_of(instruction.rm);
  const Host host = to == kNoHost ? kScratch : to;
  const Memory selector = field(cpu_, cpu_.segments[segment].selector);
  code_.rex(false, host, 0, selector.base);
  code_.byte(0x0F);
  code_.byte(0xB7);  // movzx
  code_.modrm_memory(host, selector);
  if (to == kNoHost) code_.store(gpr(instruction.rm), host);
  return true;
}

// RDFSBASE and its like: CR4 has to allow them, and what is written has to be canonical.
void Translator::segment_base(const Op& op) {
  const Instruction& instruction = *op.instruction;
  const bool is_fs = instruction.mnemonic == Mnemonic::kRdfsbase || instruction.mnemonic == Mnemonic::kWrfsbase;
  const bool reads = instruction.mnemonic == Mnemonic::kRdfsbase || instruction.mnemonic == Mnemonic::kRdgsbase;
  const bool wide = instruction.operand_size == 8;
  const Memory base = field(cpu_, cpu_.segments[is_fs ? cpu::kFs : cpu::kGs].base);
  flags_to_memory();
  flags_ = Flags::kMemory;
  std::vector<size_t> misses;
  code_.op(0xF7, 0, field(cpu_, cpu_.cr4));  // test
  code_.value(static_cast<int32_t>(kCr4Fsgsbase));
  misses.push_back(code_.jump_if(kIfZero));
  if (reads) {
    to_register(instruction.rm, base, wide);
  } else {
    const Host from = host_of(instruction.rm);
    if (from == kNoHost)
      code_.load(kScratch2, gpr(instruction.rm), wide);
    else
      code_.op(0x8B, kScratch2, from, wide);
    checked_target(misses);
    code_.store(base, kScratch2);
  }
  for (const size_t miss : misses)
    slow_.push_back({.from = miss, .back = code_.size(), .op = &op, .flags_to_host = false});
}

// CMPXCHG8B and CMPXCHG16B: their four registers are where the guest has them. What is not aligned is the handler's.
bool Translator::compare_exchange_pair(const Op& op) {
  const Instruction& instruction = *op.instruction;
  const unsigned size = instruction.mnemonic == Mnemonic::kCmpxchg16b ? 16 : 8;
  if (instruction.address_size != 8 || instruction.memory_size != size || !can_address(op)) return false;
  flags_to_memory();
  Slow slow = access(op, false, true);
  test_address(static_cast<uint8_t>(size - 1));
  const size_t misaligned = code_.jump_if(kIfNotZero);
  flags_to_host();
  if (instruction.has(decoder::kPrefixLock)) code_.byte(0xF0);
  code_.rex(size == 16, 1, place_.index_number(), place_.base);
  code_.byte(0x0F);
  code_.byte(0xC7);
  code_.modrm_memory(1, place_);
  host_flags_of(op);
  come_back(slow, true);
  slow.from = misaligned;
  come_back(slow, true);
  return true;
}

// BT and its like with a bit number in a register: it may be of any word beyond the address.
bool Translator::bit_in_memory(const Op& op) {
  const Instruction& instruction = *op.instruction;
  const bool wide = instruction.operand_size == 8;
  if (instruction.operand_size < 4 || instruction.address_size != 8 || !can_address(op)) return false;
  flags_to_memory();
  flags_ = Flags::kMemory;
  const Linear linear = address(op);
  code_.lea(kScratch, {linear.base, linear.displacement});
  const Host number = host_of(instruction.reg);
  const uint8_t opcode = wide ? 0x8B : 0x63;  // mov, movsxd
  if (number == kNoHost)
    code_.op(opcode, kScratch2, gpr(instruction.reg));
  else
    code_.op(opcode, kScratch2, number);
  code_.shift_right_signed(kScratch2, wide ? 6 : 5);
  code_.lea(kScratch, kScratch, kScratch2, wide ? 3 : 2, 0);
  const bool writes = instruction.mnemonic != Mnemonic::kBt;
  Slow slow = slow_for(op, look_up({}, {.size = instruction.operand_size, .write = writes}));
  size_t misaligned = 0;
  if (instruction.has(decoder::kPrefixLock)) {
    test_address(static_cast<uint8_t>(instruction.operand_size - 1));
    misaligned = code_.jump_if(kIfNotZero);
  }
  if (number == kNoHost)
    code_.load(kScratch2, gpr(instruction.reg), false);
  else
    code_.op(0x8B, kScratch2, number, false);
  code_.immediate(4, kScratch2, wide ? 63 : 31, false);
  encode(instruction, kScratch2, kScratch, true, false);
  flags_ = Flags::kHost;
  come_back(slow, true);
  if (misaligned != 0) {
    slow.from = misaligned;
    come_back(slow, true);
  }
  carry_to_memory();
  return true;
}

}  // namespace bulkhead::engine::jit
