// A virtqueue as the device works on it: take available chains, give them back used, and tell when the driver wants to
// hear of it. Two layouts implement it, split and packed. Used on one worker only. Its geometry is frozen when it is
// made; the ring itself is hostile, and one that makes no sense leaves the queue broken until the device is reset.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "device/virtio/queue/chain.h"
#include "memory/guest_memory.h"
#include "support/result.h"
#include "support/state/state.h"

namespace bulkhead::device::virtio {

struct QueueConfig {
  uint16_t size = 0;
  GuestAddress descriptors;
  GuestAddress driver;  // the available ring, or the driver event suppression
  GuestAddress device;  // the used ring, or the device event suppression
  bool packed = false;
  bool indirect = false;
  bool event_index = false;
};

enum class PopResult : uint8_t { kChain, kEmpty, kBroken };

class Queue {
 public:
  // Nothing when size, alignment or place in RAM break the rules.
  static std::unique_ptr<Queue> create(memory::GuestMemory& memory, const QueueConfig& config);
  virtual ~Queue() = default;

  [[nodiscard]] const QueueConfig& config() const { return config_; }
  [[nodiscard]] uint16_t size() const { return config_.size; }

  // The next available chain. Broken: the driver broke the rules; nothing more comes out of this queue.
  [[nodiscard]] virtual PopResult pop(Chain& chain) = 0;
  // Puts back the chain popped last, as if it had not been taken.
  virtual void unpop(const Chain& chain) = 0;
  struct Given {
    const Chain* chain;
    uint32_t written;  // bytes of its writable part
  };
  // Gives chains back so that the driver sees all of them or none.
  virtual void push_all(std::span<const Given> given) = 0;
  void push(const Chain& chain, uint32_t written) {
    const Given one{&chain, written};
    push_all({&one, 1});
  }
  // Whether the driver wants an interrupt for what was pushed since it was last asked.
  [[nodiscard]] virtual bool take_interrupt() = 0;

  // Asks the driver not to notify while the queue is being worked on: a hint.
  virtual void disable_notifications() = 0;
  // Asks for a notification of the next chain; true when one has arrived meanwhile, so that the caller must look again.
  [[nodiscard]] virtual bool enable_notifications() = 0;

  // Only when every chain was given back.
  virtual void save_state(StateWriter& writer) const = 0;
  virtual Result<> restore_state(const StateReader& reader) = 0;

 protected:
  Queue(memory::GuestMemory& memory, const QueueConfig& config) : memory_(memory), config_(config) {}

  memory::GuestMemory& memory_;
  const QueueConfig config_;
  bool broken_ = false;
};

enum class Drained : uint8_t { kEmpty, kMore, kBroken };

// Takes chains until none is left or as many as the queue holds were taken (DEVICE_SAFETY rule 3); handle(chain) says
// false to stop early. With kEmpty the driver notifies of the next chain; with kMore it does not: come again.
template <typename Handle>
Drained drain(Queue& queue, Chain& chain, Handle&& handle) {
  queue.disable_notifications();
  for (unsigned count = 0; count < queue.size();) {
    switch (queue.pop(chain)) {
      case PopResult::kBroken:
        return Drained::kBroken;
      case PopResult::kEmpty:
        if (!queue.enable_notifications()) return Drained::kEmpty;
        queue.disable_notifications();
        // A driver that keeps adding chains must not hold us here either.
        ++count;
        break;
      case PopResult::kChain:
        ++count;
        if (!handle(chain)) return Drained::kMore;
        break;
    }
  }
  return Drained::kMore;
}

// True when going from index old_index to new_index, modulo 2^16, has passed event (2.7.10.1).
[[nodiscard]] constexpr bool passed_event(uint16_t event, uint16_t new_index, uint16_t old_index) {
  return static_cast<uint16_t>(new_index - event - 1) < static_cast<uint16_t>(new_index - old_index);
}

}  // namespace bulkhead::device::virtio
