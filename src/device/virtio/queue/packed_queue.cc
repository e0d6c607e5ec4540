#include "device/virtio/queue/packed_queue.h"

#include "device/virtio/queue/ring_access.h"
#include "support/check.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

namespace {

constexpr uint64_t kDescriptorFlags = 14;  // offset in PackedDescriptor
constexpr uint64_t kEventFlags = 2;        // offset in PackedEvent
constexpr uint16_t kEventWrap = 1 << 15;

}  // namespace

PackedQueue::Position PackedQueue::advanced(Position position, uint16_t count) const {
  uint32_t slot = uint32_t{position.slot} + count;
  if (slot >= config_.size) {
    slot -= config_.size;
    position.wrap = !position.wrap;
  }
  position.slot = static_cast<uint16_t>(slot);
  return position;
}

GuestAddress PackedQueue::descriptor_at(uint16_t slot) const {
  return config_.descriptors + sizeof(PackedDescriptor) * uint64_t{slot};
}

bool PackedQueue::is_available(Position position) const {
  const uint16_t flags = load_word(memory_, descriptor_at(position.slot) + kDescriptorFlags);
  const bool available = (flags & kPackedAvailable) != 0;
  const bool used = (flags & kPackedUsed) != 0;
  return available == position.wrap && used != position.wrap;
}

PopResult PackedQueue::pop(Chain& chain) {
  if (broken_) return PopResult::kBroken;
  // When every slot is taken, what stands at the next one is a chain of ours, not a new one.
  if (slots_taken_ == config_.size || !is_available(next_available_)) return PopResult::kEmpty;
  broken_ = !walk(chain) || chain.slot_count_ > config_.size - slots_taken_;
  if (broken_) return PopResult::kBroken;
  next_available_ = advanced(next_available_, chain.slot_count_);
  slots_taken_ += chain.slot_count_;
  return PopResult::kChain;
}

bool PackedQueue::walk(Chain& chain) {
  ChainBuilder builder(memory_, chain);
  for (uint16_t count = 0; count < config_.size; ++count) {
    const auto descriptor =
        load_object<PackedDescriptor>(memory_, descriptor_at(advanced(next_available_, count).slot));
    // The id of a chain is that of its last descriptor.
    chain.id_ = descriptor.id;
    chain.slot_count_ = static_cast<uint16_t>(count + 1);
    if ((descriptor.flags & kDescriptorIndirect) != 0) {
      if (!config_.indirect || count != 0 || (descriptor.flags & kDescriptorNext) != 0) return false;
      return walk_indirect(descriptor, chain);
    }
    const auto direction = (descriptor.flags & kDescriptorWrite) != 0 ? Direction::kWritable : Direction::kReadable;
    if (!builder.add(descriptor.address, descriptor.length, direction)) return false;
    if ((descriptor.flags & kDescriptorNext) == 0) return true;
  }
  return false;
}

// The table is read in its order; of the flags only "write" means anything there (2.8.7).
bool PackedQueue::walk_indirect(const PackedDescriptor& table, Chain& chain) {
  if (table.length == 0 || table.length % sizeof(PackedDescriptor) != 0) return false;
  if (!memory_.is_ram({table.address}, table.length)) return false;
  ChainBuilder builder(memory_, chain);
  for (uint32_t offset = 0; offset < table.length; offset += sizeof(PackedDescriptor)) {
    const auto descriptor = load_object<PackedDescriptor>(memory_, GuestAddress{table.address} + offset);
    if ((descriptor.flags & kDescriptorIndirect) != 0) return false;
    const auto direction = (descriptor.flags & kDescriptorWrite) != 0 ? Direction::kWritable : Direction::kReadable;
    // The builder's bound on descriptors ends a long table.
    if (!builder.add(descriptor.address, descriptor.length, direction)) return false;
  }
  return true;
}

void PackedQueue::unpop(const Chain& chain) {
  slots_taken_ -= chain.slot_count_;
  // Back by what it takes is forward by the rest of the ring, and round once less.
  next_available_ = advanced(next_available_, static_cast<uint16_t>(config_.size - chain.slot_count_));
  next_available_.wrap = !next_available_.wrap;
}

uint16_t PackedQueue::put_used(Position position, const Given& given) const {
  const GuestAddress place = descriptor_at(position.slot);
  store_object(memory_, place + 8, given.written);
  store_object(memory_, place + 12, given.chain->id_);
  const uint16_t flags = position.wrap ? kPackedAvailable | kPackedUsed : 0;
  return given.written != 0 ? flags | kDescriptorWrite : flags;
}

