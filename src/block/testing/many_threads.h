// Threads that write to sectors of one image side by side, as the queues of a disk do.
#pragma once

#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <vector>

#include "block/format/image.h"
#include "support/os/thread.h"

namespace bulkhead::block::testing {

// How often something was not as it should be. The image has a disk of at least so many bytes, a multiple of 2048.
inline unsigned write_from_four_threads(Image& image, uint64_t disk_size, int rounds) {
  std::vector<Thread> threads;
  std::atomic<unsigned> wrong{0};
  // Thread t owns the sectors that are t modulo 4, so that all meet in every unit.
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back("writer", [&image, &wrong, disk_size, rounds, t] {
      std::mt19937_64 random(t);
      std::map<uint64_t, uint8_t> expected;
      std::vector<uint8_t> sector(512);
      for (int i = 0; i < rounds; ++i) {
        const uint64_t at = (random() % (disk_size / 2048) * 4 + t) * 512;
        const uint64_t action = random() % 16;
        const auto value = static_cast<uint8_t>(action < 12 ? random() : 0);
        if (action == 15) {
          if (image.flush() != Status::kOk) ++wrong;
          continue;
        }
        std::ranges::fill(sector, value);
        if ((action < 12 ? image.write(at, sector) : image.write_zeroes(at, 512, Unmap::kYes)) != Status::kOk) ++wrong;
        expected[at] = value;
      }
      for (const auto& [at, value] : expected) {
        if (image.read(at, sector) != Status::kOk || std::ranges::count(sector, value) != 512) ++wrong;
      }
    });
  }
  threads.clear();
  return wrong;
}

}  // namespace bulkhead::block::testing
