// A learning switch with VLANs and port groups. It forwards one frame at a time, as a function of the frame, its tables
// and the time that it is given; it owns no queue, thread, clock or descriptor, and the same inputs give the same
// outputs. Bounds: kMaximumPorts, kMaximumGroups, the MAC table's limits.
//
//   frame -> mirror -> classify (VLAN) -> guards of the group -> rate -> learn -> destinations -> filter -> tag ->
//   output
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "net/frame/headers.h"
#include "net/frame/offload.h"
#include "net/switch/mac_table.h"
#include "net/switch/multicast_table.h"
#include "net/switch/port_group.h"
#include "net/switch/rate_limit.h"
#include "support/result.h"

namespace bulkhead::net::switching {

enum class Drop : uint8_t {
  kMalformed,
  kVlan,
  kDoubleTag,
  kForgedMac,
  kForgedAddress,
  kNetworkService,
  kRate,
  kBroadcast,
  kMulticast,
  kReserved,
  kFilter,
  kMirrorPort,
  kLoop,
};
inline constexpr size_t kDropCount = 13;
[[nodiscard]] std::string_view to_string(Drop drop);

struct Counters {
  uint64_t received_frames = 0;  // by the switch, from the port
  uint64_t received_bytes = 0;
  uint64_t sent_frames = 0;
  uint64_t sent_bytes = 0;
  uint64_t flooded_frames = 0;
  uint64_t not_learned = 0;
  uint64_t moved_addresses = 0;
  std::array<uint64_t, kDropCount> drops{};

  [[nodiscard]] uint64_t dropped(Drop drop) const { return drops[static_cast<size_t>(drop)]; }
};

// A frame on its way out: pieces of the one that came in, with a tag put in or left out.
struct OutputFrame {
  std::array<ByteSpan, 3> parts;
  frame::Offload offload = {};  // of this frame: a tag moves where its checksum begins
  // Of a copy for a mirror: the port at which the frame was seen, and whether that port sent it.
  struct Seen {
    PortId port;
    bool is_sent;
  };
  std::optional<Seen> seen = {};

  [[nodiscard]] size_t size() const { return parts[0].size() + parts[1].size() + parts[2].size(); }
  // Into exactly size() bytes.
  void copy_to(MutableByteSpan out) const;
  [[nodiscard]] std::vector<uint8_t> bytes() const;
};

class Output {
 public:
  virtual ~Output() = default;
  // The frame's bytes are there during the call only. It must not call the switch (DEVICE_SAFETY rule 9).
  virtual void deliver(PortId port, const OutputFrame& frame) = 0;
};

// Says for each pair of ports whether a frame may pass.
struct Passage {
  PortId from;
  PortId to;
  uint16_t vlan;
  ByteSpan frame;
  const frame::Headers& headers;
  uint64_t now_ns;
  bool is_flooded = false;    // a frame for one card goes to others too, and this need not be the one
  bool is_asked_for = false;  // ARP asks everybody for an address of this port's
};
class Filter {
 public:
  virtual ~Filter() = default;
  [[nodiscard]] virtual bool lets_through(const Passage& passage) = 0;
};

// Copies of what ports send and receive, each frame once, go to one more port, which takes part in nothing else:
// nothing that it sends is taken. No filter, limit or guard has a say in a copy: whoever watches sees a flood as it is,
// and what becomes too much for the target is lost there.
struct Mirror {
  std::vector<PortId> ports;
  std::vector<GroupId> groups = {};  // with the ports that come later
  PortId target = 0;
};

class VirtualSwitch {
 public:
  static constexpr size_t kMaximumPorts = 512;
  static constexpr size_t kMaximumGroups = 256;
  static constexpr size_t kMaximumMirrors = 16;

  // The secret keeps places in tables, and the marks of probes, unknown to guests.
  VirtualSwitch(const MacTableLimits& limits, uint64_t secret);

  Result<GroupId> add_group(GroupPolicy policy);
  Result<PortId> add_port(PortConfig config);
  // Its addresses are forgotten; the id may be given to another port.
  void remove_port(PortId port);
  Result<> add_mirror(Mirror mirror);
  void clear_mirrors();
  // nullptr: everything passes. The filter outlives its use here.
  void set_filter(Filter* filter) { filter_ = filter; }

  // Takes a frame that a port sends, with what was left open of it, settled. Time never goes back.
  void forward(PortId from, ByteSpan frame, uint64_t now_ns, Output& output, const frame::Offload& offload = {});

  // A frame without a tag that nobody sent, such as a firewall's answer: straight to one port, tagged as it wants.
  void originate(PortId to, uint16_t vlan, ByteSpan frame, Output& output) { send_own(to, vlan, frame, true, output); }

