// One channel of the 8254 as a function of its clock's ticks (Intel 8254 data sheet): what it counts, what its output
// shows and when that rises next. It owns no timer and no lock, and a tick is any monotonic number of 1/1193182 s.
#pragma once

#include <cstdint>
#include <optional>

#include "support/state/state.h"

namespace bulkhead::device::timer {

class PitChannel {
 public:
  void write_control(uint8_t control);
  void write_count(uint8_t byte, uint64_t tick);
  uint8_t read(uint64_t tick);
  void latch_count(uint64_t tick);
  void latch_status(uint64_t tick);
  void set_gate(bool gate, uint64_t tick);
  [[nodiscard]] bool gate() const { return gate_; }

  [[nodiscard]] bool output(uint64_t tick) const;
  // The first tick after the given one at which the output rises, if it will.
  [[nodiscard]] std::optional<uint64_t> next_rise(uint64_t tick) const;
  // In the periodic modes a new count waits for the end of the period; call before the others with a later tick.
  void take_over_count(uint64_t tick);

  void save(StateWriter writer) const;
  static Result<PitChannel> restore(const StateReader& reader);

 private:
  enum Access : uint8_t { kLatch = 0, kLow = 1, kHigh = 2, kLowThenHigh = 3 };

  [[nodiscard]] bool is_periodic() const { return mode_ == 2 || mode_ == 3; }
  [[nodiscard]] bool needs_trigger() const { return mode_ == 1 || mode_ == 5; }
  // The counter wraps at 2^16 or, counting in decimal, at 10^4.
  [[nodiscard]] uint32_t modulus() const { return decimal_ ? 10'000 : 65'536; }
  [[nodiscard]] uint64_t elapsed(uint64_t tick) const;
  [[nodiscard]] uint32_t count(uint64_t tick) const;
  [[nodiscard]] uint16_t encode(uint32_t value) const;
  [[nodiscard]] uint32_t decode(uint16_t value) const;
  void load(uint32_t count, uint64_t tick);
  void start(uint64_t tick);
  void hold(uint64_t tick);

  uint8_t mode_ = 3;
  bool decimal_ = false;
  Access access_ = kLowThenHigh;
  bool gate_ = true;

  bool loaded_ = false;       // a count has been written since the control word
  bool running_ = false;      // counts with the ticks
  uint32_t reload_ = 65'536;  // 1 to modulus()
  uint32_t next_reload_ = 0;  // waits for the end of the period; 0: none
  uint64_t start_tick_ = 0;   // while running
  uint64_t held_ticks_ = 0;   // counted before the gate closed, while not running

  uint8_t written_low_ = 0;
  bool writes_high_ = false;
  bool reads_high_ = false;
  std::optional<uint16_t> latched_count_;
  std::optional<uint8_t> latched_status_;
};

}  // namespace bulkhead::device::timer
