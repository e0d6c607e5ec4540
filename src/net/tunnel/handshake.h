// The handshake of WireGuard: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, without a pre-shared key. Two messages prove to
// each side that the other has the private key of the public key that it is known by, and give both the keys of a
// session.
//
//   initiator                                              responder
//   make_initiation  -- ephemeral, {static}, {time} -->    open_initiation (who?), then accept (is it?)
//   open_response    <-- ephemeral, {} --                  make_response
//
// Functions of bytes and states; time and randomness are passed in.
#pragma once

#include <array>
#include <optional>

#include "net/tunnel/primitives.h"
#include "net/tunnel/wire.h"

namespace bulkhead::net::tunnel {

struct Identity {
  Secret private_key;
  Bytes32 public_key;
  explicit Identity(const Secret& key) : private_key(key), public_key(public_key_of(key)) {}
};

// TAI64N: later ones compare greater, byte by byte. Its last 24 bits are zero, so that they tell nothing.
using Timestamp = std::array<uint8_t, 12>;
[[nodiscard]] Timestamp timestamp_of(uint64_t wall_ns);

// Of an initiator, between its two messages.
struct Initiation {
  uint32_t index = 0;
  Secret ephemeral;
  Secret chain;
  Bytes32 transcript{};
};

struct SessionKeys {
  Secret send, receive;
};

// Without its macs, which come last (Cookies). shared is the agreement of both static keys.
[[nodiscard]] InitiationMessage make_initiation(const Identity& own, const Bytes32& peer, const Secret& shared,
                                                uint32_t index, const Timestamp& timestamp, RandomSource& random,
                                                Initiation& state);

// Of a responder: what has been read so far.
struct OpenedInitiation {
  uint32_t index = 0;
  Bytes32 peer{};  // who it says it is; proven by accept()
  Bytes32 ephemeral{};
  Secret chain;
  Bytes32 transcript{};
};
[[nodiscard]] std::optional<OpenedInitiation> open_initiation(const Identity& own, const InitiationMessage& message);
// The time that the peer says, when it is the peer.
[[nodiscard]] std::optional<Timestamp> accept(OpenedInitiation& opened, const InitiationMessage& message,
                                              const Secret& shared);
// Nothing when the peer's keys give no secret.
struct Response {
  ResponseMessage message;
  SessionKeys keys;
};
[[nodiscard]] std::optional<Response> make_response(OpenedInitiation& opened, uint32_t index, RandomSource& random);

[[nodiscard]] std::optional<SessionKeys> open_response(const Identity& own, const Initiation& state,
                                                       const ResponseMessage& message);

}  // namespace bulkhead::net::tunnel
