// What makes a handshake cheap to refuse (whitepaper, section 5.3). The first mac of a message shows that its sender
// knows this side's public key. Under load a second one must show that it gets what is sent to its address: it is keyed
// with a cookie, which is a keyed hash of that address under a secret that changes, so that nothing is kept for
// anybody.
#pragma once

#include <optional>

#include "net/frame/address.h"
#include "net/tunnel/primitives.h"
#include "net/tunnel/wire.h"

namespace bulkhead::net::tunnel {

// Where datagrams come from and go to.
struct Endpoint {
  frame::IpAddress address;
  uint16_t port = 0;
  // "192.0.2.1:51820", "[2001:db8::1]:51820".
  static Result<Endpoint> parse(std::string_view text);
  [[nodiscard]] std::string to_string() const;
  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

inline constexpr uint64_t kCookieLife_ns = 120'000'000'000;

// Keys of the macs of messages to the holder of a public key.
struct MacKeys {
  Bytes32 mac1, cookie;
  explicit MacKeys(const Bytes32& public_key);
};

// message ends with both macs. The second is zero without a cookie.
void put_macs(MutableByteSpan message, const MacKeys& receiver, const std::optional<Mac>& cookie);
[[nodiscard]] bool is_mac1_right(ByteSpan message, const MacKeys& own);
[[nodiscard]] Mac mac1_of(ByteSpan message);

// Gives cookies out and looks at them.
class CookieGiver {
 public:
  explicit CookieGiver(RandomSource& random) : random_(random) {}
  [[nodiscard]] bool is_mac2_right(ByteSpan message, const Endpoint& from, uint64_t now_ns);
  [[nodiscard]] CookieReplyMessage reply(ByteSpan message, uint32_t receiver, const Endpoint& from, const MacKeys& own,
                                         uint64_t now_ns);

 private:
  [[nodiscard]] Mac cookie_of(const Endpoint& from, uint64_t now_ns);

  RandomSource& random_;
  Secret secret_;
  std::optional<uint64_t> made_ns_;
};

// mac1 is that of the message which the reply answers.
[[nodiscard]] std::optional<Mac> open_cookie(const CookieReplyMessage& reply, const MacKeys& sender, const Mac& mac1);

}  // namespace bulkhead::net::tunnel
