// LUKS1: one table of fixed fields, big-endian, in sectors of 512 bytes.
#include <algorithm>

#include "block/format/big_endian.h"
#include "block/format/luks/header.h"

namespace bulkhead::block::luks {
namespace {

constexpr size_t kSlotBytes = 48, kSlotsAt = 208, kDigestBytes = 20, kSaltBytes = 32;
constexpr uint32_t kEnabled = 0x00AC71F3, kDisabled = 0x0000DEAD;

// A field of text, filled up with zero bytes.
std::string text(ByteSpan field) {
  return {field.begin(), std::ranges::find(field, uint8_t{0})};
}

void put(MutableByteSpan field, std::string_view value) {
  std::memcpy(field.data(), value.data(), std::min(value.size(), field.size() - 1));
}

std::vector<uint8_t> bytes_of(ByteSpan field) {
  return {field.begin(), field.end()};
}

}  // namespace

Result<Header> parse1(ByteSpan bytes, const std::string& name, uint64_t length) {
  if (bytes.size() < kBytes1) return fail("open '{}': the file ends in the LUKS1 header", name);
  Header header;
  header.version = 1;
  const std::string hash = text(bytes.subspan(72, 32));
  const uint32_t key_bytes = load32(&bytes[108]);
  header.cipher = TRY_IN(fmt::format("open '{}': byte 8", name),
                         CipherSpec::parse(text(bytes.subspan(8, 32)) + "-" + text(bytes.subspan(40, 32)), key_bytes));
  header.payload_offset = uint64_t{load32(&bytes[104])} * kCipherSector;
  header.digest = {.hash = hash,
                   .iterations = load32(&bytes[164]),
                   .salt = bytes_of(bytes.subspan(132, kSaltBytes)),
                   .digest = bytes_of(bytes.subspan(112, kDigestBytes))};
  header.uuid = text(bytes.subspan(168, 40));
  for (uint32_t i = 0; i < kSlots1; ++i) {
    const ByteSpan field = bytes.subspan(kSlotsAt + i * kSlotBytes, kSlotBytes);
    const uint32_t active = load32(&field[0]);
    if (active == kDisabled) continue;
    const size_t at = kSlotsAt + i * kSlotBytes;
    if (active != kEnabled) return fail("open '{}': keyslot {} at byte {} is marked {:#x}", name, i, at, active);
    Keyslot slot{.number = i,
                 .kdf = {.hash = hash, .iterations = load32(&field[4]), .salt = bytes_of(field.subspan(8, kSaltBytes))},
                 .offset = uint64_t{load32(&field[40])} * kCipherSector,
                 .cipher = header.cipher,
                 .split_hash = hash,
                 .key_bytes = key_bytes};
    if (const uint32_t stripes = load32(&field[44]); stripes != kStripes) {
      return fail("open '{}': keyslot {} at byte {} has {} stripes, not {}", name, i, at, stripes, kStripes);
    }
    if (slot.offset < kBytes1 || !range_fits(slot.offset, slot.bytes(), length)) {
      return fail("open '{}': keyslot {} at byte {}: its {} bytes at {} lie outside of the header's {}", name, i, at,
                  slot.bytes(), slot.offset, length);
    }
    header.keyslots.push_back(std::move(slot));
  }
  return header;
}

std::vector<uint8_t> make1(const Header& header) {
  std::vector<uint8_t> bytes(kBytes1);
  const MutableByteSpan to(bytes);
  std::memcpy(bytes.data(), kMagic.data(), kMagic.size());
  bytes[7] = 1;
  const std::string cipher = header.cipher.name();
  put(to.subspan(8, 32), "aes");
  put(to.subspan(40, 32), std::string_view(cipher).substr(4));
  put(to.subspan(72, 32), header.digest.hash);
  store32(&bytes[104], static_cast<uint32_t>(header.payload_offset / kCipherSector));
  store32(&bytes[108], header.cipher.key_bytes);
  std::memcpy(&bytes[112], header.digest.digest.data(), kDigestBytes);
  std::memcpy(&bytes[132], header.digest.salt.data(), kSaltBytes);
  store32(&bytes[164], static_cast<uint32_t>(header.digest.iterations));
  put(to.subspan(168, 40), header.uuid);
  const uint64_t step = align_up(uint64_t{header.cipher.key_bytes} * kStripes, 4096);
  for (size_t i = 0; i < kSlots1; ++i) {
    uint8_t* const field = &bytes[kSlotsAt + i * kSlotBytes];
    store32(field, kDisabled);
    store32(field + 40, static_cast<uint32_t>((kFirstArea1 + i * step) / kCipherSector));
    store32(field + 44, kStripes);
  }
  for (const Keyslot& slot : header.keyslots) {
    uint8_t* const field = &bytes[kSlotsAt + slot.number * kSlotBytes];
    store32(field, kEnabled);
    store32(field + 4, static_cast<uint32_t>(slot.kdf.iterations));
    std::memcpy(field + 8, slot.kdf.salt.data(), kSaltBytes);
  }
  return bytes;
}

}  // namespace bulkhead::block::luks
