// Measures how many requests of one size an image's disk answers, with so many under way at a time, by the way that a
// guest's requests take.
#pragma once

#include <cstdint>

#include "block/disk.h"
#include "support/result.h"

namespace bulkhead::cli {

struct BenchPlan {
  block::Operation operation = block::Operation::kRead;
  uint64_t count = 75000;  // requests
  uint64_t depth = 64;     // under way at a time
  uint64_t size = 4096;    // bytes of one
  uint64_t step = 4096;    // bytes from the beginning of one to that of the next, around the disk's end
};

// Seconds from the first request to the last answer.
Result<double> bench_disk(block::Disk& disk, const BenchPlan& plan, bool quiet);

}  // namespace bulkhead::cli
