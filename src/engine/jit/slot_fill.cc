// What places whose slot has another page have in common: they look into the TLB, and put what it says into the slot.
#include <algorithm>
#include <cstddef>

#include "engine/jit/jit.h"
#include "engine/jit/state_layout.h"

namespace bulkhead::engine::jit {

// R13 is the linear address, RAX the slot's distance from the Cpu. R14 becomes the TLB's entry for it and R13 the
// offset from the entry's page, which the caller has to look at. RAX is lost.
void Jit::make_slot_fill(bool write) {
  using mmu::Slot, mmu::TlbEntry;
  constexpr uint8_t kPushRcx = 0x51, kPopRcx = 0x59, kEntryShift = 5, kSlotShift = 5;
  static_assert(sizeof(TlbEntry) == 1 << kEntryShift && sizeof(Slot) == 1 << kSlotShift);
  const int32_t tag = write ? offsetof(TlbEntry, tag_write) : offsetof(TlbEntry, tag_read);
  const mmu::Slots& slots = cpu_.tlb.slots();
  Assembler& code = assembler_;
  code.clear();
  code.move(kScratch2, kScratch);
  code.shift_right(kScratch2, kPageShift - kEntryShift);
  code.immediate(4, kScratch2, static_cast<int32_t>((mmu::Tlb::kEntries - 1) << kEntryShift), false);
  code.op(0x03, kScratch2, field(cpu_, cpu_.tlb.current()));
  code.op(0x2B, kScratch, Memory{kScratch2, tag});
  code.immediate(7, kScratch, kPageSize - 1);
  const size_t unknown = code.jump_if(kIfAbove);
  code.immediate(7, field(cpu_, cpu_.keeps_slots), 0, false);
  const size_t keeps = code.jump_if(kIfNotZero);

  code.byte(kPushRcx);
  const auto of_slot = [](size_t offset) {
    return Memory{.base = kCpu, .displacement = static_cast<int32_t>(offset), .index = kRax};
  };
  code.load(kRcx, Memory{kScratch2, offsetof(TlbEntry, delta)});
  code.store(of_slot(offsetof(Slot, delta)), kRcx);
  code.load(kRcx, Memory{kScratch2, tag});
  code.store(of_slot(offsetof(Slot, base)), kRcx);
  code.op(0xC7, 0, of_slot(offsetof(Slot, limit)));
  code.value(static_cast<int32_t>(mmu::Slots::kLimit));
  code.op(0xC7, 0, of_slot(offsetof(Slot, span_limit)));
  code.value(static_cast<int32_t>(mmu::Slots::kSpanLimit));
  code.op(0xC7, 0, field(cpu_, slots.filled()), false);
  code.value(int32_t{1});
  code.immediate(1, Memory{kScratch2, offsetof(TlbEntry, tag_execute)}, mmu::kEntryInSlot);
  // The count of changes has the slot's number.
  constexpr uint8_t kCountShift = 2;
  code.immediate(5, kRax, field(cpu_, slots.slot(0)).displacement);
  code.shift_right(kRax, kSlotShift - kCountShift);
  code.immediate(5, {.base = kCpu, .displacement = field(cpu_, slots.left(0)).displacement, .index = kRax}, 1, false);
  const size_t too_often = code.jump_if(kIfCarry);
  const size_t done = code.size();
  code.byte(kPopRcx);
  code.bind_here(unknown);
  code.bind_here(keeps);
  code.byte(0xC3);

  // The place is known by where this returns to.
  code.bind_here(too_often);
  code.load(kRcx, Memory{kRsp, 8}, false);
  code.store(field(cpu_, cpu_.jit_site_return), kRcx, false);
  code.op(0xC7, 0, field(cpu_, cpu_.jit_site), false);
  code.value(kSiteByReturn);
  code.byte(0xF0);
  code.immediate(1, field(cpu_, cpu_.attention), kAttentionSite, false);
  code.bind(code.jump(), done);
  fill_slot_[write ? 1 : 0] = cache_->add(code.code());
}

uint32_t Jit::site_returned_to() const {
  const uint32_t at = cpu_.jit_site_return - static_cast<uint32_t>(reinterpret_cast<uintptr_t>(cache_->begin()));
  const auto site = std::ranges::lower_bound(sites_, at, {}, &Site::return_at);
  return static_cast<uint32_t>(site - sites_.begin());
}

}  // namespace bulkhead::engine::jit