// The driver looks at one descriptor after the other, so the first one's flags hand all of them over: they go last.
void PackedQueue::push_all(std::span<const Given> given) {
  if (given.empty()) return;
  const Position first = next_used_;
  const uint16_t first_flags = put_used(first, given.front());
  for (const Given& each : given) {
    CHECK(each.chain->slot_count_ <= slots_taken_, "a chain is given back once");
    if (next_used_ != first) {
      const uint16_t flags = put_used(next_used_, each);
      store_word(memory_, descriptor_at(next_used_.slot) + kDescriptorFlags, flags);
    }
    next_used_ = advanced(next_used_, each.chain->slot_count_);
    slots_taken_ -= each.chain->slot_count_;
    slots_since_signalled_ += each.chain->slot_count_;
  }
  store_word(memory_, descriptor_at(first.slot) + kDescriptorFlags, first_flags);
}

bool PackedQueue::take_interrupt() {
  if (slots_since_signalled_ == 0) return false;
  const Position before = signalled_used_;
  const uint32_t slots = slots_since_signalled_;
  signalled_used_ = next_used_;
  slots_since_signalled_ = 0;
  full_barrier();
  const uint16_t flags = load_word(memory_, config_.driver + kEventFlags);
  if (flags == kEventDisable) return false;
  if (flags != kEventDescriptor || !config_.event_index) return true;
  const uint16_t event = load_word(memory_, config_.driver);
  // The event lies among the slots that were given back when it is fewer than that many after the old position.
  const bool event_wrap = (event & kEventWrap) != 0;
  uint32_t distance = static_cast<uint16_t>(event & ~kEventWrap);
  if (event_wrap != before.wrap) distance += config_.size;
  return distance >= before.slot && distance - before.slot < slots;
}

void PackedQueue::disable_notifications() {
  store_word(memory_, config_.device + kEventFlags, kEventDisable);
}

bool PackedQueue::enable_notifications() {
  if (config_.event_index) {
    const auto offset = static_cast<uint16_t>(next_available_.slot | (next_available_.wrap ? kEventWrap : 0));
    store_word(memory_, config_.device, offset);
    store_word(memory_, config_.device + kEventFlags, kEventDescriptor);
  } else {
    store_word(memory_, config_.device + kEventFlags, kEventEnable);
  }
  full_barrier();
  return slots_taken_ != config_.size && is_available(next_available_);
}

void PackedQueue::put_position(StateWriter& writer, std::string_view name, Position position) {
  writer.put(name, position.slot | (position.wrap ? kEventWrap : 0));
}

Result<PackedQueue::Position> PackedQueue::get_position(const StateReader& reader, std::string_view name) const {
  const uint64_t value = TRY(reader.get(name, UINT16_MAX));
  const Position position{.slot = static_cast<uint16_t>(value & ~kEventWrap), .wrap = (value & kEventWrap) != 0};
  if (position.slot >= config_.size) {
    return fail("{}: '{}' is slot {} of {}", reader.path(), name, position.slot, config_.size);
  }
  return position;
}

void PackedQueue::save_state(StateWriter& writer) const {
  CHECK(slots_taken_ == 0, "a queue is saved with nothing in flight");
  put_position(writer, "next_available", next_available_);
  put_position(writer, "next_used", next_used_);
  put_position(writer, "signalled_used", signalled_used_);
  writer.put("slots_since_signalled", slots_since_signalled_).put("broken", broken_);
}

Result<> PackedQueue::restore_state(const StateReader& reader) {
  const Position next_available = TRY(get_position(reader, "next_available"));
  const Position next_used = TRY(get_position(reader, "next_used"));
  const Position signalled_used = TRY(get_position(reader, "signalled_used"));
  const auto slots = static_cast<uint32_t>(TRY(reader.get("slots_since_signalled", UINT32_MAX)));
  const bool broken = TRY(reader.get_flag("broken"));
  if (next_available != next_used) {
    return fail("{}: the next available slot is {}, the next used {}", reader.path(), next_available.slot,
                next_used.slot);
  }
  next_available_ = next_available;
  next_used_ = next_used;
  signalled_used_ = signalled_used;
  slots_since_signalled_ = slots;
  broken_ = broken;
  return {};
}

}  // namespace bulkhead::device::virtio
