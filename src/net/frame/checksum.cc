#include "net/frame/checksum.h"

#include "net/frame/big_endian.h"

namespace bulkhead::net::frame {
namespace {

// The sum of words in any byte order is that of the swapped words, swapped: so eight bytes are taken at a time.
uint64_t sum_of(ByteSpan bytes) {
  uint64_t sum = 0;
  const uint8_t* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= 4; left -= 4, at += 4) sum += load<uint32_t>(at);
  if (left >= 2) {
    sum += load<uint16_t>(at);
    at += 2;
    left -= 2;
  }
  if (left == 1) sum += *at;
  return sum;
}

uint16_t fold(uint64_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xFFFF) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

}  // namespace

Checksum& Checksum::add(ByteSpan bytes) {
  sum_ += fold(sum_of(bytes));
  return *this;
}

Checksum& Checksum::add_word(uint16_t value) {
  sum_ += __builtin_bswap16(value);
  return *this;
}

Checksum& Checksum::add_pseudo_header(const IpAddress& source, const IpAddress& destination, uint8_t protocol,
                                      uint32_t size) {
  const size_t address_size = source.bit_count() / 8;
  add(ByteSpan(source.bytes).first(address_size));
  add(ByteSpan(destination.bytes).first(address_size));
  return add_word(static_cast<uint16_t>(size >> 16)).add_word(static_cast<uint16_t>(size)).add_word(protocol);
}

uint16_t Checksum::value() const {
  return static_cast<uint16_t>(~__builtin_bswap16(fold(sum_)));
}

bool complete_checksum(MutableByteSpan frame, size_t start, size_t offset) {
  if (start > frame.size() || !range_fits(offset, 2, frame.size() - start)) return false;
  const uint16_t value = Checksum().add(ByteSpan(frame).subspan(start)).value();
  store_big16(frame.data() + start + offset, checksum_field(value, offset));
  return true;
}

uint16_t checksum_field(uint16_t value, size_t offset) {
  constexpr size_t kUdpChecksumOffset = 6;
  return value == 0 && offset == kUdpChecksumOffset ? 0xFFFF : value;
}

}  // namespace bulkhead::net::frame
