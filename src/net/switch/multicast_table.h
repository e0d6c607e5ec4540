// Who wants which multicast group, from what cards say to routers (IGMP: RFC 1112, 2236, 3376; MLD: RFC 2710, 3810), so
// that a group's frames go to its members and to routers alone (RFC 4541). Where nobody asks for members, memberships
// cannot be known, and everything goes everywhere. A function of frames and time; bounded for each port.
//
// What a card says counts for its own segment alone: no such message passes from zone to zone, and what a zone is sent
// must tell nothing of another's members.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>

#include "net/frame/headers.h"
#include "net/switch/port_group.h"

namespace bulkhead::net::switching {

using PortId = uint16_t;

class MulticastTable {
 public:
  // Ports of one zone in one VLAN.
  struct Segment {
    uint16_t zone = 0;
    uint16_t vlan = 0;
    friend auto operator<=>(const Segment&, const Segment&) = default;
  };

  static constexpr size_t kMembershipsAPort = 128;  // and no limit in all, which others could reach
  // RFC 3376 8.4, 8.5: as a router with the default values forgets.
  static constexpr uint64_t kMembership_ns = 260'000'000'000;
  static constexpr uint64_t kQuerier_ns = 255'000'000'000;
  // How long members have to answer the first question before what is known is all there is.
  static constexpr uint64_t kFirstAnswers_ns = 12'000'000'000;
  static constexpr uint64_t kLastMember_ns = 2'000'000'000;

  // Whether a port that may serve the network sent it decides whether its questions count.
  // Returns whether it is for routers alone: what one member says another would not say again (RFC 4541 2.1.1 1).
  bool learn(Segment segment, PortId port, bool may_query, const frame::Headers& headers, ByteSpan frame,
             uint64_t now_ns);
  void forget_port(PortId port);

  // Whether frames for the group go to chosen ports only; those say wants().
  [[nodiscard]] bool is_known(Segment segment, const frame::MacAddress& group, uint64_t now_ns) const;
  [[nodiscard]] bool wants(Segment segment, const frame::MacAddress& group, PortId port, uint64_t now_ns) const;
  [[nodiscard]] bool has_router(Segment segment, uint64_t now_ns) const { return querier(segment, now_ns) != nullptr; }
  [[nodiscard]] bool is_router(Segment segment, PortId port, uint64_t now_ns) const;
  [[nodiscard]] size_t size() const { return size_; }

 private:
  // Ports and until when each counts, and the last of those times: whether there is one at all is asked for each port
  // that a frame may go to.
  class Ports {
   public:
    [[nodiscard]] bool has(PortId port, uint64_t now_ns) const {
      const auto found = until_ns_.find(port);
      return found != until_ns_.end() && found->second > now_ns;
    }
    [[nodiscard]] bool has_any(uint64_t now_ns) const { return last_ns_ > now_ns; }
    [[nodiscard]] bool contains(PortId port) const { return until_ns_.contains(port); }
    [[nodiscard]] bool empty() const { return until_ns_.empty(); }
    // No earlier than before.
    void extend(PortId port, uint64_t until_ns);
    // Not later than this; a port that is not there stays away.
    void shorten(PortId port, uint64_t until_ns);
    size_t erase(PortId port);
    // Those whose time is over, told one by one.
    template <typename Gone>
    void sweep(uint64_t now_ns, Gone gone) {
      std::erase_if(until_ns_, [&](const auto& each) {
        if (each.second > now_ns) return false;
        gone(each.first);
        return true;
      });
    }

   private:
    void find_last();
    std::unordered_map<PortId, uint64_t> until_ns_;
    uint64_t last_ns_ = 0;
  };
  struct Querier {
    uint64_t first_ns = 0;
    Ports routers;
  };

  void learn_igmp(Segment segment, PortId port, bool may_query, const frame::Ip& ip, ByteSpan message, uint64_t now_ns);
  void learn_mld(Segment segment, PortId port, bool may_query, const frame::Ip& ip, ByteSpan message, uint64_t now_ns);
  void learn_records(Segment segment, PortId port, ByteSpan message, size_t address_size, uint64_t now_ns);
  void query(Segment segment, PortId port, uint64_t now_ns);
  void join(Segment segment, PortId port, ByteSpan address, uint64_t now_ns);
  void leave(Segment segment, PortId port, ByteSpan address, uint64_t now_ns);
  void sweep(uint64_t now_ns);
  [[nodiscard]] const Querier* querier(Segment segment, uint64_t now_ns) const;

  using Key = std::pair<Segment, uint64_t>;  // and MAC address
  [[nodiscard]] static std::optional<Key> key_of(Segment segment, ByteSpan address);

  std::map<Key, Ports> groups_;
  std::map<Segment, Querier> queriers_;
  std::unordered_map<PortId, size_t> port_counts_;
  size_t size_ = 0;
  uint64_t swept_ns_ = 0;
};

}  // namespace bulkhead::net::switching
