#include "engine/mmu/tlb.h"

#include <algorithm>

namespace bulkhead::engine::mmu {
namespace {

// A page whose number differs from every page of this slot in its lowest bit: an address of the slot is at least a page
// above it, or below it and wraps. So it never hits, whatever the guest uses as an address.
constexpr uint64_t unreachable_tag(size_t slot) {
  return static_cast<uint64_t>(slot ^ 1) << kPageShift;
}

constexpr std::array<TlbEntry, Tlb::kEntries> make_unreachable() {
  std::array<TlbEntry, Tlb::kEntries> entries;
  for (size_t slot = 0; slot < Tlb::kEntries; ++slot) {
    const uint64_t tag = unreachable_tag(slot);
    entries[slot] = {.tag_read = tag, .tag_write = tag, .tag_execute = tag};
  }
  return entries;
}

}  // namespace

constinit const std::array<TlbEntry, Tlb::kEntries> Tlb::kNothing = make_unreachable();

void Tlb::Entries::make() {
  filled_ = std::make_unique_for_overwrite<TlbEntry[]>(kEntries);
  std::copy(kNothing.begin(), kNothing.end(), filled_.get());
  data_ = filled_.get();
}

Tlb::Tlb() : sets_(std::make_unique<std::array<Set, kSets>>()) {
  for (Set& set : *sets_) set.code_generation = ++generation_;
  kernel_generation_ = ++generation_;
  // PCID 0 lives in the first set; the others hold PCIDs that cannot be asked for until they are taken.
  for (size_t i = 1; i < kSets; ++i) (*sets_)[i].pcid = 0xFFFF;
  set_ = &(*sets_)[0];
  choose();
  use(Rights::kSupervisor, false);
}

void Tlb::clear(TlbEntry& entry, size_t slot) {
  if ((entry.tag_execute & kEntryInSlot) != 0) slots_.clear();
  const uint64_t tag = unreachable_tag(slot);
  entry = {.tag_read = tag, .tag_write = tag, .tag_execute = tag | (entry.tag_execute & kEntryUsed), .delta = 0};
}

void Tlb::choose() {
  for (size_t i = 0; i < kRights; ++i) choices_[i] = is_empty_ ? kNothing.data() : set_->arrays[i].entries.data();
}

void Tlb::reset(Array& array) {
  for (const uint16_t slot : array.used) {
    array.entries[slot].tag_execute &= kEntryInSlot;
    clear(array.entries[slot], slot);
  }
  array.used.clear();
}

void Tlb::fill(Rights rights, const Fill& fill) {
  Array& array = set_->arrays[static_cast<size_t>(rights)];
  const size_t slot = slot_of(fill.linear);
  if (!array.entries.exists()) [[unlikely]] {
    array.entries.make();
    choose();
    use(rights_, is_empty_);
  }
  TlbEntry& entry = array.entries[slot];
  if ((entry.tag_execute & kEntryInSlot) != 0) slots_.clear();
  if ((entry.tag_execute & kEntryUsed) == 0) array.used.push_back(static_cast<uint16_t>(slot));
  const uint64_t unreachable = unreachable_tag(slot);
  entry.tag_read = fill.read ? fill.linear : unreachable;
  entry.tag_write = fill.write ? fill.linear : unreachable;
  entry.tag_execute = (fill.execute ? fill.linear : unreachable) | kEntryUsed |
                      (fill.global ? uint64_t{kEntryGlobal} : 0) |
                      (fill.page_shift > kPageShift ? uint64_t{kEntryLarge} : 0);
  entry.delta = fill.host - fill.linear;
  if (fill.page_shift == 30) {
    gigabyte_pages_[filter_slot(fill.linear, 30)] = true;
  } else if (fill.page_shift > kPageShift) {
    large_pages_[filter_slot(fill.linear, 22)] = true;
  }
  ++counters.fills;
}

void Tlb::switch_pcid(uint16_t pcid) {
  Set* chosen = nullptr;
  for (Set& set : *sets_) {
    if (set.pcid == pcid) chosen = &set;
  }
  if (chosen == nullptr) {
    chosen = &*std::min_element(sets_->begin(), sets_->end(),
                                [](const Set& a, const Set& b) { return a.last_use < b.last_use; });
    flush(*chosen, false);
    chosen->pcid = pcid;
  }
  chosen->last_use = ++use_count_;
  if (chosen != set_) slots_.clear();
  set_ = chosen;
  choose();
  use(rights_, is_empty_);
}

void Tlb::flush(Set& set, bool keep_global) {
  for (Array& array : set.arrays) {
    if (!keep_global) {
      reset(array);
      continue;
    }
    const auto is_dropped = [&](uint16_t slot) {
      TlbEntry& entry = array.entries[slot];
      if ((entry.tag_execute & kEntryGlobal) != 0) return false;
      entry.tag_execute &= kEntryInSlot;
      clear(entry, slot);
      return true;
    };
    std::erase_if(array.used, is_dropped);
  }
  set.code_generation = ++generation_;
  ++counters.flushes;
}

void Tlb::flush_all() {
  for (Set& set : *sets_) flush(set, false);
  kernel_generation_ = ++generation_;
  has_private_kernel_code_ = false;
  user_code_pages_.fill(false);
  kernel_code_pages_.fill(false);
  large_pages_.fill(false);
  gigabyte_pages_.fill(false);
}

void Tlb::flush_all_but_global() {
  for (Set& set : *sets_) flush(set, true);
  has_private_kernel_code_ = false;
}

void Tlb::flush_pcid(uint16_t pcid) {
  for (Set& set : *sets_) {
    if (set.pcid == pcid) flush(set, true);
  }
}

// Kernel code that is not global counts by the set, too.
void Tlb::new_user_code_generations() {
  for (Set& set : *sets_) set.code_generation = ++generation_;
  user_code_pages_.fill(false);
}

void Tlb::new_code_generations() {
  new_user_code_generations();
  kernel_generation_ = ++generation_;
  kernel_code_pages_.fill(false);
}

void Tlb::flush_large(uint64_t linear, unsigned shift) {
  for (Set& set : *sets_) {
    for (Array& array : set.arrays) {
      for (const uint16_t slot : array.used) {
        TlbEntry& entry = array.entries[slot];
        if ((entry.tag_execute & kEntryLarge) == 0) continue;
        // One of the tags may be unreachable; the others name the page.
        const bool inside = entry.tag_read >> shift == linear >> shift || entry.tag_execute >> shift == linear >> shift;
        if (inside) clear(entry, slot);
      }
    }
  }
  new_code_generations();
}

void Tlb::flush_page(uint64_t linear) {
  const size_t slot = slot_of(linear);
  for (Set& set : *sets_) {
    for (Array& array : set.arrays) {
      if (array.entries.exists()) clear(array.entries[slot], slot);
    }
  }
  if (large_pages_[filter_slot(linear, 22)]) flush_large(linear, 22);
  if (gigabyte_pages_[filter_slot(linear, 30)]) flush_large(linear, 30);
  if (kernel_code_pages_[filter_slot(linear, kPageShift)]) {
    new_code_generations();
  } else if (user_code_pages_[filter_slot(linear, kPageShift)]) {
    new_user_code_generations();
  }
  ++counters.page_flushes;
}

void Tlb::drop_writes_to(uint64_t host_page) {
  slots_.clear();
  for (Set& set : *sets_) {
    for (Array& array : set.arrays) {
      for (const uint16_t slot : array.used) {
        TlbEntry& entry = array.entries[slot];
        if (entry.tag_write + entry.delta == host_page) entry.tag_write = unreachable_tag(slot);
      }
    }
  }
}

void Tlb::drop_all_writes() {
  slots_.clear();
  for (Set& set : *sets_) {
    for (Array& array : set.arrays) {
      for (const uint16_t slot : array.used) array.entries[slot].tag_write = unreachable_tag(slot);
    }
  }
}

}  // namespace bulkhead::engine::mmu
