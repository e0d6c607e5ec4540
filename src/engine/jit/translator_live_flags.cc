// Accesses to memory that the host's flags live through, because an instruction behind them wants them: the look into a
// PackedSlot is made of instructions that change no flag. Only where PEXT is fast; elsewhere, and where there is no
// slot, the flags go to Cpu::flags and back.
#include <bit>
#include <cstddef>

#include "engine/jit/instruction_kinds.h"
#include "engine/jit/translator.h"

namespace bulkhead::engine::jit {
namespace {

constexpr int32_t kTagRead = offsetof(mmu::TlbEntry, tag_read), kTagWrite = offsetof(mmu::TlbEntry, tag_write),
                  kDelta = offsetof(mmu::TlbEntry, delta), kTagExecute = offsetof(mmu::TlbEntry, tag_execute);

// Before their third generation AMD's Zen processors do PEXT bit by bit.
bool extracts_bits_fast() {
  static const bool fast =
      __builtin_cpu_supports("bmi2") != 0 && !__builtin_cpu_is("znver1") && !__builtin_cpu_is("znver2");
  return fast;
}

}  // namespace

// Whether it is better to keep the host's flags through this access than to save them before it.
bool Translator::should_keep_flags(const Op& op, Look look) const {
  if (flags_ != Flags::kHost && flags_ != Flags::kBoth) return false;
  if (group_span()) return false;
  if (look.size > 8 || !std::has_single_bit(look.size) || !has_slot(look.stack) || !extracts_bits_fast()) return false;
  // A locked instruction looks for its alignment by a test.
  if (op.instruction->has(decoder::kPrefixLock) || op.instruction->mnemonic == decoder::Mnemonic::kXchg) return false;
  unsigned accesses = 0;
  for (const Op* next = &op; next != end(); ++next) {
    const Instruction& instruction = *next->instruction;
    if (!is_native(instruction)) return false;  // the handler wants them in memory
    if (flags_read(instruction) != 0) return true;
    accesses += may_access_memory(instruction) ? 1 : 0;
    if (changes_all_flags(instruction)) return flags_ == Flags::kHost && accesses == 1;
  }
  return false;  // what follows the block wants them in memory
}

// As look_up().
size_t Translator::look_up_keeping_flags(const Op& op, Linear linear, Look look) {
  using mmu::Slots;
  const auto size_log2 = static_cast<unsigned>(std::countr_zero(look.size));
  const size_t count = Slots::packed_count(size_log2);
  const size_t number =
      Slots::packed_index(bank(look.write), size_log2, look.stack ? 0 : 1 + jit_.next_slot_++ % (count - 1));
  const Slots& slots = cpu_.tlb.slots();
  const mmu::PackedSlot& slot = slots.packed_slot(number);
  Host packed = linear.base;
  if (linear.displacement != 0) {
    packed = kScratch;
    code_.lea(packed, {linear.base, linear.displacement});
  }
  code_.extract_bits(kScratch, packed, field(cpu_, slots.packed_mask(size_log2)));
  code_.move(kScratch2, kRcx);
  code_.load(kRcx, field(cpu_, slot.tag));
  code_.lea(kRcx, {.base = kRcx, .index = kScratch});
  const size_t other = code_.jump_if_rcx();
  code_.move(kRcx, kScratch2);
  if (linear.in_scratch()) address(op);  // once more: there is no fourth register
  code_.load(linear.in_scratch() ? kScratch2 : kScratch, field(cpu_, slot.delta));
  sites_.push_back({.op = current_,
                    .linear = linear,
                    .span = {.begin = 0, .size = look.size, .writes = look.write},
                    .slot = number,
                    .is_packed = true,
                    .jump = other,
                    .back = code_.size()});
  set_place(linear, look);
  lead_.reset();
  return kFirstSite + sites_.size() - 1;
}

// What such a place does whose slot has another page, or whose access is misaligned. RCX is in R14.
void Translator::emit_packed_site(Site& site, size_t number) {
  constexpr uint8_t kPush = 0x50, kPop = 0x58;
  const mmu::Slots& slots = cpu_.tlb.slots();
  const mmu::PackedSlot& slot = slots.packed_slot(site.slot);
  const Memory tag{kScratch2, site.span.writes ? kTagWrite : kTagRead};
  code_.move(kRcx, kScratch2);
  save_flags();
  if (site.linear.in_scratch()) address(*site.op);
  look_into_tlb(site.linear, site.span);
  site.miss = code_.jump_if(kIfAbove);
  code_.immediate(7, field(cpu_, cpu_.keeps_slots), 0, false);
  const size_t keeps = code_.jump_if(kIfNotZero);
  code_.byte(kPush | kRax);  // the host's stack
  code_.load(kRax, {kScratch2, kDelta});
  code_.store(field(cpu_, slot.delta), kRax);
  code_.load(kRax, tag);
  code_.shift_right(kRax, static_cast<uint8_t>(kPageShift - static_cast<unsigned>(std::countr_zero(site.span.size))));
  code_.op(0xF7, 3, kRax);  // neg rax
  code_.store(field(cpu_, slot.tag), kRax);
  code_.byte(kPop | kRax);
  code_.op(0xC7, 0, field(cpu_, slots.packed_filled()), false);
  code_.value(int32_t{1});
  code_.immediate(1, {kScratch2, kTagExecute}, mmu::kEntryInSlot);
  code_.immediate(5, field(cpu_, slots.packed_left(site.slot)), 1, false);
  const size_t stays = code_.jump_if(kIfNotCarry);
  report_place(number);
  code_.bind_here(stays);
  code_.bind_here(keeps);
  delta_from_entry(site.linear, site.span);
  // R14 may be in use, so RAX waits elsewhere.
  code_.byte(kPush | kRax);
  load_flags();
  code_.byte(kPop | kRax);
  code_.bind(code_.jump(), site.back);
}

}  // namespace bulkhead::engine::jit
