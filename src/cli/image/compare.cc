#include "cli/image/compare.h"

#include <algorithm>
#include <atomic>

#include "cli/image/chunks.h"
#include "cli/image/runs.h"

namespace bulkhead::cli {
namespace {

class Side {
 public:
  explicit Side(block::Image& image) : image_(image), runs_(image) {}

  Result<Run> run(uint64_t offset) { return runs_.at(offset); }
  Result<> read(uint64_t offset, MutableByteSpan bytes) {
    const auto status = image_.read(offset, bytes);
    if (status == block::Status::kOk) return {};
    return fail("{} image: read {} bytes at {}: {}", image_.info().format, bytes.size(), offset, to_string(status));
  }

 private:
  block::Image& image_;
  Runs runs_;
};

}  // namespace

Result<std::optional<uint64_t>> first_difference(block::Image& a, block::Image& b, bool quiet) {
  Side left(a), right(b);
  std::atomic<uint64_t> first{UINT64_MAX};
  TRY(each_chunk(a.geometry().size, thread_count_for_disks(), 2 * kChunk, quiet,
                 [&](uint64_t offset, uint64_t size, MutableByteSpan memory) -> Result<bool> {
                   for (const uint64_t end = offset + size; offset < end;) {
                     const Run one = TRY(left.run(offset)), other = TRY(right.run(offset));
                     const uint64_t part = std::min({one.size, other.size, end - offset});
                     if (!one.zero || !other.zero) {
                       const MutableByteSpan bytes = memory.first(part), others = memory.subspan(kChunk, part);
                       TRY(left.read(offset, bytes));
                       TRY(right.read(offset, others));
                       const auto differ = std::ranges::mismatch(bytes, others).in1;
                       if (differ != bytes.end()) {
                         // Chunks before this one have been begun and are looked at to their end.
                         const uint64_t at = offset + static_cast<uint64_t>(differ - bytes.begin());
                         for (uint64_t so_far = first; at < so_far && !first.compare_exchange_weak(so_far, at);) {
                         }
                         return false;
                       }
                     }
                     offset += part;
                   }
                   return true;
                 }));
  if (first == UINT64_MAX) return std::nullopt;
  return first.load();
}

}  // namespace bulkhead::cli
