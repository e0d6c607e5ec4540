#include "net/tunnel/handshake.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "net/frame/big_endian.h"

namespace bulkhead::net::tunnel {
namespace {

constexpr std::string_view kConstruction = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
constexpr std::string_view kIdentifier = "WireGuard v1 zx2c4 Jason@zx2c4.com";

ByteSpan bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

template <size_t size>
Bytes32 copy_key(const uint8_t (&from)[size]) {
  static_assert(size == kKeySize);
  Bytes32 key;
  std::copy_n(from, size, key.begin());
  return key;
}

// What both sides compute alike: the chaining key and the hash of all that was said.
class Noise {
 public:
  explicit Noise(const Bytes32& responder)
      : chain_(hash({bytes_of(kConstruction)})), transcript_(hash({chain_.bytes, bytes_of(kIdentifier)})) {
    say(responder);
  }
  Noise(const Secret& chain, const Bytes32& transcript) : chain_(chain), transcript_(transcript) {}

  void say(ByteSpan bytes) { transcript_ = hash({transcript_, bytes}); }
  void say_ephemeral(const Bytes32& key) {
    mix(key);
    say(key);
  }
  void mix(ByteSpan secret) { chain_ = derive<1>(chain_, secret)[0]; }
  // Mixes the secret in and gives the key of what follows.
  Secret key_with(ByteSpan secret) {
    const auto two = derive<2>(chain_, secret);
    chain_ = two[0];
    return two[1];
  }
  // The same for a pre-shared key, of which there is none.
  Secret key_with_no_psk() {
    const Bytes32 none{};
    const auto three = derive<3>(chain_, none);
    chain_ = three[0];
    say(three[1].bytes);
    return three[2];
  }
  void seal(const Secret& key, ByteSpan plain, MutableByteSpan out) {
    Aead(key).seal(0, plain, transcript_, out);
    say(out);
  }
  [[nodiscard]] bool open(const Secret& key, ByteSpan sealed, MutableByteSpan out) {
    if (!Aead(key).open(0, sealed, transcript_, out)) return false;
    say(sealed);
    return true;
  }
  [[nodiscard]] const Secret& chain() const { return chain_; }
  [[nodiscard]] const Bytes32& transcript() const { return transcript_; }

 private:
  Secret chain_;
  Bytes32 transcript_;
};

}  // namespace

Timestamp timestamp_of(uint64_t wall_ns) {
  constexpr uint64_t kNanosecondsPerSecond = 1'000'000'000, kTai = (uint64_t{1} << 62) + 10;
  const uint64_t seconds = kTai + wall_ns / kNanosecondsPerSecond;
  Timestamp stamp;
  frame::store_big32(stamp.data(), static_cast<uint32_t>(seconds >> 32));
  frame::store_big32(stamp.data() + 4, static_cast<uint32_t>(seconds));
  frame::store_big32(stamp.data() + 8, static_cast<uint32_t>(wall_ns % kNanosecondsPerSecond) & 0xFF00'0000);
  return stamp;
}

InitiationMessage make_initiation(const Identity& own, const Bytes32& peer, const Secret& shared, uint32_t index,
                                  const Timestamp& timestamp, RandomSource& random, Initiation& state) {
  InitiationMessage message{};
  message.kind = kInitiation;
  message.sender = index;
  state.index = index;
  state.ephemeral = make_private_key(random);
  const Bytes32 ephemeral = public_key_of(state.ephemeral);
  std::ranges::copy(ephemeral, message.ephemeral);
  Noise noise(peer);
  noise.say_ephemeral(ephemeral);
  // A peer's key that gives no secret has been refused when the peer was configured.
  const Secret secret = agree(state.ephemeral, peer).value_or(Secret());
  noise.seal(noise.key_with(secret.bytes), own.public_key, message.sealed_static);
  noise.seal(noise.key_with(shared.bytes), timestamp, message.sealed_timestamp);
  state.chain = noise.chain();
  state.transcript = noise.transcript();
  return message;
}

std::optional<OpenedInitiation> open_initiation(const Identity& own, const InitiationMessage& message) {
  OpenedInitiation opened;
  opened.index = message.sender;
  opened.ephemeral = copy_key(message.ephemeral);
  Noise noise(own.public_key);
  noise.say_ephemeral(opened.ephemeral);
  const auto secret = agree(own.private_key, opened.ephemeral);
  if (!secret || !noise.open(noise.key_with(secret->bytes), message.sealed_static, opened.peer)) return std::nullopt;
  opened.chain = noise.chain();
  opened.transcript = noise.transcript();
  return opened;
}

std::optional<Timestamp> accept(OpenedInitiation& opened, const InitiationMessage& message, const Secret& shared) {
  Noise noise(opened.chain, opened.transcript);
  Timestamp timestamp;
  if (!noise.open(noise.key_with(shared.bytes), message.sealed_timestamp, timestamp)) return std::nullopt;
  opened.chain = noise.chain();
  opened.transcript = noise.transcript();
  return timestamp;
}

std::optional<Response> make_response(OpenedInitiation& opened, uint32_t index, RandomSource& random) {
  Response made{};
  made.message.kind = kResponse;
  made.message.sender = index;
  made.message.receiver = opened.index;
  const Secret ephemeral = make_private_key(random);
  const Bytes32 shown = public_key_of(ephemeral);
  std::ranges::copy(shown, made.message.ephemeral);
  const auto with_ephemeral = agree(ephemeral, opened.ephemeral), with_static = agree(ephemeral, opened.peer);
  if (!with_ephemeral || !with_static) return std::nullopt;
  Noise noise(opened.chain, opened.transcript);
  noise.say_ephemeral(shown);
  noise.mix(with_ephemeral->bytes);
  noise.mix(with_static->bytes);
  noise.seal(noise.key_with_no_psk(), {}, made.message.sealed_nothing);
  const auto keys = derive<2>(noise.chain(), {});
  made.keys = {.send = keys[1], .receive = keys[0]};
  return made;
}

std::optional<SessionKeys> open_response(const Identity& own, const Initiation& state, const ResponseMessage& message) {
  const Bytes32 shown = copy_key(message.ephemeral);
  const auto with_ephemeral = agree(state.ephemeral, shown), with_static = agree(own.private_key, shown);
  if (!with_ephemeral || !with_static) return std::nullopt;
  Noise noise(state.chain, state.transcript);
  noise.say_ephemeral(shown);
  noise.mix(with_ephemeral->bytes);
  noise.mix(with_static->bytes);
  if (!noise.open(noise.key_with_no_psk(), message.sealed_nothing, {})) return std::nullopt;
  const auto keys = derive<2>(noise.chain(), {});
  return SessionKeys{.send = keys[0], .receive = keys[1]};
}

}  // namespace bulkhead::net::tunnel
