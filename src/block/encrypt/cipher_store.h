// A store whose bytes lie encrypted in another one, from a place in it on: the filter below a disk or a format's data.
// Every sector is encrypted by its own place. From any number of threads at once; what is not a whole sector is read
// first. Nothing ever lies below that is not encrypted, so a hole reads as noise and is never made.
#pragma once

#include "block/encrypt/sector_cipher.h"
#include "block/store/store.h"

namespace bulkhead::block {

class CipherStore final : public Store {
 public:
  // `start`, a multiple of the cipher's sectors, is where the first byte lies in `below`, which outlives this;
  // `first_number` is that sector's number for the cipher.
  CipherStore(Store& below, std::unique_ptr<SectorCipher> cipher, uint64_t start, uint64_t first_number)
      : below_(below), cipher_(std::move(cipher)), start_(start), first_number_(first_number) {}

  [[nodiscard]] const std::string& name() const override { return below_.name(); }
  [[nodiscard]] Result<uint64_t> size() override;
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override;
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override;
  [[nodiscard]] Status flush() override { return below_.flush(); }
  [[nodiscard]] Status punch(uint64_t, uint64_t) override { return Status::kUnsupported; }
  [[nodiscard]] Status truncate(uint64_t size) override { return below_.truncate(start_ + size); }
  [[nodiscard]] StoreExtent extent(uint64_t offset) override { return {.size = size().value_or(offset) - offset}; }

 private:
  [[nodiscard]] Status read_sectors(uint64_t offset, MutableByteSpan bytes);
  [[nodiscard]] Status write_sectors(uint64_t offset, ByteSpan bytes);
  // A piece of one sector.
  [[nodiscard]] Status read_part(uint64_t offset, MutableByteSpan bytes);
  [[nodiscard]] Status write_part(uint64_t offset, ByteSpan bytes);
  [[nodiscard]] uint64_t number_of(uint64_t offset) const { return first_number_ + offset / kCipherSector; }

  Store& below_;
  const std::unique_ptr<SectorCipher> cipher_;
  const uint64_t start_, first_number_;
  Mutex part_mutex_;  // held while a part of a sector is written, so that its neighbour in the same is not lost
};

}  // namespace bulkhead::block
