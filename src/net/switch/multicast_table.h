// Who wants which multicast group, from what cards say to routers (IGMP: RFC 1112, 2236, 3376; MLD: RFC 2710, 3810), so
// that a group's frames go to its members and to routers alone (RFC 4541). Where nobody asks for members, memberships
// cannot be known, and everything goes everywhere. A function of frames and time; bounded in all and for each port.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "net/frame/headers.h"
#include "net/switch/port_group.h"

namespace bulkhead::net::switching {

using PortId = uint16_t;

class MulticastTable {
 public:
  static constexpr size_t kMaximumMemberships = 4096;  // of a port in a group
  static constexpr size_t kMembershipsAPort = 128;
  // RFC 3376 8.4, 8.5: as a router with the default values forgets.
  static constexpr uint64_t kMembership_ns = 260'000'000'000;
  static constexpr uint64_t kQuerier_ns = 255'000'000'000;
  // How long members have to answer the first question before what is known is all there is.
  static constexpr uint64_t kFirstAnswers_ns = 12'000'000'000;
  static constexpr uint64_t kLastMember_ns = 2'000'000'000;

  // Whether a port that may serve the network sent it decides whether its questions count.
  // Returns whether it is for routers alone: what one member says another would not say again (RFC 4541 2.1.1 1).
  bool learn(uint16_t vlan, PortId port, bool may_query, const frame::Headers& headers, ByteSpan frame,
             uint64_t now_ns);
  void forget_port(PortId port);

  // Whether frames for the group go to chosen ports only; those say wants().
  [[nodiscard]] bool is_known(uint16_t vlan, const frame::MacAddress& group, uint64_t now_ns) const;
  [[nodiscard]] bool wants(uint16_t vlan, const frame::MacAddress& group, PortId port, uint64_t now_ns) const;
  [[nodiscard]] bool has_router(uint16_t vlan, uint64_t now_ns) const { return querier(vlan, now_ns) != nullptr; }
  [[nodiscard]] bool is_router(uint16_t vlan, PortId port, uint64_t now_ns) const;
  [[nodiscard]] size_t size() const { return size_; }

 private:
  struct Querier {
    uint64_t first_ns = 0;
    std::unordered_map<PortId, uint64_t> routers;  // until when
  };
  using Members = std::unordered_map<PortId, uint64_t>;

  void learn_igmp(uint16_t vlan, PortId port, bool may_query, const frame::Ip& ip, ByteSpan message, uint64_t now_ns);
  void learn_mld(uint16_t vlan, PortId port, bool may_query, const frame::Ip& ip, ByteSpan message, uint64_t now_ns);
  void learn_records(uint16_t vlan, PortId port, ByteSpan message, size_t address_size, uint64_t now_ns);
  void query(uint16_t vlan, PortId port, uint64_t now_ns);
  void join(uint16_t vlan, PortId port, ByteSpan address, uint64_t now_ns);
  void leave(uint16_t vlan, PortId port, ByteSpan address, uint64_t now_ns);
  void sweep(uint64_t now_ns);
  [[nodiscard]] const Querier* querier(uint16_t vlan, uint64_t now_ns) const;

  std::unordered_map<uint64_t, Members> groups_;  // by VLAN and MAC address
  std::unordered_map<uint16_t, Querier> queriers_;
  std::unordered_map<PortId, size_t> port_counts_;
  size_t size_ = 0;
  uint64_t swept_ns_ = 0;
};

}  // namespace bulkhead::net::switching
