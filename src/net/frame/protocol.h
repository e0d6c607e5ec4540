// Numbers out of IEEE 802.1Q and the RFCs that frames are made of (826, 791, 8200, 9293, 768, 792, 4443). No logic.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bulkhead::net::frame {

inline constexpr size_t kEthernetHeaderSize = 14;
inline constexpr size_t kVlanTagSize = 4;
inline constexpr uint16_t kMaximumVlan = 4094;
// The largest frame that anything here takes: a segment of 64 KiB with its headers.
inline constexpr size_t kMaximumFrameSize = 65536 + 64;

inline constexpr uint16_t kTypeIpv4 = 0x0800;
inline constexpr uint16_t kTypeArp = 0x0806;
inline constexpr uint16_t kTypeVlan = 0x8100;
inline constexpr uint16_t kTypeServiceVlan = 0x88A8;
inline constexpr uint16_t kTypeIpv6 = 0x86DD;
inline constexpr uint16_t kTypeProfinet = 0x8892;
// Smaller values are the length of an IEEE 802.3 frame.
inline constexpr uint16_t kLeastType = 0x0600;

inline constexpr size_t kArpSize = 28;
inline constexpr uint16_t kArpRequest = 1;
inline constexpr uint16_t kArpReply = 2;

inline constexpr size_t kIpv4HeaderSize = 20;
inline constexpr size_t kIpv6HeaderSize = 40;
inline constexpr uint8_t kProtocolHopByHop = 0;
inline constexpr uint8_t kProtocolIcmp = 1;
inline constexpr uint8_t kProtocolIgmp = 2;
inline constexpr uint8_t kProtocolTcp = 6;
inline constexpr uint8_t kProtocolUdp = 17;
inline constexpr uint8_t kProtocolRouting = 43;
inline constexpr uint8_t kProtocolFragment = 44;
inline constexpr uint8_t kProtocolAuthentication = 51;
inline constexpr uint8_t kProtocolIcmpv6 = 58;
inline constexpr uint8_t kProtocolNoNext = 59;
inline constexpr uint8_t kProtocolDestination = 60;

inline constexpr size_t kTcpHeaderSize = 20;
inline constexpr size_t kUdpHeaderSize = 8;
inline constexpr size_t kIcmpHeaderSize = 8;
inline constexpr uint8_t kTcpFin = 0x01;
inline constexpr uint8_t kTcpSyn = 0x02;
inline constexpr uint8_t kTcpReset = 0x04;
inline constexpr uint8_t kTcpPush = 0x08;
inline constexpr uint8_t kTcpAcknowledge = 0x10;
inline constexpr uint8_t kTcpUrgent = 0x20;

}  // namespace bulkhead::net::frame
