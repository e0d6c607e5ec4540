// The packed virtqueue (2.8): one ring that descriptors travel through in both directions. A descriptor belongs to the
// device while its available bit equals the driver's wrap counter and its used bit does not.
#pragma once

#include "device/virtio/queue/queue.h"
#include "spec/virtio.h"

namespace bulkhead::device::virtio {

class PackedQueue final : public Queue {
 public:
  PackedQueue(memory::GuestMemory& memory, const QueueConfig& config) : Queue(memory, config) {}

  [[nodiscard]] PopResult pop(Chain& chain) override;
  void unpop(const Chain& chain) override;
  void push_all(std::span<const Given> given) override;
  [[nodiscard]] bool take_interrupt() override;
  void disable_notifications() override;
  [[nodiscard]] bool enable_notifications() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

 private:
  // A place in the ring and how often, modulo 2, the ring has been gone round.
  struct Position {
    uint16_t slot = 0;
    bool wrap = true;
    friend bool operator==(const Position&, const Position&) = default;
  };
  [[nodiscard]] Position advanced(Position position, uint16_t count) const;
  [[nodiscard]] GuestAddress descriptor_at(uint16_t slot) const;
  [[nodiscard]] bool is_available(Position position) const;
  // Writes all of a used descriptor but the flags that hand it over, which it returns.
  [[nodiscard]] uint16_t put_used(Position position, const Given& given) const;
  [[nodiscard]] bool walk(Chain& chain);
  [[nodiscard]] bool walk_indirect(const spec::virtio::PackedDescriptor& descriptor, Chain& chain);
  static void put_position(StateWriter& writer, std::string_view name, Position position);
  Result<Position> get_position(const StateReader& reader, std::string_view name) const;

  Position next_available_;
  Position next_used_;
  Position signalled_used_;
  uint16_t slots_taken_ = 0;            // of chains not given back
  uint32_t slots_since_signalled_ = 0;  // given back since the driver was last told
};

}  // namespace bulkhead::device::virtio
