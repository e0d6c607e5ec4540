#include "net/vhost/ring.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace bulkhead::net::vhost {
namespace {

// Both sides look at these at the same time.
uint16_t load_shared(const uint8_t* at) {
  return __atomic_load_n(reinterpret_cast<const uint16_t*>(at), __ATOMIC_ACQUIRE);
}
void store_shared(uint8_t* at, uint16_t value) {
  __atomic_store_n(reinterpret_cast<uint16_t*>(at), value, __ATOMIC_RELEASE);
}
void full_barrier() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

constexpr size_t kFlags = 0, kIndex = 2, kEntries = 4;

}  // namespace

// ---- The device's side ----

DeviceRing::Popped DeviceRing::pop(const AddressSpace& space) {
  const uint16_t waiting = static_cast<uint16_t>(load_shared(memory_.available + kIndex) - seen_);
  if (waiting == 0) return Popped::kEmpty;
  if (waiting > memory_.size) return Popped::kBroken;
  const uint16_t mask = static_cast<uint16_t>(memory_.size - 1);
  head_ = load_shared(memory_.available + kEntries + 2 * static_cast<size_t>(seen_ & mask));
  parts_.clear();
  readable_ = writable_ = 0;
  uint16_t index = head_;
  for (size_t count = 0;; ++count) {
    if (index >= memory_.size || count == kMaximumParts) return Popped::kBroken;
    Descriptor descriptor;
    // The driver may change it while it is looked at: once is enough.
    std::memcpy(&descriptor, memory_.descriptors + 16 * static_cast<size_t>(index), sizeof descriptor);
    if ((descriptor.flags & kDescriptorIndirect) != 0) return Popped::kBroken;
    const bool writable = (descriptor.flags & kDescriptorWrite) != 0;
    const MutableByteSpan bytes = space.at(descriptor.address, descriptor.size);
    if (bytes.size() != descriptor.size) return Popped::kBroken;
    if (!writable && writable_ != 0) return Popped::kBroken;
    (writable ? writable_ : readable_) += bytes.size();
    parts_.push_back({bytes, writable});
    if ((descriptor.flags & kDescriptorNext) == 0) break;
    index = descriptor.next;
  }
  ++seen_;
  return Popped::kChain;
}

size_t DeviceRing::read(MutableByteSpan out) const {
  size_t done = 0;
  for (const Part& part : parts_) {
    if (part.writable) break;
    const size_t size = std::min(part.bytes.size(), out.size() - done);
    if (size != 0) std::memcpy(out.data() + done, part.bytes.data(), size);
    done += size;
  }
  return done;
}

void DeviceRing::write(size_t offset, ByteSpan bytes) const {
  for (const Part& part : parts_) {
    if (!part.writable) continue;
    if (offset >= part.bytes.size()) {
      offset -= part.bytes.size();
      continue;
    }
    const size_t size = std::min(part.bytes.size() - offset, bytes.size());
    if (size != 0) std::memcpy(part.bytes.data() + offset, bytes.data(), size);
    bytes = bytes.subspan(size);
    offset = 0;
    if (bytes.empty()) return;
  }
}

void DeviceRing::push(uint32_t written) {
  uint8_t* const entry = memory_.used + kEntries + 8 * static_cast<size_t>(done_ & (memory_.size - 1));
  store<uint32_t>(entry, head_);
  store<uint32_t>(entry + 4, written);
  store_shared(memory_.used + kIndex, ++done_);
}

bool DeviceRing::wants_interrupt() const {
  full_barrier();
  return (load_shared(memory_.available + kFlags) & kNoInterrupt) == 0;
}

void DeviceRing::set_notifications(bool wanted) {
  store_shared(memory_.used + kFlags, wanted ? 0 : kNoNotify);
  full_barrier();
}

// ---- The driver's side ----

DriverRing::DriverRing(const RingMemory& memory, uint64_t first_buffer, uint32_t buffer_size, bool device_writes)
    : memory_(memory), buffer_size_(buffer_size), with_device_(memory.size) {
  for (uint16_t i = 0; i < memory.size; ++i) {
    const Descriptor descriptor{first_buffer + uint64_t{i} * buffer_size, buffer_size,
                                device_writes ? kDescriptorWrite : uint16_t{0}, 0};
    std::memcpy(memory.descriptors + 16 * static_cast<size_t>(i), &descriptor, sizeof descriptor);
  }
}

void DriverRing::add(uint16_t buffer, uint32_t size) {
  store<uint32_t>(memory_.descriptors + 16 * static_cast<size_t>(buffer) + 8, size);
  store<uint16_t>(memory_.available + kEntries + 2 * static_cast<size_t>(given_ & (memory_.size - 1)), buffer);
  with_device_[buffer] = true;
  store_shared(memory_.available + kIndex, ++given_);
}

bool DriverRing::has_used() const {
  return load_shared(memory_.used + kIndex) != seen_;
}

DriverRing::Used DriverRing::take() {
  if (!has_used()) return {};
  const uint8_t* const entry = memory_.used + kEntries + 8 * static_cast<size_t>(seen_ & (memory_.size - 1));
  const auto id = load<uint32_t>(entry), written = load<uint32_t>(entry + 4);
  if (id >= memory_.size || !with_device_[id] || written > buffer_size_) return {.kind = Used::Kind::kBroken};
  ++seen_;
  with_device_[id] = false;
  return {.kind = Used::Kind::kBuffer, .buffer = static_cast<uint16_t>(id), .written = written};
}

bool DriverRing::wants_notify() const {
  full_barrier();
  return (load_shared(memory_.used + kFlags) & kNoNotify) == 0;
}

void DriverRing::set_interrupts(bool wanted) {
  store_shared(memory_.available + kFlags, wanted ? 0 : kNoInterrupt);
  full_barrier();
}

}  // namespace bulkhead::net::vhost
