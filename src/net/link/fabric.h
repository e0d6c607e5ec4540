// A switch within this process, for the cards of one VM: each is a port in a VLAN and sends from its own MAC address
// only. Frames go straight from the sender's thread into the receiver's bounded queue, whose bell is rung with no lock
// held.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "net/link/bell.h"
#include "net/link/frame_queue.h"
#include "net/link/link.h"
#include "net/switch/virtual_switch.h"
#include "support/random.h"
#include "support/time/clock.h"

namespace bulkhead::net::link {

class Fabric final : public std::enable_shared_from_this<Fabric> {
 public:
  // The clock outlives the fabric and its links.
  Fabric(Clock& clock, RandomSource& random) : clock_(clock), switch_({}, random.next_u64()) {}

  Result<std::unique_ptr<Link>> attach(uint16_t vlan, const frame::MacAddress& mac);
  [[nodiscard]] switching::Counters counters(switching::PortId port) const;

 private:
  friend class FabricLink;
  // One port: shared with whoever is ringing it while it goes.
  struct Seat {
    Mutex mutex;
    FrameQueue to_guest GUARDED_BY(mutex);
    uint64_t dropped GUARDED_BY(mutex) = 0;
    Bell bell;
  };
  class Delivery;

  void send(switching::PortId from, ByteSpan frame, const frame::Offload& offload);
  void detach(switching::PortId port);

  Clock& clock_;
  mutable Mutex mutex_;
  switching::VirtualSwitch switch_ GUARDED_BY(mutex_);
  std::map<uint16_t, switching::GroupId> groups_ GUARDED_BY(mutex_);  // by VLAN
  std::map<switching::PortId, std::shared_ptr<Seat>> seats_ GUARDED_BY(mutex_);
};

// The fabrics of one VM, by name.
class Fabrics {
 public:
  Fabrics(Clock& clock, RandomSource& random) : clock_(clock), random_(random) {}
  [[nodiscard]] std::shared_ptr<Fabric> find_or_make(const std::string& name);

 private:
  Clock& clock_;
  RandomSource& random_;
  std::map<std::string, std::shared_ptr<Fabric>> fabrics_;
};

}  // namespace bulkhead::net::link
