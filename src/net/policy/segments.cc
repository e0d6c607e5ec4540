#include "net/policy/segments.h"

#include <algorithm>
#include <array>

#include "net/frame/big_endian.h"
#include "net/frame/checksum.h"
#include "net/frame/frame_builder.h"

namespace bulkhead::net::policy {
namespace {

using frame::Headers;

constexpr size_t kMacAddressesSize = 2 * frame::MacAddress::kSize;
// RFC 7323 3.2: kind, size, the sender's time, the time that it answers. Two fillers go before it.
constexpr uint8_t kTimeStamps = 8, kTimeStampsSize = 10, kFiller = 1;

frame::FrameBuilder between(const frame::IpAddress& source, const frame::IpAddress& destination) {
  frame::FrameBuilder builder;
  return source.family == frame::Family::kIpv4 ? builder.ipv4(source.to_string(), destination.to_string())
                                               : builder.ipv6(source.to_string(), destination.to_string());
}

// Who has agreed on time stamps drops segments without them (RFC 7323 3.2). Those of the answer to a segment are its
// own the other way round: the sender has seen the time that it echoes.
std::vector<uint8_t> answered_time_stamps(const Headers& headers, ByteSpan frame) {
  const size_t begin = headers.ip->payload_offset + frame::kTcpHeaderSize;
  for (ByteSpan rest = frame.subspan(begin, headers.transport_payload_offset - begin); rest.size() >= 2;) {
    if (rest[0] == 0) break;
    const size_t size = rest[0] == kFiller ? 1 : rest[1];
    if (size == 0 || size > rest.size()) break;
    if (rest[0] == kTimeStamps && size == kTimeStampsSize) {
      std::vector<uint8_t> options{kFiller, kFiller, kTimeStamps, kTimeStampsSize};
      options.insert(options.end(), rest.begin() + 6, rest.begin() + 10);
      options.insert(options.end(), rest.begin() + 2, rest.begin() + 6);
      return options;
    }
    rest = rest.subspan(size);
  }
  return {};
}

}  // namespace

uint32_t end_of(const Headers& headers) {
  const uint32_t fin = (headers.tcp->flags & frame::kTcpFin) != 0 ? 1 : 0;
  return static_cast<uint32_t>(headers.tcp->sequence + headers.transport_payload_size + fin);
}

std::vector<uint8_t> segment_back(const Headers& headers, ByteSpan frame, const Segment& segment) {
  return between(headers.ip->destination, headers.ip->source)
      .ethernet(headers.destination, headers.source)
      .tcp(headers.tcp->destination_port, headers.tcp->source_port, segment.flags, segment.sequence,
           segment.acknowledgement)
      .tcp_options(answered_time_stamps(headers, frame))
      .payload(ByteSpan(segment.payload))
      .build();
}

std::vector<uint8_t> segment_on(const Headers& headers, const Segment& segment) {
  return between(headers.ip->source, headers.ip->destination)
      .ethernet(headers.source, headers.destination)
      .tcp(headers.tcp->source_port, headers.tcp->destination_port, segment.flags, segment.sequence,
           segment.acknowledgement)
      .payload(ByteSpan(segment.payload))
      .build();
}

std::vector<uint8_t> cut_short(const Headers& headers, ByteSpan frame, size_t payload_size) {
  const frame::Ip& ip = *headers.ip;
  const size_t tags = headers.network_offset - sizeof(uint16_t) - kMacAddressesSize;
  std::vector<uint8_t> out(frame.begin(), frame.begin() + kMacAddressesSize);
  const size_t kept = std::min(payload_size, headers.transport_payload_size);
  const ByteSpan rest = frame.subspan(kMacAddressesSize + tags);
  const size_t end = headers.transport_payload_offset + kept - kMacAddressesSize - tags;
  out.insert(out.end(), rest.begin(), rest.begin() + static_cast<ptrdiff_t>(end));
  const MutableByteSpan header = MutableByteSpan(out).subspan(ip.header_offset - tags);
  const MutableByteSpan segment = MutableByteSpan(out).subspan(ip.payload_offset - tags);
  if (ip.source.family == frame::Family::kIpv4) {
    frame::store_big16(header.data() + 2, static_cast<uint16_t>(header.size()));
    frame::store_big16(header.data() + 10, 0);
    const size_t header_size = ip.payload_offset - ip.header_offset;
    frame::store_big16(header.data() + 10, frame::Checksum().add(header.first(header_size)).value());
  } else {
    frame::store_big16(header.data() + 4, static_cast<uint16_t>(header.size() - frame::kIpv6HeaderSize));
  }
  constexpr size_t kFlags = 13, kSum = 16;
  if (kept < headers.transport_payload_size) segment[kFlags] &= static_cast<uint8_t>(~frame::kTcpFin);
  frame::store_big16(segment.data() + kSum, 0);
  const auto sum =
      frame::Checksum()
          .add_pseudo_header(ip.source, ip.destination, frame::kProtocolTcp, static_cast<uint32_t>(segment.size()))
          .add(segment)
          .value();
  frame::store_big16(segment.data() + kSum, sum);
  return out;
}

}  // namespace bulkhead::net::policy
