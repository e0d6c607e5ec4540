#include "net/tunnel/primitives.h"

#include <algorithm>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "support/check.h"

namespace bulkhead::net::tunnel {
namespace {

constexpr size_t kNonceSize = 12;

template <auto function>
struct Freeing {
  template <typename T>
  void operator()(T* object) const {
    function(object);
  }
};
using PrivateKey = std::unique_ptr<EVP_PKEY, Freeing<EVP_PKEY_free>>;

PrivateKey load_private(const Secret& key) {
  PrivateKey made(EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, nullptr, key.bytes.data(), key.bytes.size()));
  CHECK(made != nullptr, "libcrypto has X25519");
  return made;
}

Secret hmac(ByteSpan key, Parts parts) {
  // At most a secret and a byte.
  std::array<uint8_t, 256> text;
  size_t size = 0;
  for (const ByteSpan part : parts) {
    CHECK(part.size() <= text.size() - size, "a short text");
    std::ranges::copy(part, text.begin() + static_cast<ptrdiff_t>(size));
    size += part.size();
  }
  Secret out;
  CHECK(HMAC(EVP_blake2s256(), key.data(), static_cast<int>(key.size()), text.data(), size, out.bytes.data(),
             nullptr) != nullptr,
        "libcrypto has HMAC with BLAKE2s");
  OPENSSL_cleanse(text.data(), size);
  return out;
}

}  // namespace

Secret::~Secret() {
  OPENSSL_cleanse(bytes.data(), bytes.size());
}

Bytes32 hash(Parts parts) {
  const std::unique_ptr<EVP_MD_CTX, Freeing<EVP_MD_CTX_free>> context(EVP_MD_CTX_new());
  CHECK(context && EVP_DigestInit_ex(context.get(), EVP_blake2s256(), nullptr) == 1, "libcrypto has BLAKE2s");
  for (const ByteSpan part : parts) CHECK(EVP_DigestUpdate(context.get(), part.data(), part.size()) == 1, "a hash");
  Bytes32 out;
  CHECK(EVP_DigestFinal_ex(context.get(), out.data(), nullptr) == 1, "a hash");
  return out;
}

Mac keyed_hash(ByteSpan key, Parts parts) {
  const std::unique_ptr<EVP_MAC, Freeing<EVP_MAC_free>> kind(EVP_MAC_fetch(nullptr, "BLAKE2SMAC", nullptr));
  CHECK(kind != nullptr, "libcrypto has keyed BLAKE2s");
  const std::unique_ptr<EVP_MAC_CTX, Freeing<EVP_MAC_CTX_free>> context(EVP_MAC_CTX_new(kind.get()));
  size_t size = kMacSize;
  const OSSL_PARAM wanted[] = {OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &size), OSSL_PARAM_construct_end()};
  CHECK(context && EVP_MAC_init(context.get(), key.data(), key.size(), wanted) == 1, "a keyed hash");
  for (const ByteSpan part : parts) CHECK(EVP_MAC_update(context.get(), part.data(), part.size()) == 1, "a keyed hash");
  Mac out;
  CHECK(EVP_MAC_final(context.get(), out.data(), &size, out.size()) == 1, "a keyed hash");
  return out;
}

bool is_equal(ByteSpan one, ByteSpan other) {
  return one.size() == other.size() && CRYPTO_memcmp(one.data(), other.data(), one.size()) == 0;
}

template <size_t count>
std::array<Secret, count> derive(const Secret& chain, ByteSpan input) {
  std::array<Secret, count> out;
  const Secret key = hmac(chain.bytes, {input});
  for (size_t i = 0; i < count; ++i) {
    const auto number = static_cast<uint8_t>(i + 1);
    out[i] = i == 0 ? hmac(key.bytes, {as_bytes(number)}) : hmac(key.bytes, {out[i - 1].bytes, as_bytes(number)});
  }
  return out;
}
template std::array<Secret, 1> derive<1>(const Secret&, ByteSpan);
template std::array<Secret, 2> derive<2>(const Secret&, ByteSpan);
template std::array<Secret, 3> derive<3>(const Secret&, ByteSpan);

