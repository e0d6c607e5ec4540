#include "cli/image/copy.h"

#include <algorithm>
#include <cstring>

#include "cli/image/chunks.h"
#include "cli/image/runs.h"

namespace bulkhead::cli {
namespace {

constexpr uint64_t kPiece = 65536;

bool is_zero(ByteSpan bytes) {
  return bytes.empty() || (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

class Copy {
 public:
  Copy(block::Image& from, block::Image& to, CopyMode mode)
      : from_(from),
        to_(to),
        ascending_(to.fill_order() == block::FillOrder::kAscending),
        compress_(mode == CopyMode::kCompressed || ascending_),
        // Two chunks must never meet in one unit of compression.
        unit_(compress_ ? std::max(to.compression_unit(), uint64_t{512}) : kPiece),
        runs_(from),
        whole_(!to.starts_as_zeroes()) {}

  Result<> run(bool quiet) {
    // A raw image tells where its file has blocks, which are often full of zeroes.
    if (!compress_ && !whole_ && from_.info().format != "raw") TRY(reserve());
    const unsigned processors = thread_count_for_processors(), disks = thread_count_for_disks();
    return each_chunk(from_.geometry().size,
                      ascending_  ? 1
                      : compress_ ? processors
                                  : disks,
                      kChunk, quiet, [this](uint64_t offset, uint64_t size, MutableByteSpan memory) -> Result<bool> {
                        TRY(chunk(offset, size, memory));
                        return true;
                      });
  }

 private:
  // The blocks of long runs ahead of their writes: a host's filesystem then need not find each page its place.
  Result<> reserve() {
    constexpr uint64_t kLeast = uint64_t{1} << 20;
    const uint64_t size = from_.geometry().size;
    for (uint64_t offset = 0; offset < size;) {
      const Run run = TRY(runs_.at(offset));
      // Where there is no room, or no such thing, writing says so.
      if (!run.zero && run.size >= kLeast) {
        if (to_.reserve(offset, run.size) != block::Status::kOk) break;
        reserved_ = true;
      }
      offset += run.size;
    }
    return {};
  }

  Result<> chunk(uint64_t offset, uint64_t size, MutableByteSpan memory) {
    while (size != 0) {
      const Run run = TRY(runs_.at(offset));
      uint64_t part = std::min(size, run.size);
      bool zero = run.zero;
      // A unit that is compressed must come whole, whatever parts of it are holes.
      if (compress_ && part != size) {
        zero = zero && part >= unit_;
        part = std::min(size, zero ? align_down(part, unit_) : align_up(part, unit_));
      }
      if (!zero) {
        TRY(data(offset, memory.first(part)));
      } else if (whole_) {
        TRY(clear(offset, part));
      }
      offset += part;
      size -= part;
    }
    return {};
  }

  Result<> clear(uint64_t offset, uint64_t size) {
    const auto status = to_.write_zeroes(offset, size, block::Unmap::kYes);
    if (status == block::Status::kOk) return {};
    return fail("write {} bytes of zeroes at {}: {}", size, offset, to_string(status));
  }

  Result<> data(uint64_t offset, MutableByteSpan bytes) {
    if (const auto status = from_.read(offset, bytes); status != block::Status::kOk) {
      return fail("read {} bytes at {}: {}", bytes.size(), offset, to_string(status));
    }
    // Runs of units that are zero, or not, go out in one write.
    const auto part_at = [&](size_t at) { return std::min<size_t>(bytes.size() - at, unit_ - (offset + at) % unit_); };
    for (size_t at = 0; at < bytes.size();) {
      const bool zero = is_zero(bytes.subspan(at, part_at(at)));
      size_t end = at + part_at(at);
      while (end < bytes.size() && is_zero(bytes.subspan(end, part_at(end))) == zero) end += part_at(end);
      const ByteSpan run = bytes.subspan(at, end - at);
      if (!zero) {
        const auto status = compress_ ? to_.write_compressed(offset + at, run) : to_.write(offset + at, run);
        if (status != block::Status::kOk) {
          return fail("write {} bytes at {}: {}", run.size(), offset + at, to_string(status));
        }
      } else if (whole_ || reserved_) {
        TRY(clear(offset + at, run.size()));
      }
      at = end;
    }
    return {};
  }

  block::Image& from_;
  block::Image& to_;
  const bool ascending_, compress_;
  const uint64_t unit_;
  Runs runs_;
  const bool whole_;  // zeroes too
  bool reserved_ = false;
};

}  // namespace

Result<> copy_image(block::Image& from, block::Image& to, CopyMode mode, bool quiet) {
  return Copy(from, to, mode).run(quiet);
}

block::Progress show_thick_progress(bool show) {
  if (!show) return nullptr;
  using std::chrono::steady_clock;
  return [told = steady_clock::time_point()](uint64_t done, uint64_t all) mutable {
    const auto now = steady_clock::now();
    if (done != all && now - told < std::chrono::milliseconds(200)) return;
    told = now;
    fmt::print(stderr, "\rtaking storage {:5.1f} % ", static_cast<double>(done) * 100 / static_cast<double>(all));
    if (done == all) std::fputc('\n', stderr);
  };
}

}  // namespace bulkhead::cli
