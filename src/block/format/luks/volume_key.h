// From a passphrase to a volume's key and back: key derivation, the anti-forensic splitter, and the areas of keyslots.
// What a header may ask for in memory and time is bounded before anything is derived.
#pragma once

#include "block/format/luks/header.h"
#include "block/format/settings.h"

namespace bulkhead::block::luks {

// Of all derivations of one opening together.
struct Limits {
  uint64_t memory_kib = uint64_t{1} << 20;         // of argon2
  uint64_t argon2_kib = uint64_t{64} << 20;        // memory times passes
  uint64_t pbkdf2_iterations = uint64_t{1} << 27;  // of a hash
};

// Tries the keyslots one after the other. `start` is where the header begins in the store.
Result<Secret> unlock(Store& store, uint64_t start, const Header& header, DiskKey& key, const Limits& limits = {});

// A new header, and its keyslot's area written to the store; the header itself is not. Settings: cipher
// (aes-xts-plain64, aes-cbc-essiv:sha256), key_size (bits; of both keys of XTS), kdf (argon2id, pbkdf2), iterations,
// memory (KiB of argon2), sector_size (512 to 4096; of LUKS2); another one that is left is an error.
struct NewVolume {
  Header header;
  Secret key;
};
Result<NewVolume> make_volume(Store& store, uint64_t start, uint32_t version, ByteSpan passphrase, Settings& settings);

// As many bytes as the output has. Fails for a hash that is not known.
Result<> derive(const Kdf& kdf, ByteSpan passphrase, MutableByteSpan out);
// The splitter: stripes of key.size() bytes each.
Result<Secret> split(ByteSpan key, uint32_t stripes, const std::string& hash);
Result<Secret> merge(ByteSpan stripes, size_t key_bytes, const std::string& hash);

}  // namespace bulkhead::block::luks