// ---- X25519 ----

Secret make_private_key(RandomSource& random) {
  Secret key;
  random.fill(key.bytes);
  // As RFC 7748, section 5, has them; libcrypto does the same whenever it uses one.
  key.bytes[0] &= 248;
  key.bytes[31] = static_cast<uint8_t>((key.bytes[31] & 127) | 64);
  return key;
}

Bytes32 public_key_of(const Secret& private_key) {
  const PrivateKey key = load_private(private_key);
  Bytes32 out;
  size_t size = out.size();
  CHECK(EVP_PKEY_get_raw_public_key(key.get(), out.data(), &size) == 1 && size == out.size(), "a public key");
  return out;
}

std::optional<Secret> agree(const Secret& private_key, const Bytes32& public_key) {
  const PrivateKey own = load_private(private_key);
  const PrivateKey peer(EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, nullptr, public_key.data(), public_key.size()));
  const std::unique_ptr<EVP_PKEY_CTX, Freeing<EVP_PKEY_CTX_free>> context(EVP_PKEY_CTX_new(own.get(), nullptr));
  CHECK(peer && context && EVP_PKEY_derive_init(context.get()) == 1, "an agreement on a key");
  if (EVP_PKEY_derive_set_peer(context.get(), peer.get()) != 1) return std::nullopt;
  Secret out;
  size_t size = out.bytes.size();
  if (EVP_PKEY_derive(context.get(), out.bytes.data(), &size) != 1 || size != out.bytes.size()) return std::nullopt;
  return out;
}

// ---- ChaCha20-Poly1305 ----

void Aead::Free::operator()(evp_cipher_ctx_st* context) const {
  EVP_CIPHER_CTX_free(context);
}

Aead::Aead(const Secret& key) : seal_(EVP_CIPHER_CTX_new()), open_(EVP_CIPHER_CTX_new()) {
  CHECK(seal_ && EVP_EncryptInit_ex(seal_.get(), EVP_chacha20_poly1305(), nullptr, key.bytes.data(), nullptr) == 1 &&
            open_ && EVP_DecryptInit_ex(open_.get(), EVP_chacha20_poly1305(), nullptr, key.bytes.data(), nullptr) == 1,
        "libcrypto has ChaCha20-Poly1305");
}
Aead::Aead(Aead&&) noexcept = default;
Aead& Aead::operator=(Aead&&) noexcept = default;
Aead::~Aead() = default;

void Aead::begin(uint64_t counter, ByteSpan associated, bool sealing) {
  std::array<uint8_t, kNonceSize> nonce{};
  store(nonce.data() + 4, counter);
  EVP_CIPHER_CTX* const context = sealing ? seal_.get() : open_.get();
  CHECK(EVP_CipherInit_ex(context, nullptr, nullptr, nullptr, nonce.data(), sealing ? 1 : 0) == 1, "a nonce");
  int size = 0;
  CHECK(associated.empty() ||
            EVP_CipherUpdate(context, nullptr, &size, associated.data(), static_cast<int>(associated.size())) == 1,
        "associated data");
}

void Aead::seal(uint64_t counter, ByteSpan plain, ByteSpan associated, MutableByteSpan out) {
  begin(counter, associated, true);
  int size = 0;
  // An update of nothing would be taken for the end.
  const bool done = plain.empty() || EVP_EncryptUpdate(seal_.get(), out.data(), &size, plain.data(),
                                                       static_cast<int>(plain.size())) == 1;
  uint8_t none = 0;
  CHECK(done && EVP_EncryptFinal_ex(seal_.get(), &none, &size) == 1 &&
            EVP_CIPHER_CTX_ctrl(seal_.get(), EVP_CTRL_AEAD_GET_TAG, kTagSize, out.data() + plain.size()) == 1,
        "sealing does not fail");
}

