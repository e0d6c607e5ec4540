#include "device/virtio/testing/driver_ring.h"

#include "device/virtio/queue/ring_access.h"
#include "spec/virtio.h"
#include "support/check.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

namespace {

class SplitDriverRing final : public DriverRing {
 public:
  SplitDriverRing(memory::GuestMemory& memory, GuestAddress base, QueueConfig config)
      : DriverRing(memory, base, config), counts_(config.size) {
    config_.descriptors = base;
    config_.driver = base + 16 * uint64_t{config.size};
    config_.device = {align_up(config_.driver.value + 6 + 2 * uint64_t{config.size}, 4)};
    for (uint16_t i = 0; i < config.size; ++i) free_.push_back(i);
  }

  uint16_t add(std::span<const DriverBuffer> buffers, bool indirect) override {
    const size_t slots = indirect ? 1 : buffers.size();
    CHECK(slots <= free_.size() && buffers.size() <= kTableEntries, "a test fills the ring with what fits");
    std::vector<uint16_t> indices(free_.end() - static_cast<ptrdiff_t>(slots), free_.end());
    free_.resize(free_.size() - slots);
    const uint16_t head = indices[0];
    if (indirect) {
      put(config_.descriptors + 16 * uint64_t{head},
          SplitDescriptor{table(head).value, static_cast<uint32_t>(buffers.size() * 16), kDescriptorIndirect, 0});
      std::vector<uint16_t> places;
      for (size_t i = 0; i < buffers.size(); ++i) places.push_back(static_cast<uint16_t>(i));
      write_chain(table(head), places, buffers);
    } else {
      write_chain(config_.descriptors, indices, buffers);
    }
    counts_[head] = indices;
    put(config_.driver + kRingEntries + 2 * uint64_t{static_cast<uint16_t>(available_ % config_.size)}, head);
    store_word(memory_, config_.driver + kRingIndex, ++available_);
    return head;
  }

  std::optional<DriverUsed> take_used() override {
    if (load_word(memory_, config_.device + kRingIndex) == used_) return std::nullopt;
    const auto element = get<SplitUsedElement>(config_.device + kRingEntries +
                                               8 * uint64_t{static_cast<uint16_t>(used_ % config_.size)});
    ++used_;
    CHECK(element.id < config_.size && !counts_[element.id].empty(), "the device gives back what it was given");
    free_.insert(free_.end(), counts_[element.id].begin(), counts_[element.id].end());
    counts_[element.id].clear();
    if (interrupts_) set_interrupts(true);
    return DriverUsed{static_cast<uint16_t>(element.id), element.length};
  }

  [[nodiscard]] size_t free_slots() const override { return free_.size(); }

  bool take_notification() override {
    const uint16_t before = notified_;
    notified_ = available_;
    if (before == available_) return false;
    if (!config_.event_index) return (load_word(memory_, config_.device + kRingFlags) & kUsedNoNotify) == 0;
    return passed_event(load_word(memory_, config_.device + kRingEntries + 8 * uint64_t{config_.size}), available_,
                        before);
  }

  void set_interrupts(bool wanted) override {
    interrupts_ = wanted;
    if (config_.event_index) {
      const auto event = static_cast<uint16_t>(wanted ? used_ : used_ - 1);
      store_word(memory_, config_.driver + kRingEntries + 2 * uint64_t{config_.size}, event);
    } else {
      store_word(memory_, config_.driver + kRingFlags, wanted ? uint16_t{0} : kAvailableNoInterrupt);
    }
  }

 private:
  void write_chain(GuestAddress descriptors, const std::vector<uint16_t>& places,
                   std::span<const DriverBuffer> buffers) {
    for (size_t i = 0; i < buffers.size(); ++i) {
      const bool last = i + 1 == buffers.size();
      const auto flags =
          static_cast<uint16_t>((buffers[i].writable ? kDescriptorWrite : 0) | (last ? 0 : kDescriptorNext));
      put(descriptors + 16 * uint64_t{places[i]},
          SplitDescriptor{buffers[i].address, buffers[i].length, flags, last ? uint16_t{0} : places[i + 1]});
    }
  }

  std::vector<uint16_t> free_;
  std::vector<std::vector<uint16_t>> counts_;
  uint16_t available_ = 0;
  uint16_t used_ = 0;
  uint16_t notified_ = 0;
  bool interrupts_ = true;
};

class PackedDriverRing final : public DriverRing {
 public:
  PackedDriverRing(memory::GuestMemory& memory, GuestAddress base, QueueConfig config)
      : DriverRing(memory, base, config), free_(config.size), counts_(config.size) {
    config_.descriptors = base;
    config_.driver = base + 16 * uint64_t{config.size};
    config_.device = config_.driver + 4;
    for (uint16_t i = 0; i < config.size; ++i) ids_.push_back(i);
  }

  uint16_t add(std::span<const DriverBuffer> buffers, bool indirect) override {
    const size_t slots = indirect ? 1 : buffers.size();
    CHECK(slots <= free_ && buffers.size() <= kTableEntries, "a test fills the ring with what fits");
    const uint16_t id = ids_.back();
    ids_.pop_back();
    counts_[id] = static_cast<uint16_t>(slots);
    free_ -= slots;
    const GuestAddress first = slot(available_);
    const uint16_t first_flags = write_chain(buffers, indirect, id);
    // The first descriptor's flags go last: they make the chain available.
    store_word(memory_, first + 14, first_flags);
    added_ += static_cast<uint32_t>(slots);
    return id;
  }

