#include "net/frame/headers.h"

#include <algorithm>

#include "net/frame/big_endian.h"
#include "net/frame/checksum.h"

namespace bulkhead::net::frame {
namespace {

constexpr uint8_t kIpVersion4 = 4;
constexpr uint8_t kIpVersion6 = 6;

void read_ethernet_into(ByteSpan frame, Ethernet& ethernet) {
  if (frame.size() < kEthernetHeaderSize) {
    ethernet.fault = Fault::kShortEthernet;
    return;
  }
  ethernet.destination = MacAddress::from(frame);
  ethernet.source = MacAddress::from(frame.subspan(MacAddress::kSize));
  size_t offset = kEthernetHeaderSize;
  ethernet.type = load_big16(frame.data() + offset - 2);
  while ((ethernet.type == kTypeVlan || ethernet.type == kTypeServiceVlan) &&
         ethernet.vlan_tag_count < Ethernet::kMaximumVlanTags) {
    if (frame.size() - offset < kVlanTagSize) {
      ethernet.fault = Fault::kShortVlan;
      return;
    }
    const uint16_t control = load_big16(frame.data() + offset);
    ethernet.vlan_tags[ethernet.vlan_tag_count++] = {.protocol = ethernet.type,
                                                     .id = static_cast<uint16_t>(control & 0xFFF),
                                                     .priority = static_cast<uint8_t>(control >> 13),
                                                     .drop_eligible = (control & 0x1000) != 0};
    ethernet.type = load_big16(frame.data() + offset + 2);
    offset += kVlanTagSize;
  }
  ethernet.network_offset = offset;
}

class Reader {
 public:
  explicit Reader(ByteSpan frame) : frame_(frame) {}

  Headers read() {
    read_ethernet_into(frame_, headers_);
    if (headers_.fault == Fault::kNone) headers_.fault = network();
    return headers_;
  }

 private:
  Fault network();
  Fault arp();
  Fault ipv4();
  Fault ipv6();
  Fault extension_headers(Ip& ip);
  Fault transport();
  Fault tcp(ByteSpan payload);
  Fault udp(ByteSpan payload);
  Fault icmp(ByteSpan payload);

  [[nodiscard]] ByteSpan rest() const { return frame_.subspan(headers_.network_offset); }

