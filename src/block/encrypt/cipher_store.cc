#include "block/encrypt/cipher_store.h"

#include <algorithm>
#include <array>
#include <cstdlib>

namespace bulkhead::block {
namespace {

// What a thread encrypts or decrypts at once: it stays in a processor's cache on its way.
constexpr size_t kPiece = size_t{128} << 10, kLargestSector = 4096;

// Aligned, so that it may go past the host's page cache.
MutableByteSpan piece_of_thread() {
  thread_local const std::unique_ptr<uint8_t, void (*)(void*)> memory(
      static_cast<uint8_t*>(std::aligned_alloc(4096, kPiece)), &std::free);
  CHECK(memory != nullptr, "no memory for a piece to encrypt");
  return {memory.get(), kPiece};
}

}  // namespace

Result<uint64_t> CipherStore::size() {
  const uint64_t end = TRY(below_.size());
  return end < start_ ? 0 : end - start_;
}

Status CipherStore::read_sectors(uint64_t offset, MutableByteSpan bytes) {
  const MutableByteSpan piece = piece_of_thread();
  while (!bytes.empty()) {
    const MutableByteSpan part = piece.first(std::min(piece.size(), bytes.size()));
    if (const Status status = below_.read(start_ + offset, part); status != Status::kOk) return status;
    // To its place at once: whoever asked never sees what lies on the disk.
    if (const Status status = cipher_->decrypt(number_of(offset), part, bytes.first(part.size()));
        status != Status::kOk) {
      return status;
    }
    offset += part.size();
    bytes = bytes.subspan(part.size());
  }
  return Status::kOk;
}

Status CipherStore::write_sectors(uint64_t offset, ByteSpan bytes) {
  const MutableByteSpan piece = piece_of_thread();
  while (!bytes.empty()) {
    const MutableByteSpan part = piece.first(std::min(piece.size(), bytes.size()));
    if (const Status status = cipher_->encrypt(number_of(offset), bytes.first(part.size()), part);
        status != Status::kOk) {
      return status;
    }
    if (const Status status = below_.write(start_ + offset, part); status != Status::kOk) return status;
    offset += part.size();
    bytes = bytes.subspan(part.size());
  }
  return Status::kOk;
}

Status CipherStore::read_part(uint64_t offset, MutableByteSpan bytes) {
  std::array<uint8_t, kLargestSector> memory;
  const MutableByteSpan sector = MutableByteSpan(memory).first(cipher_->sector_size());
  const uint64_t start = align_down(offset, sector.size());
  if (const Status status = read_sectors(start, sector); status != Status::kOk) return status;
  std::memcpy(bytes.data(), sector.data() + (offset - start), bytes.size());
  return Status::kOk;
}

Status CipherStore::write_part(uint64_t offset, ByteSpan bytes) {
  std::array<uint8_t, kLargestSector> memory;
  const MutableByteSpan sector = MutableByteSpan(memory).first(cipher_->sector_size());
  const uint64_t start = align_down(offset, sector.size());
  const LockGuard lock(part_mutex_);
  if (const Status status = read_sectors(start, sector); status != Status::kOk) return status;
  std::memcpy(sector.data() + (offset - start), bytes.data(), bytes.size());
  return write_sectors(start, sector);
}

namespace {

// The range as a part of a sector, whole sectors, and a part of one again; empty ones are left out.
template <typename Bytes, typename Part, typename Whole>
Status split(uint64_t offset, Bytes bytes, uint64_t sector, Part part, Whole whole) {
  while (!bytes.empty()) {
    const uint64_t within = offset & (sector - 1);
    const bool is_part = within != 0 || bytes.size() < sector;
    const size_t size = is_part ? std::min<size_t>(sector - within, bytes.size()) : align_down(bytes.size(), sector);
    const Status status = is_part ? part(offset, bytes.first(size)) : whole(offset, bytes.first(size));
    if (status != Status::kOk) return status;
    offset += size;
    bytes = bytes.subspan(size);
  }
  return Status::kOk;
}

}  // namespace

Status CipherStore::read(uint64_t offset, MutableByteSpan bytes) {
  return split(
      offset, bytes, cipher_->sector_size(), [this](uint64_t at, MutableByteSpan to) { return read_part(at, to); },
      [this](uint64_t at, MutableByteSpan to) { return read_sectors(at, to); });
}

Status CipherStore::write(uint64_t offset, ByteSpan bytes) {
  return split(
      offset, bytes, cipher_->sector_size(), [this](uint64_t at, ByteSpan from) { return write_part(at, from); },
      [this](uint64_t at, ByteSpan from) { return write_sectors(at, from); });
}

}  // namespace bulkhead::block
