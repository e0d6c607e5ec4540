// The split virtqueue (2.7): descriptor table, available ring, used ring.
#pragma once

#include "device/virtio/queue/queue.h"

namespace bulkhead::device::virtio {

class SplitQueue final : public Queue {
 public:
  SplitQueue(memory::GuestMemory& memory, const QueueConfig& config) : Queue(memory, config) {}

  [[nodiscard]] PopResult pop(Chain& chain) override;
  void unpop(const Chain& chain) override;
  void push_all(std::span<const Given> given) override;
  [[nodiscard]] bool take_interrupt() override;
  void disable_notifications() override;
  [[nodiscard]] bool enable_notifications() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

 private:
  [[nodiscard]] bool walk(uint16_t head, Chain& chain);
  [[nodiscard]] bool walk_indirect(uint64_t table, uint32_t length, Chain& chain);
  [[nodiscard]] GuestAddress available_event() const;
  [[nodiscard]] GuestAddress used_event() const;

  uint16_t next_available_ = 0;  // counts all chains ever taken, modulo 2^16
  uint16_t next_used_ = 0;       // and all ever given back
  uint16_t signalled_used_ = 0;  // next_used_ when the driver was last told
};

}  // namespace bulkhead::device::virtio
