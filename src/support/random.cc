#include "support/random.h"

#include <algorithm>
#include <cerrno>

#include <sys/random.h>

#include "support/check.h"

namespace bulkhead {

void HostRandom::fill(MutableByteSpan out) {
  while (!out.empty()) {
    const ssize_t count = getrandom(out.data(), std::min<size_t>(out.size(), 256), 0);
    if (count < 0 && errno == EINTR) continue;
    CHECK(count > 0, "getrandom failed");
    out = out.subspan(static_cast<size_t>(count));
  }
}

// Seeding by splitmix64, as the authors of xoshiro256** recommend.
SeededRandom::SeededRandom(uint64_t seed) {
  for (uint64_t& word : state_) {
    seed += 0x9e3779b97f4a7c15;
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    word = z ^ (z >> 31);
  }
}

uint64_t SeededRandom::next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

void SeededRandom::fill(MutableByteSpan out) {
  while (!out.empty()) {
    const uint64_t word = next();
    const size_t count = std::min<size_t>(out.size(), sizeof word);
    std::memcpy(out.data(), &word, count);
    out = out.subspan(count);
  }
}

}  // namespace bulkhead
