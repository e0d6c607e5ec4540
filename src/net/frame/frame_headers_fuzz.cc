// Any bytes as a frame: reading ends, stays within the frame, and what it says of ranges holds.
#include "net/frame/headers.h"
#include "support/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  const net::frame::Headers headers = net::frame::read_headers({data, size});
  if (headers.fault != net::frame::Fault::kShortEthernet) {
    CHECK(headers.vlan_tag_count <= net::frame::Headers::kMaximumVlanTags, "tags are bounded");
    CHECK(headers.network_offset <= size, "the network header begins in the frame");
  }
  if (headers.ip) {
    CHECK(range_fits(headers.ip->payload_offset, headers.ip->payload_size, size), "a payload lies in the frame");
  }
  if (headers.tcp || headers.udp || headers.icmp) {
    CHECK(headers.ip.has_value(), "no transport without IP");
    CHECK(!headers.ip->fragment || headers.ip->fragment->offset == 0, "no ports in a later fragment");
    CHECK(range_fits(headers.transport_payload_offset, headers.transport_payload_size, size), "data lies in the frame");
  }
  return 0;
}
