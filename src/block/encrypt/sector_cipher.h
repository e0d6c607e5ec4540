// AES over sectors, each by its number: what dm-crypt calls aes-xts-plain64 and the like. By libcrypto, which uses the
// processor's AES instructions. From any number of threads at once.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "block/encrypt/secret.h"
#include "block/request.h"

namespace bulkhead::block {

// Numbers of sectors count 512 bytes, whatever a sector's size.
inline constexpr uint64_t kCipherSector = 512;

struct CipherSpec {
  enum class Mode : uint8_t { kXts, kCbc };
  enum class Iv : uint8_t { kPlain, kPlain64, kEssivSha256 };
  Mode mode = Mode::kXts;
  Iv iv = Iv::kPlain64;
  uint32_t key_bytes = 64;  // XTS: 32 or 64, of both its keys; CBC: 16 or 32

  // "aes-xts-plain64", "aes-cbc-essiv:sha256" and their combinations with plain.
  static Result<CipherSpec> parse(std::string_view text, uint64_t key_bytes);
  [[nodiscard]] std::string name() const;
};

class SectorCipher {
 public:
  // key.size() is spec.key_bytes; sector_size a power of two from 512 to 4096.
  static Result<std::unique_ptr<SectorCipher>> make(const CipherSpec& spec, ByteSpan key, uint32_t sector_size);
  ~SectorCipher();

  [[nodiscard]] uint32_t sector_size() const { return sector_size_; }
  // Whole sectors, the first of which has this number; from and to may be the same bytes, else they do not overlap.
  [[nodiscard]] Status encrypt(uint64_t number, ByteSpan from, MutableByteSpan to) const {
    return apply(encrypting_, number, from, to);
  }
  [[nodiscard]] Status decrypt(uint64_t number, ByteSpan from, MutableByteSpan to) const {
    return apply(decrypting_, number, from, to);
  }

 private:
  struct Context;
  class Contexts;
  SectorCipher(const CipherSpec& spec, uint32_t sector_size);
  [[nodiscard]] Status apply(const std::unique_ptr<Contexts>& contexts, uint64_t number, ByteSpan from,
                             MutableByteSpan to) const;

  const CipherSpec spec_;
  const uint32_t sector_size_;
  std::unique_ptr<Contexts> encrypting_, decrypting_;
};

}  // namespace bulkhead::block
