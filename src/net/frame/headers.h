// What stands in a frame's headers, read once from its bytes with every length checked: Ethernet, VLAN tags, ARP, IPv4,
// IPv6 with its extension headers, TCP, UDP and ICMP. It reads bytes and nothing else; whoever forwards or filters
// looks at this and never parses again (DEVICE_SAFETY rule 13).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "net/frame/address.h"
#include "net/frame/protocol.h"
#include "support/bytes.h"

namespace bulkhead::net::frame {

struct VlanTag {
  uint16_t protocol = kTypeVlan;  // or kTypeServiceVlan
  uint16_t id = 0;                // 0: priority only
  uint8_t priority = 0;
  bool drop_eligible = false;
  friend bool operator==(const VlanTag&, const VlanTag&) = default;
};

struct Arp {
  uint16_t operation = 0;
  MacAddress sender_mac;
  IpAddress sender;
  MacAddress target_mac;
  IpAddress target;
};

struct Tcp {
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint32_t sequence = 0;
  uint32_t acknowledgement = 0;
  uint8_t flags = 0;
  uint16_t window = 0;
};

struct Udp {
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
};

struct Icmp {  // of either version
  uint8_t type = 0;
  uint8_t code = 0;
  uint16_t identifier = 0;  // of an echo
};

struct Fragment {
  uint32_t identification = 0;
  uint16_t offset = 0;  // bytes
  bool more = false;
};

struct Ip {
  IpAddress source;
  IpAddress destination;
  uint8_t hop_limit = 0;
  uint8_t protocol = 0;      // of the payload, behind extension headers
  bool has_options = false;  // of IPv6: extension headers but that of a fragment
  bool has_routing_header = false;
  std::optional<Fragment> fragment;
  size_t header_offset = 0;
  size_t payload_offset = 0;  // of the transport header, in the frame
  size_t payload_size = 0;    // with the transport header; padding of the frame is not in it
};

// Why headers could not be read to their end. The part before the fault stands.
enum class Fault : uint8_t {
  kNone,
  kShortEthernet,
  kShortVlan,
  kShortArp,
  kStrangeArp,
  kShortIp,
  kIpVersion,
  kIpHeaderSize,
  kIpTotalSize,
  kIpChecksum,
  kExtensionHeaders,
  kFragmentSize,
  kShortTransport,
  kTransportSize,
};
[[nodiscard]] std::string_view to_string(Fault fault);

// What a switch looks at.
struct Ethernet {
  static constexpr size_t kMaximumVlanTags = 2;

  Fault fault = Fault::kNone;
  MacAddress destination;
  MacAddress source;
  std::array<VlanTag, kMaximumVlanTags> vlan_tags{};
  uint8_t vlan_tag_count = 0;
  uint16_t type = 0;  // behind the tags; a third tag is a type here
  size_t network_offset = 0;
};

struct Headers : Ethernet {
  // More extension headers than this are a fault: no sender needs them, and a reader must end.
  static constexpr unsigned kMaximumExtensionHeaders = 8;

  std::optional<Arp> arp;
  std::optional<Ip> ip;
  // Of an unfragmented packet or a first fragment.
  std::optional<Tcp> tcp;
  std::optional<Udp> udp;
  std::optional<Icmp> icmp;
  size_t transport_payload_offset = 0;  // behind the header of TCP, UDP or ICMP
  size_t transport_payload_size = 0;    // of this frame
};

// The first of the headers only.
[[nodiscard]] Ethernet read_ethernet(ByteSpan frame);
[[nodiscard]] Headers read_headers(ByteSpan frame);

}  // namespace bulkhead::net::frame
