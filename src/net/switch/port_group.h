// What an operator says of ports: a group is a policy with a name, a port belongs to one group. Plain values.
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "net/frame/address.h"
#include "net/frame/protocol.h"

namespace bulkhead::net::switching {

using GroupId = uint16_t;
using VlanSet = std::bitset<4096>;

enum class VlanMode : uint8_t {
  kAccess,  // frames without a tag, all in one VLAN
  kTrunk,   // tagged frames of the allowed VLANs; those without a tag belong to the native one, if there is one
  kTunnel,  // as access, but a frame's own tags are carried along as they are (Q-in-Q)
};

enum class Permission : uint8_t { kDeny, kAllow };

struct GroupPolicy {
  std::string name;
  // What cards say of multicast groups counts for ports of the same zone, and an address that is heard in one moves to
  // no port of another.
  uint16_t zone = 0;
  VlanMode mode = VlanMode::kAccess;
  uint16_t vlan = 1;         // of access and tunnel ports
  VlanSet allowed_vlans;     // of trunks
  uint16_t native_vlan = 0;  // of trunks; 0: frames without a tag are dropped
  uint16_t tag_protocol = frame::kTypeVlan;

  // Each for a port of the group; 0: no limit.
  uint64_t rate_bytes_a_second = 0;
  uint64_t broadcast_frames_a_second = 0;  // unknown destinations too
  uint64_t multicast_frames_a_second = 0;

  // Sending from another MAC address than the port's own.
  Permission forged_mac = Permission::kDeny;
  // Sending from other IP addresses than the port's own, in IP, ARP and neighbour discovery; where the port has none,
  // from those of other ports.
  Permission forged_address = Permission::kDeny;
  // Answering as a DHCP server or an IPv6 router.
  Permission network_services = Permission::kDeny;
  // Seeing frames for others, where the port asks to.
  Permission promiscuous = Permission::kDeny;
  // Ports of the group reach each other.
  Permission within_group = Permission::kAllow;
};

struct PortConfig {
  std::string name;
  GroupId group = 0;
  std::optional<frame::MacAddress> mac;        // no other port sends from it
  std::vector<frame::IpAddress> ip_addresses;  // at most kMaximumAddresses
  bool promiscuous = false;

  static constexpr size_t kMaximumAddresses = 16;
};

}  // namespace bulkhead::net::switching
