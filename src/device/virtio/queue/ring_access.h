// Ordered access to the 16-bit words of a ring by which driver and device hand buffers to each other. The addresses
// were checked to be RAM and aligned when the queue was made, and RAM does not move.
#pragma once

#include <atomic>
#include <cstdint>

#include "memory/guest_memory.h"
#include "support/check.h"

namespace bulkhead::device::virtio {

[[nodiscard]] inline uint16_t load_word(memory::GuestMemory& memory, GuestAddress address) {
  uint8_t* word = memory.data(address, sizeof(uint16_t));
  CHECK(word != nullptr, "a queue's rings are RAM");
  return std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(word)).load(std::memory_order_acquire);
}

inline void store_word(memory::GuestMemory& memory, GuestAddress address, uint16_t value) {
  uint8_t* word = memory.data(address, sizeof(uint16_t));
  CHECK(word != nullptr, "a queue's rings are RAM");
  std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(word)).store(value, std::memory_order_release);
  memory.mark_written(address, sizeof value);
}

// For structures in a ring: the caller has ordered the access by a word.
template <typename T>
[[nodiscard]] T load_object(memory::GuestMemory& memory, GuestAddress address) {
  const auto object = memory.read_object<T>(address);
  CHECK(object.has_value(), "a queue's rings are RAM");
  return *object;
}

template <typename T>
void store_object(memory::GuestMemory& memory, GuestAddress address, const T& object) {
  const bool written = memory.write_object(address, object);
  CHECK(written, "a queue's rings are RAM");
}

// Between a store of ours and a load of what the driver stores: each must see the other's or be seen.
inline void full_barrier() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

}  // namespace bulkhead::device::virtio
