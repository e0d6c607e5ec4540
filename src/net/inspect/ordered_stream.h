// One direction of a TCP connection as its receiver will see it: bytes in order, each with one meaning. What has passed
// and is not yet acknowledged is remembered, because the receiver may not have it: a repetition must say the same
// again, or it could put other bytes in the place of those that were looked at (RFC 9293 3.10.7.4 lets a receiver take
// either). A segment behind a gap is to be dropped; its sender repeats it.
#pragma once

#include <cstdint>
#include <deque>

#include "support/bytes.h"

namespace bulkhead::net::inspect {

class OrderedStream {
 public:
  // Unacknowledged bytes; more are refused until the receiver has said what it has.
  static constexpr size_t kMaximumOutstanding = size_t{64} * 1024;

  enum class Fit : uint8_t {
    kNext,      // brings bytes that are new, perhaps behind some that are not
    kRepeated,  // nothing new
    kGap,       // begins beyond what is known
    kConflict,  // says other bytes than before
    kFull,      // more than may be outstanding
  };
  struct Examined {
    Fit fit = Fit::kRepeated;
    ByteSpan fresh;  // of the segment, the part that is new
  };

  // The sequence number of the first byte: that of SYN, plus one.
  explicit OrderedStream(uint32_t first) : acknowledged_(first) {}

  [[nodiscard]] Examined examine(uint32_t sequence, ByteSpan bytes) const;
  // The fresh bytes pass on.
  void commit(ByteSpan fresh) { outstanding_.insert(outstanding_.end(), fresh.begin(), fresh.end()); }
  // By the receiver. Numbers that it cannot have sent are passed over.
  void acknowledge(uint32_t sequence);
  // The number of the first byte that has not passed.
  [[nodiscard]] uint32_t next() const { return static_cast<uint32_t>(acknowledged_ + outstanding_.size()); }
  [[nodiscard]] size_t outstanding() const { return outstanding_.size(); }

 private:
  uint32_t acknowledged_;            // the number of the first byte below
  std::deque<uint8_t> outstanding_;  // passed on and not acknowledged
};

}  // namespace bulkhead::net::inspect
