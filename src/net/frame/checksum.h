// The Internet checksum (RFC 1071): the ones' complement sum of 16-bit words in network order.
#pragma once

#include <cstdint>

#include "net/frame/address.h"
#include "support/bytes.h"

namespace bulkhead::net::frame {

// Folds ranges one after the other; each but the last has an even size.
class Checksum {
 public:
  Checksum& add(ByteSpan bytes);
  Checksum& add_word(uint16_t value);
  // The pseudo header of TCP, UDP and ICMPv6 (RFC 9293 3.1, RFC 8200 8.1).
  Checksum& add_pseudo_header(const IpAddress& source, const IpAddress& destination, uint8_t protocol, uint32_t size);
  // As it stands in a header: the complement. Over bytes that contain a right checksum it is 0.
  [[nodiscard]] uint16_t value() const;

 private:
  uint64_t sum_ = 0;  // of words in host order, without the end-around carries
};

// Completes a checksum that its sender left open (VIRTIO 1.2, 5.1.6.2): the sum over [start, end) goes to
// start + offset, where the pseudo header's sum stands. False when the field lies outside the frame.
[[nodiscard]] bool complete_checksum(MutableByteSpan frame, size_t start, size_t offset);

// What stands in the header for a Checksum::value(). In UDP zero says that there is none, so it is sent as the other
// zero (RFC 768); in other protocols the other zero is never sent (RFC 1624, section 3).
[[nodiscard]] uint16_t checksum_field(uint16_t value, size_t offset);

}  // namespace bulkhead::net::frame
