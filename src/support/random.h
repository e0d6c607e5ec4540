// Randomness comes in through this door, so that a seed can stand in for the host's entropy.
#pragma once

#include <cstdint>

#include "support/bytes.h"

namespace bulkhead {

class RandomSource {
 public:
  virtual ~RandomSource() = default;
  // Callable from any thread.
  virtual void fill(MutableByteSpan out) = 0;

  uint64_t next_u64() {
    uint64_t value = 0;
    fill(as_mutable_bytes(value));
    return value;
  }
};

// The host kernel's generator (getrandom).
class HostRandom final : public RandomSource {
 public:
  void fill(MutableByteSpan out) override;
};

// xoshiro256** from a seed: the same seed gives the same bytes. Not thread-safe; not for secrets.
class SeededRandom final : public RandomSource {
 public:
  explicit SeededRandom(uint64_t seed);
  void fill(MutableByteSpan out) override;
  uint64_t next();
  // Uniform in [0, bound); bound > 0.
  uint64_t below(uint64_t bound) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
  }

 private:
  uint64_t state_[4];
};

}  // namespace bulkhead
