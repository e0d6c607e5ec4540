#include "net/tunnel/vxlan.h"

#include <algorithm>

#include "net/frame/big_endian.h"
#include "net/frame/checksum.h"
#include "net/frame/headers.h"
#include "net/tunnel/wire.h"

namespace bulkhead::net::tunnel {
namespace {

using frame::load_big16, frame::load_big32, frame::store_big16, frame::store_big32;

constexpr std::string_view kAddressLabel = "bulkhead tunnel address";
constexpr uint32_t kVersion6 = 6u << 28;
constexpr uint8_t kHopLimit = 64;
constexpr uint32_t kVniIsThere = 0x0800'0000;  // the I flag
constexpr size_t kUdp = frame::kIpv6HeaderSize, kVxlan = kUdp + frame::kUdpHeaderSize;
constexpr uint8_t kOptionEnd = 0, kOptionNothing = 1, kOptionSegmentSize = 2;

}  // namespace

frame::IpAddress address_of_key(const Bytes32& public_key) {
  const ByteSpan label{reinterpret_cast<const uint8_t*>(kAddressLabel.data()), kAddressLabel.size()};
  Bytes32 bytes = hash({label, public_key});
  bytes[0] = 0xFD;
  return frame::IpAddress::v6(ByteSpan(bytes).first(16));
}

void put_envelope(MutableByteSpan packet, const frame::IpAddress& from, const frame::IpAddress& to, uint32_t vni) {
  uint8_t* const at = packet.data();
  const auto size = static_cast<uint16_t>(packet.size() - frame::kIpv6HeaderSize);
  store_big32(at, kVersion6);
  store_big16(at + 4, size);
  at[6] = frame::kProtocolUdp;
  at[7] = kHopLimit;
  std::ranges::copy(from.bytes, at + 8);
  std::ranges::copy(to.bytes, at + 24);
  store_big16(at + kUdp, kVxlanPort);
  store_big16(at + kUdp + 2, kVxlanPort);
  store_big16(at + kUdp + 4, size);
  store_big16(at + kUdp + 6, 0);
  store_big32(at + kVxlan, kVniIsThere);
  store_big32(at + kVxlan + 4, vni << 8);
  // Over IPv6 a receiver may refuse packets without a checksum.
  const uint16_t sum = frame::Checksum()
                           .add_pseudo_header(from, to, frame::kProtocolUdp, size)
                           .add(ByteSpan(packet).subspan(kUdp))
                           .value();
  store_big16(at + kUdp + 6, frame::checksum_field(sum, 6));
}

std::optional<Unwrapped> take_envelope(MutableByteSpan packet, const frame::IpAddress& from,
                                       const frame::IpAddress& to) {
  if (packet.size() < kEnvelopeSize + frame::kEthernetHeaderSize) return std::nullopt;
  const uint8_t* const at = packet.data();
  const size_t size = load_big16(at + 4);
  if (load_big32(at) >> 28 != 6 || size > packet.size() - frame::kIpv6HeaderSize ||
      size < kEnvelopeSize - frame::kIpv6HeaderSize + frame::kEthernetHeaderSize || at[6] != frame::kProtocolUdp) {
    return std::nullopt;
  }
  if (!std::equal(from.bytes.begin(), from.bytes.end(), at + 8) ||
      !std::equal(to.bytes.begin(), to.bytes.end(), at + 24)) {
    return std::nullopt;
  }
  // The checksum is not looked at: whoever sealed the packet made all of it.
  if (load_big16(at + kUdp + 2) != kVxlanPort || load_big16(at + kUdp + 4) != size ||
      (load_big32(at + kVxlan) & kVniIsThere) == 0) {
    return std::nullopt;
  }
  return Unwrapped{.vni = load_big32(at + kVxlan + 4) >> 8,
                   .frame = packet.subspan(kEnvelopeSize, size + frame::kIpv6HeaderSize - kEnvelopeSize)};
}

uint16_t inner_mtu(uint16_t path_mtu) {
  constexpr size_t kOutside = frame::kIpv6HeaderSize + frame::kUdpHeaderSize + sizeof(DataHeader) + kTagSize;
  constexpr size_t kInside = kEnvelopeSize + frame::kEthernetHeaderSize;
  if (path_mtu < kOutside) return 0;
  const size_t packet = (path_mtu - kOutside) / kPadding * kPadding;
  return packet < kInside ? 0 : static_cast<uint16_t>(packet - kInside);
}

bool clamp_segment_size(MutableByteSpan frame, uint16_t mtu) {
  // Most frames are told here.
  if (frame.size() < frame::kEthernetHeaderSize) return false;
  const uint16_t type = load_big16(frame.data() + 12);
  if (type != frame::kTypeIpv4 && type != frame::kTypeIpv6) return false;
  const frame::Headers headers = frame::read_headers(frame);
  if (!headers.tcp || (headers.tcp->flags & frame::kTcpSyn) == 0) return false;
  const size_t begin = headers.ip->payload_offset;
  const size_t ip_size = type == frame::kTypeIpv4 ? frame::kIpv4HeaderSize : frame::kIpv6HeaderSize;
  if (mtu <= ip_size + frame::kTcpHeaderSize) return false;
  const auto most = static_cast<uint16_t>(mtu - ip_size - frame::kTcpHeaderSize);
  const size_t end = headers.transport_payload_offset;
  for (size_t at = begin + frame::kTcpHeaderSize; at < end;) {
    if (frame[at] == kOptionEnd) break;
    if (frame[at] == kOptionNothing) {
      ++at;
      continue;
    }
    if (end - at < 2 || frame[at + 1] < 2 || frame[at + 1] > end - at) break;
    if (frame[at] != kOptionSegmentSize || frame[at + 1] != 4) {
      at += frame[at + 1];
      continue;
    }
    if (load_big16(&frame[at + 2]) <= most) return false;
    // The checksum follows the words that change (RFC 1624), so that a wrong one stays wrong.
    constexpr size_t kChecksum = 16;
    const size_t first = begin + (at + 2 - begin) / 2 * 2, past = (at + 4 - begin + 1) / 2 * 2 + begin;
    uint32_t sum = static_cast<uint16_t>(~load_big16(&frame[begin + kChecksum]));
    for (size_t i = first; i < past; i += 2) sum += static_cast<uint16_t>(~load_big16(&frame[i]));
    store_big16(&frame[at + 2], most);
    for (size_t i = first; i < past; i += 2) sum += load_big16(&frame[i]);
    while (sum >> 16 != 0) sum = (sum & 0xFFFF) + (sum >> 16);
    store_big16(&frame[begin + kChecksum], static_cast<uint16_t>(~sum));
    return true;
  }
  return false;
}

}  // namespace bulkhead::net::tunnel
