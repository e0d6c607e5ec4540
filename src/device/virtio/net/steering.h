// Which pair of queues a received frame goes to (VIRTIO 1.2, 5.1.6.5.6 and .7): the pair that the frame's flow was sent
// from last, or with receive-side scaling the one that a hash with the driver's key and table names.
#pragma once

#include <array>
#include <vector>

#include "net/frame/headers.h"
#include "support/bytes.h"
#include "support/result.h"
#include "support/state/state.h"

namespace bulkhead::device::virtio {

class Steering {
 public:
  static constexpr size_t kKeySize = 40;
  static constexpr size_t kMaximumTable = 128;

  explicit Steering(uint16_t maximum_pairs) : maximum_pairs_(maximum_pairs) {}

  [[nodiscard]] uint16_t active_pairs() const { return active_pairs_; }
  // Below active_pairs().
  [[nodiscard]] uint16_t choose(ByteSpan frame) const;
  // The driver sends this by a queue of its choice: answers belong there.
  void note_sent(ByteSpan frame, uint16_t pair);

  // What the driver says; false when it makes no sense, and nothing changes.
  [[nodiscard]] bool set_pairs(uint16_t pairs);
  [[nodiscard]] bool set_scaling(ByteSpan command);

  void reset();
  void save_state(StateWriter& writer) const;
  Result<> restore_state(const StateReader& reader);

  // The Toeplitz hash (5.1.6.4.3.1) of at most kKeySize - 4 bytes.
  [[nodiscard]] static uint32_t hash(const std::array<uint8_t, kKeySize>& key, ByteSpan input);

 private:
  struct Scaling {
    uint32_t hash_types = 0;
    uint16_t unclassified = 0;
    std::vector<uint16_t> table;  // a power of two of them; empty: no scaling
    std::array<uint8_t, kKeySize> key{};
  };
  static constexpr size_t kFlowCount = 256;
  [[nodiscard]] static size_t flow_of(const net::frame::Headers& headers);

  const uint16_t maximum_pairs_;
  uint16_t active_pairs_ = 1;
  Scaling scaling_;
  std::array<uint8_t, kFlowCount> flows_{};  // the pair of each
};

}  // namespace bulkhead::device::virtio
