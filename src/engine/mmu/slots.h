// What stands in front of the TLB for translated code: each place in it that accesses memory has a slot with the page
// it reached last, found without looking at the address. A slot only ever repeats an entry of the TLB array in use that
// is still there, so that the guest cannot tell a slot from the TLB; Tlb keeps that promise.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace bulkhead::engine::mmu {

struct Slot {
  uint64_t base = 0;        // linear address of the page
  uint64_t limit = 0;       // an offset below it is inside, whatever the size of the access; 0: the slot is empty
  uint64_t span_limit = 0;  // the same for a group of accesses
  uint64_t delta = 0;       // as in TlbEntry
};

// The same in a form that can be compared without changing the host's flags: packed(address) + tag is 0 for aligned
// accesses of the slot's size to its page, where packed() gathers (PEXT) the bits of Slots::packed_mask().
struct PackedSlot {
  static constexpr uint64_t kEmpty = uint64_t{1} << 63;  // no packed address reaches it
  uint64_t tag = kEmpty;
  uint64_t delta = 0;  // as in Slot
};

class Slots {
 public:
  // A slot for reading has no right to write, one of the kernel none to serve a program.
  enum Bank : uint8_t { kSupervisorRead, kSupervisorWrite, kUserRead, kUserWrite, kBanks };
  static constexpr size_t kPerBank = 128;
  static constexpr uint64_t kWidest = 32;  // bytes of an access
  static constexpr uint64_t kSpan = 128;   // and of a group
  static constexpr uint64_t kLimit = 4096 - kWidest + 1, kSpanLimit = 4096 - kSpan + 1;
  static constexpr int32_t kChanges = 10000;
  static constexpr size_t kGroupCounters = 256;
  static constexpr int32_t kGroupMisses = 1000;

  Slots() {
    left_.fill(kChanges);
    packed_left_.fill(kChanges);
    group_left_.fill(kGroupMisses);
  }

  static constexpr size_t index(Bank bank, size_t number) { return bank * kPerBank + number; }
  [[nodiscard]] const Slot& slot(size_t index) const { return slots_[index]; }
  // Changes of the slot until the next refresh(); then the place that makes them goes without it.
  [[nodiscard]] const int32_t& left(size_t index) const { return left_[index]; }
  // The same of groups of accesses that the TLB did not know as a whole.
  [[nodiscard]] const int32_t& group_left(size_t index) const { return group_left_[index]; }
  // Not 0 once any has been filled. Translated code fills slots and sets it.
  [[nodiscard]] const uint32_t& filled() const { return filled_; }

  // Packed slots. The first of each size is the stack's.
  static constexpr size_t packed_index(Bank bank, unsigned size_log2, size_t number) {
    return bank * kPackedPerBank + size_log2 * kPackedPerSmallSize + number;
  }
  static constexpr size_t packed_count(unsigned size_log2) {
    return size_log2 == 3 ? kPackedPerBank - 3 * kPackedPerSmallSize : kPackedPerSmallSize;
  }
  [[nodiscard]] const PackedSlot& packed_slot(size_t index) const { return packed_slots_[index]; }
  [[nodiscard]] const int32_t& packed_left(size_t index) const { return packed_left_[index]; }
  [[nodiscard]] const uint32_t& packed_filled() const { return packed_filled_; }
  [[nodiscard]] const uint64_t& packed_mask(unsigned size_log2) const { return packed_masks_[size_log2]; }

  void clear() {
    if (filled_ == 0 && packed_filled_ == 0) return;
    ++clears_;
    if (filled_ != 0) {
      for (Slot& slot : slots_) slot.limit = slot.span_limit = 0;
    }
    if (packed_filled_ != 0) {
      for (PackedSlot& slot : packed_slots_) slot.tag = PackedSlot::kEmpty;
    }
    filled_ = packed_filled_ = 0;
  }
  // From time to time.
  void refresh() {
    fills_ = fills();
    left_.fill(kChanges);
    packed_left_.fill(kChanges);
    group_left_.fill(kGroupMisses);
  }
  // How often translated code has put another page into a slot; counted without its help.
  [[nodiscard]] uint64_t fills() const {
    uint64_t sum = fills_;
    for (const int32_t left : left_) sum += static_cast<uint64_t>(int64_t{kChanges} - left);
    for (const int32_t left : packed_left_) sum += static_cast<uint64_t>(int64_t{kChanges} - left);
    return sum;
  }
  [[nodiscard]] uint64_t clears() const { return clears_; }

 private:
  std::array<Slot, kBanks * kPerBank> slots_{};
  std::array<int32_t, kBanks * kPerBank> left_{};
  std::array<int32_t, kGroupCounters> group_left_{};
  uint32_t filled_ = 0;
  uint64_t clears_ = 0;
  uint64_t fills_ = 0;  // up to the last refresh()

  static constexpr size_t kPackedPerBank = 224, kPackedPerSmallSize = 32;  // for 1, 2 and 4 bytes; 8 have the others
  std::array<PackedSlot, kBanks * kPackedPerBank> packed_slots_{};
  std::array<int32_t, kBanks * kPackedPerBank> packed_left_{};
  uint32_t packed_filled_ = 0;
  // All bits of an address but the offset in its page, and those of the offset that are 0 when it is aligned.
  std::array<uint64_t, 4> packed_masks_{~uint64_t{4095}, ~uint64_t{4095} | 1, ~uint64_t{4095} | 3, ~uint64_t{4095} | 7};
};

}  // namespace bulkhead::engine::mmu
