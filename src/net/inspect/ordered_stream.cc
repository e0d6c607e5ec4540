#include "net/inspect/ordered_stream.h"

#include <algorithm>

namespace bulkhead::net::inspect {

OrderedStream::Examined OrderedStream::examine(uint32_t sequence, ByteSpan bytes) const {
  // Numbers go round: what lies less than half of them behind is old.
  const auto distance = static_cast<int32_t>(sequence - acknowledged_);
  int64_t start = distance;
  if (start > static_cast<int64_t>(outstanding_.size())) return {.fit = Fit::kGap, .fresh = {}};
  if (start < 0) {
    // The receiver has these and takes no other ones.
    const auto old = static_cast<size_t>(std::min<int64_t>(-start, static_cast<int64_t>(bytes.size())));
    bytes = bytes.subspan(old);
    if (bytes.empty()) return {.fit = Fit::kRepeated, .fresh = {}};
    start = 0;
  }
  const size_t known = std::min(bytes.size(), outstanding_.size() - static_cast<size_t>(start));
  if (!std::equal(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(known), outstanding_.begin() + start)) {
    return {.fit = Fit::kConflict, .fresh = {}};
  }
  const ByteSpan fresh = bytes.subspan(known);
  if (fresh.empty()) return {.fit = Fit::kRepeated, .fresh = {}};
  if (fresh.size() > kMaximumOutstanding - outstanding_.size()) return {.fit = Fit::kFull, .fresh = {}};
  return {.fit = Fit::kNext, .fresh = fresh};
}

void OrderedStream::acknowledge(uint32_t sequence) {
  const auto count = static_cast<int32_t>(sequence - acknowledged_);
  if (count <= 0 || static_cast<size_t>(count) > outstanding_.size()) return;
  outstanding_.erase(outstanding_.begin(), outstanding_.begin() + count);
  acknowledged_ = sequence;
}

}  // namespace bulkhead::net::inspect