  const ByteSpan frame_;
  Headers headers_;
};

Fault Reader::network() {
  switch (headers_.type) {
    case kTypeArp:
      return arp();
    case kTypeIpv4:
      return ipv4();
    case kTypeIpv6:
      return ipv6();
    default:
      return Fault::kNone;
  }
}

Fault Reader::arp() {
  const ByteSpan bytes = rest();
  if (bytes.size() < kArpSize) return Fault::kShortArp;
  // Ethernet and IPv4 alone (RFC 826).
  if (load_big16(bytes.data()) != 1 || load_big16(bytes.data() + 2) != kTypeIpv4 || bytes[4] != 6 || bytes[5] != 4) {
    return Fault::kStrangeArp;
  }
  headers_.arp = Arp{.operation = load_big16(bytes.data() + 6),
                     .sender_mac = MacAddress::from(bytes.subspan(8)),
                     .sender = IpAddress::v4(bytes.subspan(14)),
                     .target_mac = MacAddress::from(bytes.subspan(18)),
                     .target = IpAddress::v4(bytes.subspan(24))};
  return Fault::kNone;
}

Fault Reader::ipv4() {
  const ByteSpan bytes = rest();
  if (bytes.size() < kIpv4HeaderSize) return Fault::kShortIp;
  if (bytes[0] >> 4 != kIpVersion4) return Fault::kIpVersion;
  const size_t header_size = size_t{4} * (bytes[0] & 0xF);
  if (header_size < kIpv4HeaderSize || header_size > bytes.size()) return Fault::kIpHeaderSize;
  const size_t total_size = load_big16(bytes.data() + 2);
  if (total_size < header_size || total_size > bytes.size()) return Fault::kIpTotalSize;
  if (Checksum().add(bytes.first(header_size)).value() != 0) return Fault::kIpChecksum;
  const uint16_t flags = load_big16(bytes.data() + 6);
  Ip& ip = headers_.ip.emplace();
  ip.source = IpAddress::v4(bytes.subspan(12));
  ip.destination = IpAddress::v4(bytes.subspan(16));
  ip.hop_limit = bytes[8];
  ip.protocol = bytes[9];
  ip.has_options = header_size > kIpv4HeaderSize;
  ip.header_offset = headers_.network_offset;
  ip.payload_offset = headers_.network_offset + header_size;
  ip.payload_size = total_size - header_size;
  if ((flags & 0x3FFF) != 0) {
    ip.fragment = Fragment{.identification = load_big16(bytes.data() + 4),
                           .offset = static_cast<uint16_t>((flags & 0x1FFF) * 8),
                           .more = (flags & 0x2000) != 0};
  }
  return transport();
}

Fault Reader::ipv6() {
  const ByteSpan bytes = rest();
  if (bytes.size() < kIpv6HeaderSize) return Fault::kShortIp;
  if (bytes[0] >> 4 != kIpVersion6) return Fault::kIpVersion;
  const size_t payload_size = load_big16(bytes.data() + 4);
  if (payload_size > bytes.size() - kIpv6HeaderSize) return Fault::kIpTotalSize;
  Ip& ip = headers_.ip.emplace();
  ip.source = IpAddress::v6(bytes.subspan(8));
  ip.destination = IpAddress::v6(bytes.subspan(24));
  ip.protocol = bytes[6];
  ip.hop_limit = bytes[7];
  ip.header_offset = headers_.network_offset;
  ip.payload_offset = headers_.network_offset + kIpv6HeaderSize;
  ip.payload_size = payload_size;
  const Fault fault = extension_headers(ip);
  return fault == Fault::kNone ? transport() : fault;
}

Fault Reader::extension_headers(Ip& ip) {
  for (unsigned count = 0;; ++count) {
    const ByteSpan bytes = frame_.subspan(ip.payload_offset, ip.payload_size);
    size_t size = 0;
    switch (ip.protocol) {
      case kProtocolHopByHop:
      case kProtocolRouting:
      case kProtocolDestination:
        if (bytes.size() < 8) return Fault::kExtensionHeaders;
        size = size_t{8} * (bytes[1] + 1u);
        break;
      case kProtocolAuthentication:
        if (bytes.size() < 8) return Fault::kExtensionHeaders;
        size = size_t{4} * (bytes[1] + 2u);
        break;
      case kProtocolFragment:
        if (bytes.size() < 8 || ip.fragment) return Fault::kExtensionHeaders;
        size = 8;
        break;
      default:
        return Fault::kNone;
    }
    // Hop-by-hop options come first or not at all (RFC 8200 4.1).
    const bool misplaced = ip.protocol == kProtocolHopByHop && count != 0;
    if (count == Headers::kMaximumExtensionHeaders || size > bytes.size() || misplaced) return Fault::kExtensionHeaders;
    ip.has_options |= ip.protocol != kProtocolFragment;
    ip.has_routing_header |= ip.protocol == kProtocolRouting;
    if (ip.protocol == kProtocolFragment) {
      const uint16_t word = load_big16(bytes.data() + 2);
      ip.fragment = Fragment{.identification = load_big32(bytes.data() + 4),
                             .offset = static_cast<uint16_t>(word & 0xFFF8),
                             .more = (word & 1) != 0};
    }
    ip.protocol = bytes[0];
    ip.payload_offset += size;
    ip.payload_size -= size;
    // What follows in a later fragment is not a header.
    if (ip.fragment && ip.fragment->offset != 0) return Fault::kNone;
  }
}

Fault Reader::transport() {
  const Ip& ip = *headers_.ip;
  const ByteSpan payload = frame_.subspan(ip.payload_offset, ip.payload_size);
  if (ip.fragment) {
    // All but the last carry whole units of eight bytes, and none reaches beyond a packet's largest size.
    if (payload.empty() || (ip.fragment->more && payload.size() % 8 != 0)) return Fault::kFragmentSize;
    if (ip.fragment->offset + payload.size() > UINT16_MAX) return Fault::kFragmentSize;
    if (ip.fragment->offset != 0) return Fault::kNone;
  }
  switch (ip.protocol) {
    case kProtocolTcp:
      return tcp(payload);
    case kProtocolUdp:
      return udp(payload);
    case kProtocolIcmp:
      return ip.source.family == Family::kIpv4 ? icmp(payload) : Fault::kNone;
    case kProtocolIcmpv6:
      return ip.source.family == Family::kIpv6 ? icmp(payload) : Fault::kNone;
    default:
      return Fault::kNone;
  }
}

Fault Reader::tcp(ByteSpan payload) {
  if (payload.size() < kTcpHeaderSize) return Fault::kShortTransport;
  const size_t header_size = size_t{4} * (payload[12] >> 4);
  if (header_size < kTcpHeaderSize || header_size > payload.size()) return Fault::kTransportSize;
  headers_.tcp = Tcp{.source_port = load_big16(payload.data()),
                     .destination_port = load_big16(payload.data() + 2),
                     .sequence = load_big32(payload.data() + 4),
                     .acknowledgement = load_big32(payload.data() + 8),
                     .flags = payload[13],
                     .window = load_big16(payload.data() + 14)};
  headers_.transport_payload_offset = headers_.ip->payload_offset + header_size;
  headers_.transport_payload_size = payload.size() - header_size;
  return Fault::kNone;
}

Fault Reader::udp(ByteSpan payload) {
  if (payload.size() < kUdpHeaderSize) return Fault::kShortTransport;
  const size_t size = load_big16(payload.data() + 4);
  // A first fragment holds a part only.
  const bool part = headers_.ip->fragment && headers_.ip->fragment->more;
  if (size < kUdpHeaderSize || (!part && size > payload.size())) return Fault::kTransportSize;
  headers_.udp = Udp{.source_port = load_big16(payload.data()), .destination_port = load_big16(payload.data() + 2)};
  headers_.transport_payload_offset = headers_.ip->payload_offset + kUdpHeaderSize;
  headers_.transport_payload_size = std::min(size, payload.size()) - kUdpHeaderSize;
  return Fault::kNone;
}

Fault Reader::icmp(ByteSpan payload) {
  // Some messages of ICMPv6 have four bytes and options; none has less than a type, a code, a checksum and a word.
  if (payload.size() < kIcmpHeaderSize) return Fault::kShortTransport;
  headers_.icmp = Icmp{.type = payload[0], .code = payload[1], .identifier = load_big16(payload.data() + 4)};
  headers_.transport_payload_offset = headers_.ip->payload_offset + kIcmpHeaderSize;
  headers_.transport_payload_size = payload.size() - kIcmpHeaderSize;
  return Fault::kNone;
}

}  // namespace

std::string_view to_string(Fault fault) {
  switch (fault) {
    case Fault::kNone:
      return "none";
    case Fault::kShortEthernet:
      return "an Ethernet header cut off";
    case Fault::kShortVlan:
      return "a VLAN tag cut off";
    case Fault::kShortArp:
      return "an ARP packet cut off";
    case Fault::kStrangeArp:
      return "ARP of other networks than Ethernet and IPv4";
    case Fault::kShortIp:
      return "an IP header cut off";
    case Fault::kIpVersion:
      return "an IP version that is not its type's";
    case Fault::kIpHeaderSize:
      return "an impossible IP header size";
    case Fault::kIpTotalSize:
      return "an impossible IP packet size";
    case Fault::kIpChecksum:
      return "a wrong IP header checksum";
    case Fault::kExtensionHeaders:
      return "impossible IPv6 extension headers";
    case Fault::kFragmentSize:
      return "an impossible fragment";
    case Fault::kShortTransport:
      return "a transport header cut off";
    case Fault::kTransportSize:
      return "an impossible transport size";
  }
  return "";
}

Ethernet read_ethernet(ByteSpan frame) {
  Ethernet ethernet;
  read_ethernet_into(frame, ethernet);
  return ethernet;
}

Headers read_headers(ByteSpan frame) {
  return Reader(frame).read();
}

}  // namespace bulkhead::net::frame
