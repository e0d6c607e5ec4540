// The software TLB of one vCPU: direct-mapped arrays from linear pages to host pages, one array per right of access
// (user; supervisor; supervisor while SMAP holds it off user pages) in each of eight PCID sets. Intel SDM 3, 4.10.
// It never holds a page that is not RAM, nor a writable entry of a page that holds translated code.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "memory/guest_address.h"

namespace bulkhead::engine::mmu {

// A tag is the linear page's address, or one that no address of this slot can come near.
struct TlbEntry {
  uint64_t tag_read = 0;
  uint64_t tag_write = 0;
  uint64_t tag_execute = 0;  // with TlbEntryFlag in its low bits
  uint64_t host = 0;         // address of the page in this process
};

enum TlbEntryFlag : uint64_t {
  kEntryGlobal = 1,
  kEntryLarge = 2,  // part of a 2 MiB, 4 MiB or 1 GiB page
  kEntryUsed = 4,   // its slot is in Array::used
};

// Whose rights an access has.
enum class Rights : uint8_t { kUser, kSupervisor, kSupervisorNoUserData };

class Tlb {
 public:
  static constexpr unsigned kEntryBits = 12;
  static constexpr size_t kEntries = size_t{1} << kEntryBits;
  static constexpr size_t kRights = 3;
  static constexpr size_t kSets = 8;

  Tlb();

  // The array in use; an access hits when address - tag <= 4096 - size.
  [[nodiscard]] const TlbEntry& entry(uint64_t linear) const { return current_[slot_of(linear)]; }
  // The array in use, for translated code, which looks into it by itself.
  [[nodiscard]] const TlbEntry* const& current() const { return current_; }
  // The same with other rights (the processor's own accesses to descriptor tables and stacks).
  [[nodiscard]] const TlbEntry& entry(uint64_t linear, Rights rights) const {
    return set_->arrays[static_cast<size_t>(rights)].entries[slot_of(linear)];
  }
  // empty: no access may hit, because each must be looked at.
  void use(Rights rights, bool empty) {
    current_ = empty ? empty_.entries.data() : set_->arrays[static_cast<size_t>(rights)].entries.data();
    rights_ = rights;
    is_empty_ = empty;
  }

  struct Fill {
    uint64_t linear = 0;  // page address
    uint64_t host = 0;    // page address
    bool read = false, write = false, execute = false, global = false;
    uint8_t page_shift = 12;  // of the page as the page tables have it: 12, 21, 22 or 30
  };
  void fill(Rights rights, const Fill& fill);

  // PCIDs share nothing but what flush_page and flush_all reach. Without PCIDs everything is PCID 0.
  void switch_pcid(uint16_t pcid);
  void flush_all();                  // global entries too
  void flush_all_but_global();       // every PCID
  void flush_pcid(uint16_t pcid);    // but global
  void flush_page(uint64_t linear);  // in every PCID, global too
  // The page may not be written through any entry from now on.
  void drop_writes_to(uint64_t host_page);
  void drop_all_writes();

  // A value that no other state of the code mappings of this vCPU has had. Users of it cache translations of code.
  [[nodiscard]] uint64_t code_generation() const { return set_->code_generation; }
  // The page was looked up to run code from it.
  void note_code_page(uint64_t linear) { code_pages_[filter_slot(linear >> kPageShift)] = true; }

  struct Counters {
    uint64_t fills = 0, flushes = 0, page_flushes = 0;
  } counters;

 private:
  struct Array {
    std::array<TlbEntry, kEntries> entries;
    std::vector<uint16_t> used;  // slots filled since the last flush; may hold one twice
  };
  struct Set {
    std::array<Array, kRights> arrays;
    uint16_t pcid = 0;
    uint64_t code_generation = 0;
    uint64_t last_use = 0;
  };

  static constexpr size_t kFilterSize = 4096;
  using Filter = std::array<bool, kFilterSize>;
  static size_t slot_of(uint64_t linear) { return (linear >> kPageShift) & (kEntries - 1); }
  // Of addresses shifted right by the size of what the filter is about.
  static size_t filter_slot(uint64_t number) { return (number ^ (number >> 12)) & (kFilterSize - 1); }
  static void clear(TlbEntry& entry, size_t slot);
  static void reset(Array& array);
  void flush(Set& set, bool keep_global);
  void flush_large(uint64_t linear, unsigned shift);
  void new_code_generations();

  const TlbEntry* current_ = nullptr;
  Set* set_ = nullptr;
  Rights rights_ = Rights::kSupervisor;
  bool is_empty_ = false;
  uint64_t generation_ = 0;
  uint64_t use_count_ = 0;
  std::unique_ptr<std::array<Set, kSets>> sets_;
  Array empty_;
  // What may be there, hashed: code run from a page, entries of 2 and 4 MiB pages, entries of 1 GiB pages.
  Filter code_pages_{}, large_pages_{}, gigabyte_pages_{};
};

}  // namespace bulkhead::engine::mmu
