// The messages of WireGuard's protocol as they stand in datagrams (whitepaper of 2020-06-01, section 5.4). All numbers
// are little-endian; each message begins with its kind in four bytes. No logic.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bulkhead::net::tunnel {

inline constexpr uint32_t kInitiation = 1, kResponse = 2, kCookieReply = 3, kData = 4;

struct InitiationMessage {
  uint32_t kind;
  uint32_t sender;
  uint8_t ephemeral[32];
  uint8_t sealed_static[32 + 16];
  uint8_t sealed_timestamp[12 + 16];
  uint8_t mac1[16];
  uint8_t mac2[16];
};
static_assert(sizeof(InitiationMessage) == 148);

struct ResponseMessage {
  uint32_t kind;
  uint32_t sender;
  uint32_t receiver;
  uint8_t ephemeral[32];
  uint8_t sealed_nothing[16];
  uint8_t mac1[16];
  uint8_t mac2[16];
};
static_assert(sizeof(ResponseMessage) == 92);

struct CookieReplyMessage {
  uint32_t kind;
  uint32_t receiver;
  uint8_t nonce[24];
  uint8_t sealed_cookie[16 + 16];
};
static_assert(sizeof(CookieReplyMessage) == 64);

// In front of the sealed packet.
struct DataHeader {
  uint32_t kind;
  uint32_t receiver;
  uint64_t counter;
};
static_assert(sizeof(DataHeader) == 16);

// Packets are padded with zeroes to a multiple of this before they are sealed.
inline constexpr size_t kPadding = 16;

}  // namespace bulkhead::net::tunnel
