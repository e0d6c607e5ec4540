#include "net/policy/flow.h"

#include <tuple>

namespace bulkhead::net::policy {

using frame::Headers;

std::optional<Flow> Flow::of(const Headers& headers) {
  if (!headers.ip) return std::nullopt;
  Flow flow{.source = headers.ip->source, .destination = headers.ip->destination, .protocol = headers.ip->protocol};
  if (headers.tcp) {
    flow.source_port = headers.tcp->source_port;
    flow.destination_port = headers.tcp->destination_port;
  } else if (headers.udp) {
    flow.source_port = headers.udp->source_port;
    flow.destination_port = headers.udp->destination_port;
  } else if (headers.icmp) {
    const bool v4 = headers.ip->source.family == frame::Family::kIpv4;
    const uint8_t request = v4 ? 8 : 128, reply = v4 ? 0 : 129;
    if (headers.icmp->type != request && headers.icmp->type != reply) return std::nullopt;
    flow.source_port = flow.destination_port = headers.icmp->identifier;
  } else {
    return std::nullopt;
  }
  return flow;
}

Flow Flow::of(const frame::Quoted& quoted) {
  return {.source = quoted.source,
          .destination = quoted.destination,
          .protocol = quoted.protocol,
          .source_port = quoted.source_port,
          .destination_port = quoted.destination_port};
}

FlowKey FlowKey::of(const Flow& flow, uint16_t vlan) {
  const bool in_order = std::tie(flow.source, flow.source_port) <= std::tie(flow.destination, flow.destination_port);
  return {.low = in_order ? flow.source : flow.destination,
          .high = in_order ? flow.destination : flow.source,
          .low_port = in_order ? flow.source_port : flow.destination_port,
          .high_port = in_order ? flow.destination_port : flow.source_port,
          .vlan = vlan,
          .protocol = flow.protocol};
}

uint64_t FlowKey::hash(uint64_t secret) const {
  uint64_t state = secret;
  const auto mix = [&state](uint64_t value) {
    const unsigned __int128 product =
        static_cast<unsigned __int128>(state ^ value) * 0x9E37'79B9'7F4A'7C15ull + static_cast<uint64_t>(state >> 7);
    state = static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  };
  for (const frame::IpAddress* address : {&low, &high}) {
    mix(load<uint64_t>(address->bytes.data()));
    mix(load<uint64_t>(address->bytes.data() + 8));
  }
  mix(uint64_t{low_port} << 48 | uint64_t{high_port} << 32 | uint64_t{vlan} << 16 | protocol);
  return state;
}

}  // namespace bulkhead::net::policy