  // Sends a frame of the switch's own to each port that may send from any address, mirrors' targets too, about once a
  // second. One that comes in again has gone round outside: the port where it did carries nothing for kLoopPause_ns; of
  // a mirror's target it is the mirror that rests.
  void probe_for_loops(uint64_t now_ns, Output& output);
  static constexpr uint64_t kLoopPause_ns = 10'000'000'000;

  [[nodiscard]] const Counters* counters(PortId port) const;
  [[nodiscard]] const Counters* group_counters(GroupId group) const;
  [[nodiscard]] const MacTable& addresses() const { return addresses_; }
  // Whether somebody sends from an address in a VLAN that ports of the group reach.
  [[nodiscard]] bool is_heard(GroupId group, const frame::MacAddress& address, uint64_t now_ns) const;

 private:
  using Mirrors = uint16_t;
  static_assert(sizeof(Mirrors) * 8 == kMaximumMirrors);
  struct Group {
    GroupPolicy policy;
    Counters counters;
    Mirrors mirrored = 0;
  };
  struct Port {
    PortConfig config;
    Counters counters;
    RateLimit rate, broadcast, multicast;
    bool overhears = false;
    Mirrors mirrored = 0;  // a bit for each that gets copies
    bool is_mirror = false;
    uint64_t paused_until_ns = 0;  // for a loop
  };
  struct Work {
    PortId from;
    ByteSpan frame;
    uint64_t now_ns;
    Output& output;
    const frame::Offload& offload;
    frame::Ethernet ethernet;
    uint16_t vlan = 0;
    uint16_t priority_bits = 0;  // of the tag, kept from tagged port to tagged port
    size_t inner_offset = 12;    // of the type field behind the tag that was taken off
    bool is_flooded = false;
    std::optional<frame::Headers> headers;
    Mirrors copied = 0;  // that have the frame already
  };

  [[nodiscard]] Port* port(PortId id) const { return id < ports_.size() ? ports_[id].get() : nullptr; }
  [[nodiscard]] Group& group_of(const Port& port) { return groups_[port.config.group]; }
  [[nodiscard]] static bool carries(const GroupPolicy& policy, uint16_t vlan);
  [[nodiscard]] const frame::Headers& headers_of(Work& work) const;
  [[nodiscard]] size_t frames_of(Work& work) const;
  [[nodiscard]] std::optional<Drop> classify(const GroupPolicy& policy, Work& work) const;
  [[nodiscard]] std::optional<Drop> guard(const Port& from, const GroupPolicy& policy, Work& work) const;
  [[nodiscard]] std::optional<Drop> guard_addresses(const Port& from, const GroupPolicy& policy, Work& work) const;
  // Whether an IP address belongs to a card at another port of the VLAN, and not to one at this port too.
  [[nodiscard]] bool is_anothers(const frame::IpAddress& address, const Work& work) const;
  [[nodiscard]] std::optional<Drop> limit(Port& from, Work& work, bool is_known) const;
  // Whether the frame is one of our probes, which then has done its work.
  [[nodiscard]] bool take_probe(Port& from, const Work& work);
  [[nodiscard]] std::optional<PortId> destination_of(const Work& work) const;
  // Whether a port is among those to which a multicast frame goes, by what its own segment has said.
  [[nodiscard]] bool wants(PortId to, const Work& work, bool is_report) const;
  void count_drop(Port& port, Drop drop);
  // Why nothing of this goes out there at all.
  [[nodiscard]] std::optional<Drop> why_closed(const Port& target, const Work& work);
  [[nodiscard]] bool asks_for(PortId to, Work& work) const;
  void send(PortId to, Work& work);
  void send_own(PortId to, uint16_t vlan, ByteSpan frame, bool for_mirrors, Output& output);
  void stop_mirror(size_t index);
  void mirror(PortId seen_at, bool is_sent, const OutputFrame& frame, Mirrors& copied, Output& output);
  void count_sent(Port& port, size_t size);

  MacTable addresses_;
  MulticastTable multicast_;
  frame::MacAddress probe_source_;  // no guest knows it beforehand
  uint64_t mirror_mark_;            // of probes to mirrors: nobody stops a mirror who does not see what it sends
  std::vector<Group> groups_;
  std::vector<std::unique_ptr<Port>> ports_;
  // Addresses that belong to ports: at most one a port.
  std::unordered_map<frame::MacAddress, PortId> assigned_;
  std::map<frame::IpAddress, std::vector<PortId>> owners_;
  size_t overhearing_count_ = 0;
  std::vector<PortId> mirror_targets_;
  uint64_t now_ns_ = 0;  // as last told
  Filter* filter_ = nullptr;
};

}  // namespace bulkhead::net::switching
