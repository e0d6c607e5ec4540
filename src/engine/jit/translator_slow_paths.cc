// What a block does where the TLB does not know an address or a group is on two pages: behind the block's end, for it
// is seldom come to.
#include <cstddef>

#include "engine/jit/jit.h"
#include "engine/jit/translator.h"

namespace bulkhead::engine::jit {

// From the first of a group on that is often on two pages the block has its code twice: here without the group. Not of
// every group: each one's code goes to the block's end.
bool Translator::crossings() {
  size_t translated = ops_.size();
  const size_t count = slow_.size();
  for (size_t i = 0; i < count; ++i) {
    const Slow slow = slow_[i];
    if (!slow.lead || has_x87_ || (block_.crosses_pages >> index_in_block(*slow.op) & 1) == 0) continue;
    const auto rest = static_cast<size_t>(end() - slow.op);
    if (translated + rest > 2 * BlockCache::kMaximumOps) continue;
    if (edges_.size() + side_exits_.size() + rest + 1 > size_t{1} << kIndexBits) continue;
    translated += rest;
    slow_[i].crossing = code_.size();
    forget_groups();
    group_without_look_ = slow.lead->group;
    flags_ = slow.recipe ? Flags::kRecipe : Flags::kMemory;
    recipe_ = slow.recipe;
    producer_ = slow.producer;
    simd_loaded_ = slow.simd_loaded;
    if (!translate_from(slow.op)) return false;
  }
  return true;
}

void Translator::slow_paths() {
  for (const Slow& slow : slow_) {
    if (slow.from == kNoMiss) continue;
    code_.bind_here(slow.from >= kFirstSite ? sites_[slow.from - kFirstSite].miss : slow.from);
    if (slow.lead) {
      const Linear linear = linear_of(*slow.op);
      code_.lea(kScratch, {linear.base, linear.displacement + slow.lead->begin});
      code_.store(field(cpu_, cpu_.jit_span), kScratch);
      if (slow.crossing != 0) {
        code_.immediate(4, kScratch, kPageSize - 1, false);
        code_.immediate(7, kScratch, static_cast<int32_t>(kPageSize - slow.lead->size), false);
        code_.bind(code_.jump_if(kIfAbove), slow.crossing);
      }
    }
    if (slow.repeat != nullptr) {
      call_common(slow.repeat);
      code_.op(0x85, kRcx, kRcx);
      code_.bind(code_.jump_if(kIfZero), slow.back);
    }
    if (!slow.lead) simd_across_pages(slow);
    if (slow.recipe) note_flags(*slow.recipe);
    call_handler(*slow.op);
    if (slow.op + 1 == end() && slow.back == 0) continue;  // never comes back
    if (slow.lead) resume_group(slow);
    reload_simd(*slow.op);
    if (slow.flags_to_host) {
      flags_ = Flags::kMemory;
      restore_flags(kScratch2);
    }
    const size_t jump = code_.jump();
    code_.bind(jump, slow.back);
  }
}

// The first of a group that the TLB did not know as a whole has been carried out by its handler. Now it may know; else
// the block ends here, for those behind would find nothing.
void Translator::resume_group(const Slow& slow) {
  const Op& op = *slow.op;
  const Span span{.begin = 0, .size = slow.lead->size, .writes = slow.lead->writes};
  code_.load(kScratch, field(cpu_, cpu_.jit_span));
  look_into_tlb({}, span);
  const size_t found = code_.jump_if(kIfNotAbove);
  code_.immediate(5, field(cpu_, cpu_.tlb.slots().group_left(jit_.next_group_)), 1, false);
  const size_t seldom = code_.jump_if(kIfNotCarry);
  report_place(sites_.size() + leads_.size());
  code_.bind_here(seldom);
  jit_.next_group_ = (jit_.next_group_ + 1) % mmu::Slots::kGroupCounters;
  leads_.push_back(&op);
  code_.load(kScratch2, field(cpu_, cpu_.jit_page));
  code_.lea(kScratch2, {kScratch2, page_offset() + op.end_offset});
  finish_indirect(op);
  code_.bind_here(found);
  code_.load(kScratch, {kScratch2, static_cast<int32_t>(offsetof(mmu::TlbEntry, delta))});
  code_.store(field(cpu_, cpu_.jit_groups[slow.lead->group]), kScratch);
}

}  // namespace bulkhead::engine::jit
