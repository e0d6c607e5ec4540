// The cryptography that a tunnel is made of, by OpenSSL's libcrypto: X25519 (RFC 7748), ChaCha20-Poly1305 (RFC 8439)
// and its form with a nonce of 24 bytes, BLAKE2s (RFC 7693) as hash and as keyed hash, HMAC and the key derivation over
// it (RFC 5869). Nothing here is computed by hand but what stands between two calls.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "support/bytes.h"
#include "support/random.h"
#include "support/result.h"

struct evp_cipher_ctx_st;

namespace bulkhead::net::tunnel {

inline constexpr size_t kKeySize = 32, kTagSize = 16, kMacSize = 16, kLongNonceSize = 24;

using Bytes32 = std::array<uint8_t, 32>;
using Mac = std::array<uint8_t, kMacSize>;

// 32 bytes that are wiped when they go.
struct Secret {
  Bytes32 bytes{};
  Secret() = default;
  explicit Secret(const Bytes32& from) : bytes(from) {}
  Secret(const Secret&) = default;
  Secret& operator=(const Secret&) = default;
  ~Secret();
};

using Parts = std::initializer_list<ByteSpan>;

[[nodiscard]] Bytes32 hash(Parts parts);
// Keyed BLAKE2s of 16 bytes; the key has 1 to 32.
[[nodiscard]] Mac keyed_hash(ByteSpan key, Parts parts);
[[nodiscard]] bool is_equal(ByteSpan one, ByteSpan other);  // in a time that does not tell where they differ

// HKDF with HMAC-BLAKE2s: the first count of its outputs.
template <size_t count>
[[nodiscard]] std::array<Secret, count> derive(const Secret& chain, ByteSpan input);

[[nodiscard]] Secret make_private_key(RandomSource& random);
[[nodiscard]] Bytes32 public_key_of(const Secret& private_key);
// Nothing when the peer's key gives no secret (RFC 7748, 6.1).
[[nodiscard]] std::optional<Secret> agree(const Secret& private_key, const Bytes32& public_key);

// ChaCha20-Poly1305 under one key. Not thread-safe.
class Aead {
 public:
  explicit Aead(const Secret& key);
  Aead(Aead&&) noexcept;
  Aead& operator=(Aead&&) noexcept;
  ~Aead();

  // out has kTagSize bytes more than plain, and may begin where plain does.
  void seal(uint64_t counter, ByteSpan plain, ByteSpan associated, MutableByteSpan out);
  // out has kTagSize bytes less than sealed, and may begin where sealed does; nonsense when this gives false.
  [[nodiscard]] bool open(uint64_t counter, ByteSpan sealed, ByteSpan associated, MutableByteSpan out);

 private:
  void begin(uint64_t counter, ByteSpan associated, bool sealing);
  struct Free {
    void operator()(evp_cipher_ctx_st* context) const;
  };
  std::unique_ptr<evp_cipher_ctx_st, Free> seal_, open_;
};

// With a nonce that may be drawn at random (draft-irtf-cfrg-xchacha-03).
using LongNonce = std::array<uint8_t, kLongNonceSize>;
[[nodiscard]] Secret hchacha20(const Secret& key, ByteSpan nonce_of_16);
void seal_with_long_nonce(const Secret& key, const LongNonce& nonce, ByteSpan plain, ByteSpan associated,
                          MutableByteSpan out);
[[nodiscard]] bool open_with_long_nonce(const Secret& key, const LongNonce& nonce, ByteSpan sealed, ByteSpan associated,
                                        MutableByteSpan out);

// Keys as people write them: 44 characters of base64, as WireGuard's tools do.
[[nodiscard]] std::string key_text(const Bytes32& key);
Result<Bytes32> parse_key(std::string_view text);

}  // namespace bulkhead::net::tunnel
