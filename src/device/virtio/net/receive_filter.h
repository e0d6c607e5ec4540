// Which frames a card takes up (VIRTIO 1.2, 5.1.6.5.1 to .3): its own address, those that the driver named, VLANs that
// it asked for, or everything. What a guest names is bounded; more than that is taken to mean everything of its kind.
#pragma once

#include <bitset>
#include <vector>

#include "net/frame/address.h"
#include "support/bytes.h"
#include "support/result.h"
#include "support/state/state.h"

namespace bulkhead::device::virtio {

class ReceiveFilter {
 public:
  static constexpr size_t kMaximumAddresses = 64;  // of each kind
  static constexpr size_t kVlanCount = 4096;

  [[nodiscard]] bool wants(ByteSpan frame, const net::frame::MacAddress& own) const;

  // What the driver says; false when it makes no sense. Classes and commands are those of spec/virtio.h.
  [[nodiscard]] bool set_mode(uint8_t command, bool on);
  [[nodiscard]] bool set_addresses(ByteSpan table);
  [[nodiscard]] bool change_vlan(uint8_t command, uint16_t vlan);

  // As at reset: everything is taken up; VLANs only when the driver is to name them.
  void reset(bool names_vlans);
  void save_state(StateWriter& writer) const;
  Result<> restore_state(const StateReader& reader);

 private:
  // One bit each, as they are saved.
  struct Modes {
    bool promiscuous = true;
    bool all_multicast = false;
    bool all_unicast = false;
    bool no_multicast = false;
    bool no_unicast = false;
    bool no_broadcast = false;
    bool names_vlans = false;
    bool too_many_unicast = false;
    bool too_many_multicast = false;
  };
  static constexpr uint64_t kModeBits = 0x1FF;
  [[nodiscard]] uint64_t mode_bits() const;
  void set_mode_bits(uint64_t bits);

  Modes modes_;
  std::vector<net::frame::MacAddress> unicast_, multicast_;
  std::bitset<kVlanCount> vlans_;
};

}  // namespace bulkhead::device::virtio
