// The serving side of one vhost-user connection: it keeps what the front end said of its memory and rings, checks it,
// and has a pair of rings when all of it is there. It touches the connection's memory and nothing else.
//
//   memory table, ring sizes, addresses, bases, kick and call descriptors -> enabled -> frames -> base asked -> stopped
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "net/vhost/message.h"
#include "net/vhost/ring.h"

namespace bulkhead::net::vhost {

// Of the front end's point of view: it receives from the first and sends by the second.
inline constexpr size_t kReceiveRing = 0, kTransmitRing = 1, kRingCount = 2;

class BackEnd final : public AddressSpace {
 public:
  static constexpr size_t kMaximumRegions = 8;
  static constexpr uint64_t kMaximumMemory = uint64_t{1} << 40;

  // An error ends the connection. The reply, if there is one, goes back.
  Result<std::optional<Message>> handle(Message message);

  [[nodiscard]] MutableByteSpan at(uint64_t guest_address, uint64_t size) const override;

  // Rings are there and may be used; whoever asks calls again after each message.
  [[nodiscard]] DeviceRing* ring(size_t index);
  // -1 where there is none.
  [[nodiscard]] int kick(size_t index) const { return rings_[index].kick.get(); }
  [[nodiscard]] int call(size_t index) const { return rings_[index].call.get(); }
  // Counts up with each change of a kick descriptor, so that it can be watched anew.
  [[nodiscard]] uint64_t generation() const { return generation_; }
  [[nodiscard]] uint64_t features() const { return features_; }
  // What a ring did makes no sense: it stops until the front end begins anew.
  void stop(size_t index) { rings_[index].ring.reset(); }

 private:
  struct Region {
    MemoryRegion place;
    Mapping mapping;  // from the file's beginning
  };
  struct Ring {
    uint16_t size = 0;
    uint16_t base = 0;
    std::optional<RingAddress> address;
    Fd kick, call, error;
    bool enabled = false;
    std::optional<DeviceRing> ring;
  };

  Result<> set_memory(Message& message);
  Result<> set_ring(const Message& message);
  Result<> set_descriptor(Message& message);
  [[nodiscard]] uint8_t* user(uint64_t address, size_t size, size_t alignment) const;
  // Makes the ring when nothing is missing.
  Result<> try_start(Ring& ring);

  std::vector<Region> regions_;
  std::array<Ring, kRingCount> rings_;
  uint64_t features_ = 0;
  uint64_t generation_ = 0;
};

}  // namespace bulkhead::net::vhost
