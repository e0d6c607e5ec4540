#include "net/frame/quoted.h"

#include "net/frame/big_endian.h"

namespace bulkhead::net::frame {

bool is_icmp_error(const Ip& ip, const Icmp& icmp) {
  if (ip.source.family == Family::kIpv6) return icmp.type >= 1 && icmp.type <= 4;
  return icmp.type == 3 || icmp.type == 11 || icmp.type == 12;
}

std::optional<Quoted> read_quoted(Family family, ByteSpan bytes) {
  Quoted quoted;
  size_t header_size = kIpv6HeaderSize;
  if (family == Family::kIpv4) {
    if (bytes.size() < kIpv4HeaderSize || bytes[0] >> 4 != 4) return std::nullopt;
    header_size = size_t{4} * (bytes[0] & 0xF);
    if (header_size < kIpv4HeaderSize || (load_big16(bytes.data() + 6) & 0x1FFF) != 0) return std::nullopt;
    quoted.source = IpAddress::v4(bytes.subspan(12));
    quoted.destination = IpAddress::v4(bytes.subspan(16));
    quoted.protocol = bytes[9];
  } else {
    if (bytes.size() < kIpv6HeaderSize || bytes[0] >> 4 != 6) return std::nullopt;
    quoted.source = IpAddress::v6(bytes.subspan(8));
    quoted.destination = IpAddress::v6(bytes.subspan(24));
    quoted.protocol = bytes[6];
  }
  if (bytes.size() < header_size + 8) return std::nullopt;
  const uint8_t* transport = bytes.data() + header_size;
  if (quoted.protocol == kProtocolTcp || quoted.protocol == kProtocolUdp) {
    quoted.source_port = load_big16(transport);
    quoted.destination_port = load_big16(transport + 2);
    return quoted;
  }
  const bool echo = family == Family::kIpv4
                        ? quoted.protocol == kProtocolIcmp && (transport[0] == 8 || transport[0] == 0)
                        : quoted.protocol == kProtocolIcmpv6 && (transport[0] == 128 || transport[0] == 129);
  if (!echo) return std::nullopt;
  quoted.source_port = quoted.destination_port = load_big16(transport + 4);
  return quoted;
}

}  // namespace bulkhead::net::frame
