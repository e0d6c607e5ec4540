// TCP segments that the firewall says in the name of one of a connection's ends, made after one that came: its
// addresses, ports and time stamps, without its VLAN tag.
#pragma once

#include <cstdint>
#include <vector>

#include "net/frame/headers.h"

namespace bulkhead::net::policy {

struct Segment {
  uint32_t sequence = 0;
  uint32_t acknowledgement = 0;
  uint8_t flags = 0;
  std::vector<uint8_t> payload;
};

// The sequence number behind a segment's bytes and its FIN.
[[nodiscard]] uint32_t end_of(const frame::Headers& headers);
// To whom the segment came from, as if it were answered.
[[nodiscard]] std::vector<uint8_t> segment_back(const frame::Headers& headers, ByteSpan frame, const Segment& segment);
// To whom it was for, in its sender's name.
[[nodiscard]] std::vector<uint8_t> segment_on(const frame::Headers& headers, const Segment& segment);
// The segment with no more than so much of its payload, and without FIN where it lost some.
[[nodiscard]] std::vector<uint8_t> cut_short(const frame::Headers& headers, ByteSpan frame, size_t payload_size);

}  // namespace bulkhead::net::policy
