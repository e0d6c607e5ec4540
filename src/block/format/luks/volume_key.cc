#include "block/format/luks/volume_key.h"

#include <algorithm>
#include <array>

#include <argon2.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "block/format/big_endian.h"
#include "support/random.h"

namespace bulkhead::block::luks {
namespace {

constexpr size_t kSaltBytes = 32, kLeastSaltOfArgon2 = 8;
constexpr uint64_t kDigestIterations = 100'000, kPbkdf2Iterations = 1'000'000;
constexpr uint64_t kArgon2Passes = 4, kArgon2Kib = uint64_t{256} << 10;
constexpr uint32_t kArgon2Lanes = 4, kMostLanes = 16;

Result<const EVP_MD*> hash_of(const std::string& name) {
  if (name == "sha256") return ::EVP_sha256();
  if (name == "sha1") return ::EVP_sha1();
  if (name == "sha512") return ::EVP_sha512();
  if (name == "sha384") return ::EVP_sha384();
  if (name == "sha224") return ::EVP_sha224();
  if (name == "ripemd160") return ::EVP_ripemd160();
  return fail("hash '{}': known are sha256, sha512, sha1, sha384, sha224 and ripemd160", name);
}

// A hash over the whole piece, its blocks numbered, so that a change of any bit reaches them all.
Result<> diffuse(MutableByteSpan piece, const EVP_MD* hash) {
  const auto size = static_cast<size_t>(::EVP_MD_get_size(hash));
  std::array<uint8_t, EVP_MAX_MD_SIZE> digest{};
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(::EVP_MD_CTX_new(), &::EVP_MD_CTX_free);
  for (size_t at = 0; at < piece.size(); at += size) {
    const MutableByteSpan block = piece.subspan(at, std::min(size, piece.size() - at));
    std::array<uint8_t, 4> number{};
    store32(number.data(), static_cast<uint32_t>(at / size));
    if (!context || ::EVP_DigestInit_ex(context.get(), hash, nullptr) != 1 ||
        ::EVP_DigestUpdate(context.get(), number.data(), number.size()) != 1 ||
        ::EVP_DigestUpdate(context.get(), block.data(), block.size()) != 1 ||
        ::EVP_DigestFinal_ex(context.get(), digest.data(), nullptr) != 1) {
      return fail("a hash is refused by libcrypto");
    }
    std::ranges::copy(ByteSpan(digest).first(block.size()), block.begin());
  }
  ::OPENSSL_cleanse(digest.data(), digest.size());
  return {};
}

void mix(MutableByteSpan into, ByteSpan bytes) {
  for (size_t i = 0; i < into.size(); ++i) into[i] ^= bytes[i];
}

// What a derivation takes out of the limits, or why it may not.
Result<> spend(const Kdf& kdf, size_t out, Limits& limits) {
  if (kdf.kind == Kdf::Kind::kPbkdf2) {
    const auto size = static_cast<uint64_t>(::EVP_MD_get_size(TRY(hash_of(kdf.hash))));
    const auto cost = checked_multiply(kdf.iterations, (out + size - 1) / size);
    if (!cost || *cost > limits.pbkdf2_iterations) {
      return fail("pbkdf2 with {} iterations takes more time than is allowed", kdf.iterations);
    }
    limits.pbkdf2_iterations -= *cost;
    return {};
  }
  if (kdf.memory_kib > limits.memory_kib) {
    return fail("argon2 with {} KiB of memory; allowed are {}", kdf.memory_kib, limits.memory_kib);
  }
  if (kdf.lanes > kMostLanes) return fail("argon2 with {} lanes; allowed are {}", kdf.lanes, kMostLanes);
  const auto cost = checked_multiply(kdf.memory_kib, kdf.iterations);
  if (!cost || *cost > limits.argon2_kib) {
    return fail("argon2 with {} passes over {} KiB takes more time than is allowed", kdf.iterations, kdf.memory_kib);
  }
  limits.argon2_kib -= *cost;
  return {};
}

Kdf kdf_of(const Digest& digest) {
  return {.hash = digest.hash, .iterations = digest.iterations, .salt = digest.salt};
}

// Whether the passphrase opens the keyslot is not known before the key's digest is.
Result<Secret> open_keyslot(Store& store, uint64_t start, const Keyslot& slot, ByteSpan passphrase, Limits& limits) {
  TRY(spend(slot.kdf, slot.cipher.key_bytes, limits));
  Secret derived(slot.cipher.key_bytes), stripes(slot.bytes());
  TRY(derive(slot.kdf, passphrase, derived.bytes()));
  const auto cipher = TRY(SectorCipher::make(slot.cipher, derived.bytes(), kCipherSector));
  TRY(store.read_all(start + slot.offset, stripes.bytes()));
  if (cipher->decrypt(0, stripes.bytes(), stripes.bytes()) != Status::kOk) return fail("decryption fails");
  return merge(ByteSpan(stripes.bytes()).first(size_t{slot.key_bytes} * kStripes), slot.key_bytes, slot.split_hash);
}

Result<bool> is_volume_key(const Digest& digest, ByteSpan key, Limits& limits) {
  if (digest.digest.empty() || digest.digest.size() > EVP_MAX_MD_SIZE) {
    return fail("a digest of {} bytes", digest.digest.size());
  }
  TRY(spend(kdf_of(digest), digest.digest.size(), limits));
  std::vector<uint8_t> found(digest.digest.size());
  TRY(derive(kdf_of(digest), key, found));
  return ::CRYPTO_memcmp(found.data(), digest.digest.data(), found.size()) == 0;
}

// The same name for the same key: its digest, and the salt of that.
std::string name_of(const Header& header) {
  std::string name(header.digest.salt.begin(), header.digest.salt.end());
  name.append(header.digest.digest.begin(), header.digest.digest.end());
  return name;
}

std::vector<uint8_t> random_bytes(size_t size) {
  std::vector<uint8_t> bytes(size);
  HostRandom().fill(bytes);
  return bytes;
}

std::string new_uuid() {
  std::vector<uint8_t> b = random_bytes(16);
  b[6] = (b[6] & 0x0F) | 0x40;
  b[8] = (b[8] & 0x3F) | 0x80;
  std::string text;
  for (size_t i = 0; i < b.size(); ++i) {
    text += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", b[i]);
  }
  return text;
}

Result<Kdf> new_kdf(uint32_t version, Settings& settings) {
  const bool argon2 = version == 2 && TRY(settings.word("kdf", "argon2id", {"argon2id", "pbkdf2"})) == "argon2id";
  Kdf kdf{.salt = random_bytes(kSaltBytes)};
  const Limits limits;
  if (argon2) {
    kdf.kind = Kdf::Kind::kArgon2id;
    kdf.lanes = kArgon2Lanes;
    kdf.memory_kib = TRY(settings.number("memory", kArgon2Kib, 64, limits.memory_kib));
    kdf.iterations = TRY(settings.number("iterations", kArgon2Passes, 1, limits.argon2_kib / kdf.memory_kib));
  } else {
    kdf.iterations = TRY(settings.number("iterations", kPbkdf2Iterations, 1000, 20'000'000));
  }
  return kdf;
}

// All that the settings say, before anything takes time.
Result<Header> new_header(uint32_t version, Settings& settings) {
  Header header{.version = version, .uuid = new_uuid()};
  const std::string name = TRY(settings.word("cipher", "aes-xts-plain64", {"aes-xts-plain64", "aes-cbc-essiv:sha256"}));
  const uint64_t key_bits = TRY(settings.number("key_size", name == "aes-xts-plain64" ? 512 : 256, 128, 512));
  header.cipher = TRY(CipherSpec::parse(name, key_bits % 8 == 0 ? key_bits / 8 : 0));
  if (version == 2) {
    header.sector_size = static_cast<uint32_t>(TRY(settings.power_of_two("sector_size", 512, 512, 4096)));
  }
  header.payload_offset = version == 1 ? kPayload1 : kPayload2;
  header.digest = {.iterations = kDigestIterations, .salt = random_bytes(kSaltBytes)};
  header.digest.digest.resize(version == 1 ? 20 : 32);
  header.keyslots.push_back({.kdf = TRY(new_kdf(version, settings)),
                             .offset = version == 1 ? kFirstArea1 : 2 * kHeaderSize2,
                             .cipher = header.cipher,
                             .key_bytes = header.cipher.key_bytes});
  TRY(settings.finish());
  return header;
}

}  // namespace

Result<> derive(const Kdf& kdf, ByteSpan passphrase, MutableByteSpan out) {
  if (kdf.kind == Kdf::Kind::kPbkdf2) {
    const EVP_MD* const hash = TRY(hash_of(kdf.hash));
    if (::PKCS5_PBKDF2_HMAC(reinterpret_cast<const char*>(passphrase.data()), static_cast<int>(passphrase.size()),
                            kdf.salt.data(), static_cast<int>(kdf.salt.size()), static_cast<int>(kdf.iterations), hash,
                            static_cast<int>(out.size()), out.data()) != 1) {
      return fail("pbkdf2 is refused by libcrypto");
    }
    return {};
  }
  if (kdf.salt.size() < kLeastSaltOfArgon2) return fail("argon2 with a salt of {} bytes", kdf.salt.size());
  const auto type = kdf.kind == Kdf::Kind::kArgon2i ? Argon2_i : Argon2_id;
  const int result = ::argon2_hash(static_cast<uint32_t>(kdf.iterations), static_cast<uint32_t>(kdf.memory_kib),
                                   kdf.lanes, passphrase.data(), passphrase.size(), kdf.salt.data(), kdf.salt.size(),
                                   out.data(), out.size(), nullptr, 0, type, ARGON2_VERSION_13);
  if (result != ARGON2_OK) return fail("argon2 with {} KiB: {}", kdf.memory_kib, ::argon2_error_message(result));
  return {};
}

Result<Secret> split(ByteSpan key, uint32_t stripes, const std::string& hash) {
  const EVP_MD* const digest = TRY(hash_of(hash));
  Secret all(key.size() * stripes), sum(key.size());
  for (size_t i = 0; i + 1 < stripes; ++i) {
    const MutableByteSpan stripe = all.bytes().subspan(i * key.size(), key.size());
    HostRandom().fill(stripe);
    mix(sum.bytes(), stripe);
    TRY(diffuse(sum.bytes(), digest));
  }
  mix(sum.bytes(), key);
  std::ranges::copy(sum.bytes(), all.bytes().last(key.size()).begin());
  return all;
}

Result<Secret> merge(ByteSpan stripes, size_t key_bytes, const std::string& hash) {
  const EVP_MD* const digest = TRY(hash_of(hash));
  Secret sum(key_bytes);
  for (size_t at = 0; at + key_bytes < stripes.size(); at += key_bytes) {
    mix(sum.bytes(), stripes.subspan(at, key_bytes));
    TRY(diffuse(sum.bytes(), digest));
  }
  mix(sum.bytes(), stripes.last(key_bytes));
  return sum;
}

Result<Secret> unlock(Store& store, uint64_t start, const Header& header, DiskKey& key, const Limits& limits) {
  if (auto known = key.find(name_of(header)); known && known->size() == header.cipher.key_bytes) {
    return std::move(*known);
  }
  Limits left = limits;
  const auto context = [&](const Keyslot& slot) {
    return fmt::format("open '{}': keyslot {} at byte {}", store.name(), slot.number, start + slot.offset);
  };
  for (const Keyslot& slot : header.keyslots) {
    Secret found = TRY_IN(context(slot), open_keyslot(store, start, slot, key.passphrase(), left));
    if (!TRY_IN(context(slot), is_volume_key(header.digest, found.bytes(), left))) continue;
    key.keep(name_of(header), found.bytes());
    return found;
  }
  return fail("open '{}': the secret opens none of {} keyslots{}", store.name(), header.keyslots.size(),
              key.ends_with_newline() ? "; it ends with a newline, which counts" : "");
}

Result<NewVolume> make_volume(Store& store, uint64_t start, uint32_t version, ByteSpan passphrase, Settings& settings) {
  NewVolume made{.header = TRY(new_header(version, settings))};
  Digest& digest = made.header.digest;
  const Keyslot& slot = made.header.keyslots[0];
  made.key = Secret(slot.key_bytes);
  HostRandom().fill(made.key.bytes());
  TRY(derive(kdf_of(digest), made.key.bytes(), digest.digest));
  Secret derived(slot.cipher.key_bytes), area(slot.bytes());
  TRY(derive(slot.kdf, passphrase, derived.bytes()));
  const Secret stripes = TRY(split(made.key.bytes(), kStripes, slot.split_hash));
  std::ranges::copy(stripes.bytes(), area.bytes().begin());
  const auto cipher = TRY(SectorCipher::make(slot.cipher, derived.bytes(), kCipherSector));
  if (cipher->encrypt(0, area.bytes(), area.bytes()) != Status::kOk) return fail("encryption fails");
  TRY(store.write_all(start + slot.offset, area.bytes()));
  return made;
}

}  // namespace bulkhead::block::luks
