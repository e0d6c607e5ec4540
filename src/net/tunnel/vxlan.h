// VXLAN (RFC 7348) over UDP over IPv6, as it travels inside a tunnel: a frame of one VLAN as a packet between two
// hosts, and back. A host's address is made from its public key, so that a packet's source is who sealed it. Also what
// keeps frames below the path's size: TCP's maximum segment size is lowered in passing (RFC 9293, 3.7.1).
#pragma once

#include <optional>

#include "net/frame/address.h"
#include "net/frame/protocol.h"
#include "net/tunnel/primitives.h"

namespace bulkhead::net::tunnel {

inline constexpr size_t kVxlanHeaderSize = 8;
inline constexpr size_t kEnvelopeSize = frame::kIpv6HeaderSize + frame::kUdpHeaderSize + kVxlanHeaderSize;
inline constexpr uint16_t kVxlanPort = 4789;
inline constexpr uint32_t kMaximumVni = (1u << 24) - 1;

// In fd00::/8 (RFC 4193).
[[nodiscard]] frame::IpAddress address_of_key(const Bytes32& public_key);

// Writes kEnvelopeSize bytes in front of a frame; packet is both.
void put_envelope(MutableByteSpan packet, const frame::IpAddress& from, const frame::IpAddress& to, uint32_t vni);

struct Unwrapped {
  uint32_t vni = 0;
  MutableByteSpan frame;
};
// Nothing when it is not a VXLAN packet between these two, with an Ethernet frame in it. Padding behind it is left out.
[[nodiscard]] std::optional<Unwrapped> take_envelope(MutableByteSpan packet, const frame::IpAddress& from,
                                                     const frame::IpAddress& to);

// What a card's MTU can be so that its untagged frames travel in one datagram each over a path that takes path_mtu
// bytes, by IPv4 or IPv6; 0 when there is none.
[[nodiscard]] uint16_t inner_mtu(uint16_t path_mtu);

// Lowers what a SYN says in an untagged frame to what fits an MTU; true when it did.
bool clamp_segment_size(MutableByteSpan frame, uint16_t mtu);

}  // namespace bulkhead::net::tunnel
