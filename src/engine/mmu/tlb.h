// The software TLB of one vCPU: direct-mapped arrays from linear pages to host pages, one array per right of access
// (user; supervisor; supervisor while SMAP holds it off user pages) in each of eight PCID sets. Intel SDM 3, 4.10.
// It never holds a page that is not RAM, nor a writable entry of a page that holds translated code.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "engine/mmu/slots.h"
#include "memory/guest_address.h"

namespace bulkhead::engine::mmu {

// A tag is the linear page's address, or one that no address of this slot can come near.
struct TlbEntry {
  uint64_t tag_read = 0;
  uint64_t tag_write = 0;
  uint64_t tag_execute = 0;  // with TlbEntryFlag in its low bits
  uint64_t delta = 0;        // from a linear address to that of its byte in this process
};

enum TlbEntryFlag : uint64_t {
  kEntryGlobal = 1,
  kEntryLarge = 2,   // part of a 2 MiB, 4 MiB or 1 GiB page
  kEntryUsed = 4,    // its slot is in Array::used
  kEntryInSlot = 8,  // one of Slots may repeat it
};

// Whose rights an access has.
enum class Rights : uint8_t { kUser, kSupervisor, kSupervisorNoUserData };

class Tlb {
  const TlbEntry* current_ = nullptr;  // first, for translated code

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
    return std::as_const(set_->arrays[static_cast<size_t>(rights)].entries)[slot_of(linear)];
  }
  // empty: no access may hit, because each must be looked at.
  void use(Rights rights, bool empty) {
    if (empty != is_empty_) {
      if (empty) slots_.clear();
      is_empty_ = empty;
      choose();
    }
    current_ = choices_[static_cast<size_t>(rights)];
    rights_ = rights;
  }
  // The rights in use, and the arrays that use() chooses from, for translated code that changes them by itself.
  [[nodiscard]] const Rights& rights() const { return rights_; }
  [[nodiscard]] const TlbEntry* const& choice(Rights rights) const { return choices_[static_cast<size_t>(rights)]; }
  [[nodiscard]] Slots& slots() { return slots_; }
  [[nodiscard]] const Slots& slots() const { return slots_; }

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

  // A value that no other state of the code mappings that these rights reach has had. Users of it cache translations of
  // code. The kernel's is one for all PCIDs, and outlives flushes of all but global entries, as long as all of its code
  // is global.
  [[nodiscard]] uint64_t code_generation(bool is_kernel) const {
    return is_kernel && !has_private_kernel_code_ ? kernel_generation_ : set_->code_generation;
  }
  // The page has just been filled with the rights in use to run code from it. True: code_generation() is another now.
  [[nodiscard]] bool note_code_page(uint64_t linear) {
    (rights_ == Rights::kUser ? user_code_pages_ : kernel_code_pages_)[filter_slot(linear, kPageShift)] = true;
    if (rights_ == Rights::kUser || has_private_kernel_code_) return false;
    has_private_kernel_code_ = (entry(linear, rights_).tag_execute & kEntryGlobal) == 0;
    return has_private_kernel_code_;
  }

  struct Counters {
    uint64_t fills = 0, flushes = 0, page_flushes = 0;
  } counters;

 private:
  // Takes memory when it is filled for the first time: most PCIDs and rights never are. Until then no access hits.
  class Entries {
   public:
    [[nodiscard]] bool exists() const { return filled_ != nullptr; }
    void make();
    [[nodiscard]] const TlbEntry* data() const { return data_; }
    [[nodiscard]] const TlbEntry& operator[](size_t slot) const { return data_[slot]; }
    [[nodiscard]] TlbEntry& operator[](size_t slot) { return filled_[slot]; }  // exists() only

   private:
    std::unique_ptr<TlbEntry[]> filled_;
    const TlbEntry* data_ = kNothing.data();
  };
  struct Array {
    Entries entries;
    std::vector<uint16_t> used;  // slots filled since the last flush; may hold one twice
  };
  struct Set {
    std::array<Array, kRights> arrays;
    uint16_t pcid = 0;
    uint64_t code_generation = 0;
    uint64_t last_use = 0;
  };

  static const std::array<TlbEntry, kEntries> kNothing;  // no access hits

  static constexpr size_t kFilterSize = 4096;
  using Filter = std::array<bool, kFilterSize>;
  static size_t slot_of(uint64_t linear) { return (linear >> kPageShift) & (kEntries - 1); }
  // Of a page of that size. The two halves of the address space share none: what a program gives up is not taken for
  // something of the kernel's.
  static size_t filter_slot(uint64_t linear, unsigned shift) {
    const uint64_t number = linear >> shift;
    return ((number ^ (number >> 11)) & (kFilterSize / 2 - 1)) + (linear >> 63) * (kFilterSize / 2);
  }
  void clear(TlbEntry& entry, size_t slot);
  void choose();
  void reset(Array& array);
  void flush(Set& set, bool keep_global);
  void flush_large(uint64_t linear, unsigned shift);
  void new_code_generations();
  void new_user_code_generations();

  std::array<const TlbEntry*, kRights> choices_{};
  Set* set_ = nullptr;
  Rights rights_ = Rights::kSupervisor;
  bool is_empty_ = false;
  Slots slots_;
  uint64_t generation_ = 0;
  uint64_t kernel_generation_ = 0;
  bool has_private_kernel_code_ = false;
  uint64_t use_count_ = 0;
  std::unique_ptr<std::array<Set, kSets>> sets_;
  // What may be there, hashed: code run from a page, entries of 2 and 4 MiB pages, entries of 1 GiB pages.
  Filter user_code_pages_{}, kernel_code_pages_{}, large_pages_{}, gigabyte_pages_{};
};

}  // namespace bulkhead::engine::mmu
