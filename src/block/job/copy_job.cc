#include "block/job/copy_job.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

namespace bulkhead::block {
namespace {

constexpr uint64_t kZeroPiece = uint64_t{64} << 20;

bool is_zero(ByteSpan bytes) {
  return bytes.empty() || (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace

CopyJob::CopyJob(std::string kind, LiveDisk& disk, uint64_t speed, CopySteps steps)
    : Job(std::move(kind), speed),
      disk_(disk),
      steps_(steps),
      changes_(disk.geometry().size),
      // Aligned, so that it may go past the host's page cache.
      memory_(static_cast<uint8_t*>(std::aligned_alloc(4096, std::max(steps.piece_bytes, changes_.block_size()))),
              &std::free) {
  CHECK(memory_ != nullptr, "no memory for a piece of a copy");
  set_total(disk.geometry().size);
}

Result<std::string> CopyJob::work() {
  disk_.watch(changes_);
  auto result = copy();
  disk_.unwatch(changes_);
  return result;
}

Result<> CopyJob::copy_piece(Image& to, uint64_t offset, uint64_t size, Fresh fresh) {
  const MutableByteSpan piece(memory_.get(), size);
  TRY(check_status(read_now(*disk_.storage().opened.disk, offset, piece), "read", offset));
  for (uint64_t at = 0; at < size;) {
    uint64_t end = std::min(at + kGrain, size);
    const bool zero = is_zero(piece.subspan(at, end - at));
    while (end < size && is_zero(piece.subspan(end, std::min(kGrain, size - end))) == zero) {
      end = std::min(end + kGrain, size);
    }
    if (!zero) {
      TRY(check_status(to.write(offset + at, piece.subspan(at, end - at)), "write the target", offset + at));
    } else if (fresh == Fresh::kNo) {
      TRY(check_status(to.write_zeroes(offset + at, end - at, Unmap::kYes), "write the target", offset + at));
    }
    at = end;
  }
  return {};
}

Result<bool> CopyJob::copy_once(Image& to, Skip skip) {
  Image* const image = disk_.storage().opened.image;
  const uint64_t size = disk_.geometry().size;
  const bool chained = image != nullptr && image->backing() != nullptr;
  // Of a place that reads as noise, nothing may be left out.
  const bool fresh = skip == Skip::kZeroes && to.starts_as_zeroes();
  const bool noise = skip == Skip::kZeroes && !fresh;
  for (uint64_t offset = 0; offset < size;) {
    const Extent extent = image != nullptr ? TRY(image->map(offset)) : Extent{size, ExtentKind::kData};
    const uint64_t end = std::min(size, offset + extent.size);
    const bool zero = extent.kind == ExtentKind::kZero || (extent.kind == ExtentKind::kAbsent && !chained);
    const bool skipped = skip == Skip::kBacking ? extent.kind == ExtentKind::kAbsent : fresh && zero;
    const bool cleared = noise && zero;
    while (offset < end) {
      uint64_t part = std::min(steps_.piece_bytes - offset % steps_.piece_bytes, end - offset);
      if (skipped) {
        part = end - offset;
      } else if (cleared) {
        part = std::min(kZeroPiece, end - offset);
        TRY(check_status(to.write_zeroes(offset, part, Unmap::kYes), "write the target", offset));
      } else {
        TRY(copy_piece(to, offset, part, fresh ? Fresh::kYes : Fresh::kNo));
      }
      offset += part;
      const bool counts = !skipped && !cleared;
      if (!counts) add_done(part);
      if (!go_on(counts ? part : 0)) return false;
    }
  }
  return true;
}

Result<bool> CopyJob::copy_pass(Image& to) {
  for (uint64_t offset = 0;;) {
    const auto run = changes_.take(offset, steps_.piece_bytes);
    if (!run) return true;
    TRY(copy_piece(to, run->offset, run->size, Fresh::kNo));
    offset = run->offset + run->size;
    if (!go_on(run->size)) return false;
  }
}

// A guest that writes faster than we copy is slowed down: its requests wait for a slice of time, and then as much of
// its writes goes on as is half of what was copied meanwhile.
Result<bool> CopyJob::copy_held(Image& to, Fence& fence) {
  say("the guest writes faster than the target takes it; its writes are slowed down until all is copied");
  // Most of what is not safe there yet is made so before the guest waits.
  TRY(check_status(to.flush(), "flush the target", 0));
  uint64_t credit = 0;
  while (go_on(0)) {
    fence = fence_all();
    while (!held_up()) {
      set_total(progress().done_bytes + changes_.bytes());
      const auto end = std::chrono::steady_clock::now() + kSlice;
      do {
        const auto run = changes_.take(0, steps_.piece_bytes);
        if (!run) return true;
        TRY(copy_piece(to, run->offset, run->size, Fresh::kNo));
        add_done(run->size);
        credit += run->size / 2;
      } while (std::chrono::steady_clock::now() < end && !held_up());
      disk_.pass_held(credit, changes_.block_size());
    }
    fence.reset();
  }
  return false;
}

Result<bool> CopyJob::catch_up(Image& to, Fence& fence) {
  for (bool flushed = false;;) {
    const uint64_t before = changes_.bytes();
    if (before <= steps_.last_bytes) {
      // Little is left to be flushed, then, while the guest waits.
      if (flushed) break;
      TRY(check_status(to.flush(), "flush the target", 0));
      flushed = true;
      continue;
    }
    set_total(progress().done_bytes + before);
    if (!TRY(copy_pass(to))) return false;
    if (changes_.bytes() > before / 2) return copy_held(to, fence);
  }
  if (!go_on(0)) return false;
  fence = fence_all();
  return true;
}

Result<> CopyJob::copy_rest(Image& to) {
  // What this storage has lost must not look safe on another.
  TRY(check_status(flush_now(*disk_.storage().opened.disk), "flush", 0));
  while (const auto run = changes_.take(0, steps_.piece_bytes)) {
    TRY(copy_piece(to, run->offset, run->size, Fresh::kNo));
    add_done(run->size);
  }
  return check_status(to.flush(), "flush the target", 0);
}

}  // namespace bulkhead::block