bool Aead::open(uint64_t counter, ByteSpan sealed, ByteSpan associated, MutableByteSpan out) {
  if (sealed.size() < kTagSize) return false;
  const size_t plain_size = sealed.size() - kTagSize;
  begin(counter, associated, false);
  std::array<uint8_t, kTagSize> tag;
  std::ranges::copy(sealed.subspan(plain_size), tag.begin());
  int size = 0;
  uint8_t none = 0;
  return EVP_CIPHER_CTX_ctrl(open_.get(), EVP_CTRL_AEAD_SET_TAG, kTagSize, tag.data()) == 1 &&
         (plain_size == 0 ||
          EVP_DecryptUpdate(open_.get(), out.data(), &size, sealed.data(), static_cast<int>(plain_size)) == 1) &&
         EVP_DecryptFinal_ex(open_.get(), &none, &size) == 1;
}

// ---- The long nonce ----

Secret hchacha20(const Secret& key, ByteSpan nonce_of_16) {
  CHECK(nonce_of_16.size() == 16, "a nonce of 16 bytes");
  // ChaCha20's block function ends with the addition of its input. Taken back, what is left of the first and the last
  // row is what HChaCha20 gives (section 2.2 of the draft).
  constexpr std::array<uint32_t, 4> kConstants{0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
  const std::unique_ptr<EVP_CIPHER_CTX, Freeing<EVP_CIPHER_CTX_free>> context(EVP_CIPHER_CTX_new());
  CHECK(
      context && EVP_EncryptInit_ex(context.get(), EVP_chacha20(), nullptr, key.bytes.data(), nonce_of_16.data()) == 1,
      "libcrypto has ChaCha20");
  const std::array<uint8_t, 64> zeroes{};
  std::array<uint8_t, 64> block;
  int size = 0;
  CHECK(EVP_EncryptUpdate(context.get(), block.data(), &size, zeroes.data(), static_cast<int>(zeroes.size())) == 1,
        "a block");
  Secret out;
  for (size_t i = 0; i < 4; ++i) {
    store(out.bytes.data() + 4 * i, load<uint32_t>(block.data() + 4 * i) - kConstants[i]);
    store(out.bytes.data() + 16 + 4 * i,
          load<uint32_t>(block.data() + 48 + 4 * i) - load<uint32_t>(nonce_of_16.data() + 4 * i));
  }
  OPENSSL_cleanse(block.data(), block.size());
  return out;
}

void seal_with_long_nonce(const Secret& key, const LongNonce& nonce, ByteSpan plain, ByteSpan associated,
                          MutableByteSpan out) {
  Aead(hchacha20(key, ByteSpan(nonce).first(16))).seal(load<uint64_t>(nonce.data() + 16), plain, associated, out);
}

bool open_with_long_nonce(const Secret& key, const LongNonce& nonce, ByteSpan sealed, ByteSpan associated,
                          MutableByteSpan out) {
  return Aead(hchacha20(key, ByteSpan(nonce).first(16)))
      .open(load<uint64_t>(nonce.data() + 16), sealed, associated, out);
}

// ---- Text ----

std::string key_text(const Bytes32& key) {
  std::array<unsigned char, 48> text;
  const int size = EVP_EncodeBlock(text.data(), key.data(), static_cast<int>(key.size()));
  return {text.begin(), text.begin() + size};
}

Result<Bytes32> parse_key(std::string_view text) {
  // 43 characters hold 258 bits, the last two of which are zero.
  std::array<unsigned char, 33> bytes;
  constexpr size_t kTextSize = 44;
  Bytes32 key;
  const bool fits = text.size() == kTextSize && text.back() == '=' && text[kTextSize - 2] != '=';
  if (fits && EVP_DecodeBlock(bytes.data(), reinterpret_cast<const unsigned char*>(text.data()), kTextSize) ==
                  static_cast<int>(bytes.size())) {
    std::copy_n(bytes.begin(), key.size(), key.begin());
    if (key_text(key) == text) return key;
  }
  return fail("no key; allowed: 44 characters of base64, of 32 bytes");
}

}  // namespace bulkhead::net::tunnel
