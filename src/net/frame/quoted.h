// The packet that an ICMP error quotes (RFC 792, RFC 4443 3): its header and the first bytes behind it, all that is
// there to say whose error it is.
#pragma once

#include <optional>

#include "net/frame/headers.h"

namespace bulkhead::net::frame {

struct Quoted {
  IpAddress source;
  IpAddress destination;
  uint8_t protocol = 0;
  uint16_t source_port = 0;  // of an echo: its identifier, in both
  uint16_t destination_port = 0;
};

// True for messages that quote: destination unreachable, packet too big, time exceeded, parameter problem. Redirects
// are not among them: nobody needs them here, and they steer traffic.
[[nodiscard]] bool is_icmp_error(const Ip& ip, const Icmp& icmp);
// Out of the bytes behind the ICMP header; nothing when they are no unfragmented TCP, UDP or ICMP echo.
[[nodiscard]] std::optional<Quoted> read_quoted(Family family, ByteSpan bytes);

}  // namespace bulkhead::net::frame
