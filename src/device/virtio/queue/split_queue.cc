#include "device/virtio/queue/split_queue.h"

#include "device/virtio/queue/ring_access.h"
#include "spec/virtio.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

GuestAddress SplitQueue::available_event() const {
  return config_.device + kRingEntries + sizeof(SplitUsedElement) * uint64_t{config_.size};
}
GuestAddress SplitQueue::used_event() const {
  return config_.driver + kRingEntries + 2 * uint64_t{config_.size};
}

PopResult SplitQueue::pop(Chain& chain) {
  if (broken_) return PopResult::kBroken;
  const uint16_t available = load_word(memory_, config_.driver + kRingIndex);
  const auto waiting = static_cast<uint16_t>(available - next_available_);
  if (waiting == 0) return PopResult::kEmpty;
  // A driver has as many descriptors as the ring has entries: more chains than that, new or not yet given back, are
  // none.
  const auto taken = static_cast<uint16_t>(next_available_ - next_used_);
  broken_ = waiting > config_.size || taken >= config_.size;
  if (broken_) return PopResult::kBroken;
  const uint16_t slot = next_available_ & (config_.size - 1);
  const uint16_t head = load_word(memory_, config_.driver + kRingEntries + 2 * uint64_t{slot});
  broken_ = !walk(head, chain);
  if (broken_) return PopResult::kBroken;
  chain.id_ = head;
  ++next_available_;
  return PopResult::kChain;
}

bool SplitQueue::walk(uint16_t head, Chain& chain) {
  ChainBuilder builder(memory_, chain);
  uint16_t index = head;
  // No chain is longer than the table, so a loop ends here at the latest.
  for (unsigned count = 0; count < config_.size; ++count) {
    if (index >= config_.size) return false;
    const auto descriptor =
        load_object<SplitDescriptor>(memory_, config_.descriptors + sizeof(SplitDescriptor) * uint64_t{index});
    if ((descriptor.flags & kDescriptorIndirect) != 0) {
      // It stands alone (2.7.5.3.1), and a chain that it would end is refused too.
      if (!config_.indirect || count != 0 || (descriptor.flags & kDescriptorNext) != 0) return false;
      return walk_indirect(descriptor.address, descriptor.length, chain);
    }
    const auto direction = (descriptor.flags & kDescriptorWrite) != 0 ? Direction::kWritable : Direction::kReadable;
    if (!builder.add(descriptor.address, descriptor.length, direction)) return false;
    if ((descriptor.flags & kDescriptorNext) == 0) return true;
    index = descriptor.next;
  }
  return false;
}

bool SplitQueue::walk_indirect(uint64_t table, uint32_t length, Chain& chain) {
  if (length == 0 || length % sizeof(SplitDescriptor) != 0) return false;
  const uint32_t table_count = length / sizeof(SplitDescriptor);
  if (!memory_.is_ram({table}, length)) return false;
  ChainBuilder builder(memory_, chain);
  uint32_t index = 0;
  for (uint32_t count = 0; count < table_count; ++count) {
    if (index >= table_count) return false;
    const auto descriptor =
        load_object<SplitDescriptor>(memory_, GuestAddress{table} + sizeof(SplitDescriptor) * uint64_t{index});
    if ((descriptor.flags & kDescriptorIndirect) != 0) return false;
    const auto direction = (descriptor.flags & kDescriptorWrite) != 0 ? Direction::kWritable : Direction::kReadable;
    // The builder's bound on descriptors ends a long table.
    if (!builder.add(descriptor.address, descriptor.length, direction)) return false;
    if ((descriptor.flags & kDescriptorNext) == 0) return true;
    index = descriptor.next;
  }
  return false;
}

void SplitQueue::unpop(const Chain&) {
  --next_available_;
}

void SplitQueue::push_all(std::span<const Given> given) {
  for (const auto& [chain, written] : given) {
    const uint16_t slot = next_used_ & (config_.size - 1);
    store_object(memory_, config_.device + kRingEntries + sizeof(SplitUsedElement) * uint64_t{slot},
                 SplitUsedElement{.id = chain->id_, .length = written});
    ++next_used_;
  }
  store_word(memory_, config_.device + kRingIndex, next_used_);
}

bool SplitQueue::take_interrupt() {
  if (next_used_ == signalled_used_) return false;
  const uint16_t before = signalled_used_;
  signalled_used_ = next_used_;
  // Our index must be visible before we read whether the driver waits for it.
  full_barrier();
  if (config_.event_index) return passed_event(load_word(memory_, used_event()), next_used_, before);
  return (load_word(memory_, config_.driver + kRingFlags) & kAvailableNoInterrupt) == 0;
}

void SplitQueue::disable_notifications() {
  // With event indices the driver's next notification comes only when it passes the old event: nothing to do.
  if (!config_.event_index) store_word(memory_, config_.device + kRingFlags, kUsedNoNotify);
}

bool SplitQueue::enable_notifications() {
  if (config_.event_index) {
    store_word(memory_, available_event(), next_available_);
  } else {
    store_word(memory_, config_.device + kRingFlags, 0);
  }
  full_barrier();
  return load_word(memory_, config_.driver + kRingIndex) != next_available_;
}

void SplitQueue::save_state(StateWriter& writer) const {
  writer.put("next_available", next_available_)
      .put("next_used", next_used_)
      .put("signalled_used", signalled_used_)
      .put("broken", broken_);
}

Result<> SplitQueue::restore_state(const StateReader& reader) {
  const auto next_available = static_cast<uint16_t>(TRY(reader.get("next_available", UINT16_MAX)));
  const auto next_used = static_cast<uint16_t>(TRY(reader.get("next_used", UINT16_MAX)));
  const auto signalled_used = static_cast<uint16_t>(TRY(reader.get("signalled_used", UINT16_MAX)));
  const bool broken = TRY(reader.get_flag("broken"));
  // Nothing is in flight in saved state.
  if (next_available != next_used) {
    return fail("{}: {} chains taken but {} given back", reader.path(), next_available, next_used);
  }
  next_available_ = next_available;
  next_used_ = next_used;
  signalled_used_ = signalled_used;
  broken_ = broken;
  return {};
}

}  // namespace bulkhead::device::virtio
