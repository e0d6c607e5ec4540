#include "device/guest_buffer.h"

#include <algorithm>

#include "support/check.h"

namespace bulkhead::device {

bool GuestBuffer::append(GuestAddress address, uint64_t size) {
  if (size == 0) return true;
  if (!memory_->is_ram(address, size)) return false;
  if (!pieces_.empty()) {
    Piece& last = pieces_.back();
    if (last.address.value + last.size == address.value && memory_->is_ram(last.address, last.size + size)) {
      last.size += size;
      size_ += size;
      return true;
    }
  }
  if (pieces_.size() == kMaximumPieces) return false;
  pieces_.push_back({address, size});
  size_ += size;
  return true;
}

void GuestBuffer::clear() {
  pieces_.clear();
  size_ = 0;
}

template <typename Visit>
uint64_t GuestBuffer::for_each(uint64_t offset, uint64_t size, Visit&& visit) const {
  uint64_t done = 0;
  for (const Piece& piece : pieces_) {
    if (done == size) break;
    if (offset >= piece.size) {
      offset -= piece.size;
      continue;
    }
    const uint64_t count = std::min(piece.size - offset, size - done);
    visit(GuestAddress{piece.address.value + offset}, count, done);
    done += count;
    offset = 0;
  }
  return done;
}

std::vector<MutableByteSpan> GuestBuffer::bytes(uint64_t offset, uint64_t size) const {
  CHECK(range_fits(offset, size, size_), "a command's data lies within its buffer");
  std::vector<MutableByteSpan> spans;
  for_each(offset, size, [&](GuestAddress address, uint64_t count, uint64_t) {
    spans.emplace_back(memory_->data(address, count), count);
  });
  return spans;
}

void GuestBuffer::mark_written(uint64_t size) const {
  for_each(0, size, [&](GuestAddress address, uint64_t count, uint64_t) { memory_->mark_written(address, count); });
}

uint64_t GuestBuffer::read(uint64_t offset, MutableByteSpan out) const {
  return for_each(offset, out.size(), [&](GuestAddress address, uint64_t count, uint64_t done) {
    CHECK(memory_->read(address, out.subspan(done, count)), "a piece is RAM");
  });
}

uint64_t GuestBuffer::write(uint64_t offset, ByteSpan in) const {
  return for_each(offset, in.size(), [&](GuestAddress address, uint64_t count, uint64_t done) {
    CHECK(memory_->write(address, in.subspan(done, count)), "a piece is RAM");
  });
}

}  // namespace bulkhead::device
