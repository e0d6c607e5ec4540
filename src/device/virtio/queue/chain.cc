#include "device/virtio/queue/chain.h"

#include <algorithm>

#include "support/check.h"

namespace bulkhead::device::virtio {
namespace {

// Calls visit(part of a segment) for the bytes [offset, offset + size) of consecutive segments.
template <typename Visit>
void for_range(std::span<const Segment> segments, uint64_t offset, uint64_t size, Visit&& visit) {
  for (const Segment& segment : segments) {
    if (size == 0) return;
    const uint64_t length = segment.bytes.size();
    if (offset >= length) {
      offset -= length;
      continue;
    }
    const uint64_t count = std::min(size, length - offset);
    visit(Segment{segment.address + offset, segment.bytes.subspan(offset, count)});
    offset = 0;
    size -= count;
  }
  CHECK(size == 0, "a range beyond the end of a chain");
}

}  // namespace

bool Chain::read(uint32_t offset, MutableByteSpan out) const {
  if (!range_fits(offset, out.size(), readable_size_)) return false;
  for_range(std::span(segments_).first(readable_count_), offset, out.size(), [&](const Segment& part) {
    std::memcpy(out.data(), part.bytes.data(), part.bytes.size());
    out = out.subspan(part.bytes.size());
  });
  return true;
}

bool Chain::write(uint32_t offset, ByteSpan in) const {
  if (!range_fits(offset, in.size(), writable_size_)) return false;
  for_range(std::span(segments_).subspan(readable_count_), offset, in.size(), [&](const Segment& part) {
    const bool written = memory_->write(part.address, in.first(part.bytes.size()));
    CHECK(written, "a chain's pieces are RAM");
    in = in.subspan(part.bytes.size());
  });
  return true;
}

std::vector<MutableByteSpan> Chain::readable_bytes(uint32_t offset, uint32_t size) const {
  std::vector<MutableByteSpan> parts;
  for_range(std::span(segments_).first(readable_count_), offset, size,
            [&](const Segment& part) { parts.push_back(part.bytes); });
  return parts;
}

std::vector<MutableByteSpan> Chain::writable_bytes(uint32_t offset, uint32_t size) const {
  std::vector<MutableByteSpan> parts;
  for_range(std::span(segments_).subspan(readable_count_), offset, size,
            [&](const Segment& part) { parts.push_back(part.bytes); });
  return parts;
}

void Chain::mark_written(uint32_t offset, uint32_t size) const {
  for_range(std::span(segments_).subspan(readable_count_), offset, size,
            [&](const Segment& part) { memory_->mark_written(part.address, part.bytes.size()); });
}

ChainBuilder::ChainBuilder(memory::GuestMemory& memory, Chain& chain) : memory_(memory), chain_(chain) {
  chain.memory_ = &memory;
  chain.segments_.clear();
  chain.readable_count_ = 0;
  chain.readable_size_ = 0;
  chain.writable_size_ = 0;
  chain.slot_count_ = 1;
}

bool ChainBuilder::add(uint64_t address, uint32_t length, Direction direction) {
  if (++descriptor_count_ > Chain::kMaximumSegments) return false;
  const bool is_readable = direction == Direction::kReadable;
  if (is_readable && chain_.segments_.size() != chain_.readable_count_) return false;
  // Harmless, and nothing to resolve.
  if (length == 0) return true;
  uint8_t* bytes = memory_.data({address}, length);
  if (bytes == nullptr) return false;
  uint32_t& size = is_readable ? chain_.readable_size_ : chain_.writable_size_;
  if (length > UINT32_MAX - size) return false;
  size += length;
  chain_.segments_.push_back({{address}, {bytes, length}});
  if (is_readable) ++chain_.readable_count_;
  return true;
}

}  // namespace bulkhead::device::virtio
