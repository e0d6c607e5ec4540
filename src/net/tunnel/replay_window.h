// Which counters of a session have been seen: what comes a second time, or is too old to tell, is refused. A ring of
// bits behind the largest counter, as in RFC 6479. The counter is authentic when it comes here.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace bulkhead::net::tunnel {

class ReplayWindow {
 public:
  // Counters that are this far behind the largest one may still come.
  static constexpr uint64_t kSize = 1984;

  // True the first time.
  [[nodiscard]] bool take(uint64_t counter) {
    if (counter + kSize < next_) return false;
    if (counter >= next_) {
      // The words between are those of counters that have not come.
      const uint64_t fresh = counter / 64 - (next_ == 0 ? 0 : (next_ - 1) / 64);
      for (uint64_t i = 0; i < std::min<uint64_t>(fresh, kWords); ++i) words_[(counter / 64 - i) % kWords] = 0;
      next_ = counter + 1;
    }
    uint64_t& word = words_[counter / 64 % kWords];
    const uint64_t bit = uint64_t{1} << counter % 64;
    if ((word & bit) != 0) return false;
    word |= bit;
    return true;
  }

 private:
  static constexpr uint64_t kWords = kSize / 64 + 1;
  std::array<uint64_t, kWords> words_{};
  uint64_t next_ = 0;  // the largest that came, and one
};

}  // namespace bulkhead::net::tunnel
