// A bad network on purpose, from a seed: delay, jitter, loss, duplication, reordering, corruption, a rate, a cut. A
// function of frames, times and the seed, so that a run can be repeated; bounded, so that a delay cannot fill memory.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "support/bytes.h"
#include "support/random.h"
#include "support/result.h"

namespace bulkhead::net::fault {

struct FaultConfig {
  static constexpr uint32_t kAlways = 1'000'000;
  static constexpr uint64_t kMostDelay_ns = 60'000'000'000;

  uint64_t delay_ns = 0;
  uint64_t jitter_ns = 0;  // up to so much more, evenly spread
  // Of a million frames.
  uint32_t lost = 0;
  uint32_t duplicated = 0;
  uint32_t reordered = 0;            // overtake the delay of those before
  uint32_t corrupted = 0;            // one bit is wrong
  uint64_t rate_bytes_a_second = 0;  // 0: no limit
  bool is_cut = false;               // nothing passes
  friend bool operator==(const FaultConfig&, const FaultConfig&) = default;
};
Result<> check_faults(const FaultConfig& config);

struct FaultCounters {
  uint64_t passed = 0;
  uint64_t lost = 0;  // by chance or by the cut
  uint64_t duplicated = 0;
  uint64_t reordered = 0;
  uint64_t corrupted = 0;
  uint64_t overflowed = 0;  // no room while they would have waited
};

// One direction of a link.
class Faults {
 public:
  static constexpr size_t kMaximumFrames = 4096;
  static constexpr size_t kMaximumBytes = size_t{8} << 20;

  // The configuration has passed check_faults().
  Faults(const FaultConfig& config, uint64_t seed) : config_(config), random_(seed) {}

  // For frames from now on; those under way keep their times. Where delay or rate change, the new ones do not wait
  // behind them.
  void set_config(const FaultConfig& config);
  void send(ByteSpan frame, uint64_t now_ns);
  // When the next frame arrives, UINT64_MAX when none is under way.
  [[nodiscard]] uint64_t next_ns() const { return under_way_.empty() ? UINT64_MAX : under_way_.begin()->first; }
  // The next frame that has arrived; empty when there is none.
  [[nodiscard]] std::vector<uint8_t> receive(uint64_t now_ns);
  [[nodiscard]] const FaultConfig& config() const { return config_; }
  [[nodiscard]] const FaultCounters& counters() const { return counters_; }
  // Nothing would happen to a frame: it need not come by.
  [[nodiscard]] bool is_clear() const { return under_way_.empty() && config_ == FaultConfig{}; }
  [[nodiscard]] size_t under_way() const { return under_way_.size(); }

 private:
  [[nodiscard]] bool happens(uint32_t of_a_million) { return random_.below(FaultConfig::kAlways) < of_a_million; }
  [[nodiscard]] uint64_t arrival_ns(size_t size, uint64_t now_ns);
  [[nodiscard]] bool has_room(size_t size) const;
  void put(std::vector<uint8_t> frame, uint64_t when_ns);

  FaultConfig config_;
  SeededRandom random_;
  // By arrival; of one time in the order of sending.
  std::multimap<uint64_t, std::vector<uint8_t>> under_way_;
  size_t bytes_ = 0;
  uint64_t line_free_ns_ = 0;  // when the frame sent last has left
  uint64_t latest_ns_ = 0;     // the latest arrival so far: without reordering none comes before it
  FaultCounters counters_;
};

}  // namespace bulkhead::net::fault
