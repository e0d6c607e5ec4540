// What stands before an encrypted disk: LUKS1 or LUKS2, as one plain value. Nothing that it holds is used before it has
// been checked against the limits here. Sources: "LUKS On-Disk Format Specification" 1.2.3 and "LUKS2 On-Disk Format
// Specification" 1.1.1.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "block/encrypt/sector_cipher.h"
#include "block/store/store.h"

namespace bulkhead::block::luks {

inline constexpr std::string_view kMagic{"LUKS\xBA\xBE", 6};
inline constexpr uint32_t kStripes = 4000;
inline constexpr uint64_t kLargestJson = uint64_t{256} << 10, kLargestHeader = uint64_t{4} << 20;
inline constexpr size_t kMostKeyslots = 32, kMostSaltBytes = 256;

struct Kdf {
  enum class Kind : uint8_t { kPbkdf2, kArgon2i, kArgon2id };
  Kind kind = Kind::kPbkdf2;
  std::string hash = "sha256";  // of PBKDF2
  uint64_t iterations = 0;      // of PBKDF2; passes over the memory of argon2
  uint64_t memory_kib = 0;      // of argon2
  uint32_t lanes = 1;           // of argon2
  std::vector<uint8_t> salt;
};

// The volume's key, split into stripes and encrypted with what a passphrase gives.
struct Keyslot {
  uint32_t number = 0;
  Kdf kdf;
  uint64_t offset = 0;  // of its area, from the header's beginning
  CipherSpec cipher;    // of its area, in sectors of 512 bytes
  std::string split_hash = "sha256";
  uint32_t key_bytes = 0;  // of the volume's key
  [[nodiscard]] uint64_t bytes() const { return align_up(uint64_t{key_bytes} * kStripes, kCipherSector); }
};

// By which a volume's key is known to be the right one.
struct Digest {
  std::string hash = "sha256";
  uint64_t iterations = 0;
  std::vector<uint8_t> salt, digest;
};

struct Header {
  uint32_t version = 2;
  std::string uuid;
  CipherSpec cipher;
  uint32_t sector_size = 512;
  uint64_t payload_offset = 0;           // where the disk begins
  std::optional<uint64_t> payload_size;  // none: to the end of the file
  uint64_t first_number = 0;             // of the disk's first sector, for the cipher
  std::vector<Keyslot> keyslots;         // in the order in which they are tried
  Digest digest;
};

// Of either version. `length` is how much of the store the header may take, from its beginning. The error names the
// store, the place and the value.
Result<Header> read_header(Store& store, uint64_t start, uint64_t length);
// LUKS2 has its header twice: what is wrong with either, each a line. LUKS1 has nothing to compare.
Result<std::vector<std::string>> check_copies(Store& store);
// Writes the header that is right over the other one.
Result<> repair_copies(Store& store);

// version1.cc: bytes is what the store begins with, kBytes1 of them.
inline constexpr size_t kBytes1 = 592, kSlots1 = 8;
Result<Header> parse1(ByteSpan bytes, const std::string& name, uint64_t length);
std::vector<uint8_t> make1(const Header& header);
// Where what a new LUKS1 header states lies: the area of its first keyslot, and the disk behind all eight.
inline constexpr uint64_t kFirstArea1 = 4096, kPayload1 = uint64_t{2} << 20;

// version2.cc
inline constexpr size_t kBinaryBytes = 4096;
// The text of the JSON area, without what fills it up.
Result<Header> parse2(std::string_view json, const std::string& name, uint64_t length);
// Both copies, which lie at the store's beginning.
inline constexpr uint64_t kHeaderSize2 = 16384, kPayload2 = uint64_t{16} << 20;
std::vector<uint8_t> make2(const Header& header, ByteSpan salts);

}  // namespace bulkhead::block::luks