  std::optional<DriverUsed> take_used() override {
    const uint16_t handed_over = load_word(memory_, slot(used_) + 14);
    const bool available = (handed_over & kPackedAvailable) != 0;
    const bool used = (handed_over & kPackedUsed) != 0;
    if (available != used || used != used_wrap_) return std::nullopt;
    const auto descriptor = get<PackedDescriptor>(slot(used_));
    CHECK(descriptor.id < config_.size && counts_[descriptor.id] != 0, "the device gives back what it was given");
    const uint16_t count = counts_[descriptor.id];
    counts_[descriptor.id] = 0;
    ids_.push_back(descriptor.id);
    free_ += count;
    used_ = static_cast<uint16_t>(used_ + count);
    if (used_ >= config_.size) {
      used_ = static_cast<uint16_t>(used_ - config_.size);
      used_wrap_ = !used_wrap_;
    }
    if (interrupts_) set_interrupts(true);
    return DriverUsed{descriptor.id, descriptor.length};
  }

  [[nodiscard]] size_t free_slots() const override { return free_; }

  bool take_notification() override {
    const uint32_t added = added_;
    added_ = 0;
    if (added == 0) return false;
    const PackedEvent event{load_word(memory_, config_.device), load_word(memory_, config_.device + 2)};
    if (event.flags != kEventDescriptor) return event.flags == kEventEnable;
    // Among the slots just added?
    uint16_t place = available_;
    bool wrap = available_wrap_;
    for (uint32_t i = 0; i < added; ++i) {
      if (place == 0) {
        place = config_.size;
        wrap = !wrap;
      }
      --place;
      if (event.offset_wrap == (place | (wrap ? 1 << 15 : 0))) return true;
    }
    return false;
  }

  void set_interrupts(bool wanted) override {
    interrupts_ = wanted;
    if (wanted && config_.event_index) {
      store_word(memory_, config_.driver, static_cast<uint16_t>(used_ | (used_wrap_ ? 1 << 15 : 0)));
      store_word(memory_, config_.driver + 2, kEventDescriptor);
    } else {
      store_word(memory_, config_.driver + 2, wanted ? kEventEnable : kEventDisable);
    }
  }

 private:
  [[nodiscard]] GuestAddress slot(uint16_t index) const { return config_.descriptors + 16 * uint64_t{index}; }
  [[nodiscard]] uint16_t ownership() const { return available_wrap_ ? kPackedAvailable : kPackedUsed; }
  void step() {
    if (++available_ == config_.size) {
      available_ = 0;
      available_wrap_ = !available_wrap_;
    }
  }
  uint16_t write_chain(std::span<const DriverBuffer> buffers, bool indirect, uint16_t id) {
    if (indirect) {
      for (size_t i = 0; i < buffers.size(); ++i) {
        put(table(id) + 16 * i, PackedDescriptor{buffers[i].address, buffers[i].length, 0,
                                                 buffers[i].writable ? kDescriptorWrite : uint16_t{0}});
      }
      const auto flags = static_cast<uint16_t>(kDescriptorIndirect | ownership());
      fill_slot(table(id).value, static_cast<uint32_t>(buffers.size() * 16), id);
      step();
      return flags;
    }
    uint16_t first_flags = 0;
    for (size_t i = 0; i < buffers.size(); ++i) {
      const bool last = i + 1 == buffers.size();
      const auto flags = static_cast<uint16_t>((buffers[i].writable ? kDescriptorWrite : 0) |
                                               (last ? 0 : kDescriptorNext) | ownership());
      fill_slot(buffers[i].address, buffers[i].length, id);
      if (i == 0) {
        first_flags = flags;
      } else {
        store_word(memory_, slot(available_) + 14, flags);
      }
      step();
    }
    return first_flags;
  }
  // All but the flags, at which the device may be looking.
  void fill_slot(uint64_t address, uint32_t length, uint16_t id) {
    put(slot(available_), address);
    put(slot(available_) + 8, length);
    put(slot(available_) + 12, id);
  }

  size_t free_;
  std::vector<uint16_t> ids_;
  std::vector<uint16_t> counts_;
  uint16_t available_ = 0;
  uint16_t used_ = 0;
  bool available_wrap_ = true;
  bool used_wrap_ = true;
  uint32_t added_ = 0;
  bool interrupts_ = true;
};

}  // namespace

std::unique_ptr<DriverRing> DriverRing::create(memory::GuestMemory& memory, GuestAddress base, QueueConfig config) {
  std::vector<uint8_t> zeroes(kTables);
  (void)memory.write(base, zeroes);
  std::unique_ptr<DriverRing> ring;
  if (config.packed) {
    ring = std::make_unique<PackedDriverRing>(memory, base, config);
  } else {
    ring = std::make_unique<SplitDriverRing>(memory, base, config);
  }
  ring->set_interrupts(true);
  return ring;
}

}  // namespace bulkhead::device::virtio
