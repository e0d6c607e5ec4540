// Which parts of an image certainly read as zeroes, for threads that go through it chunk by chunk. A format walks
// through its tables to tell how long a run is, so the run told last is kept: a hole of a terabyte is walked through
// once, not once for each chunk. The image does not change meanwhile.
#pragma once

#include "block/format/image.h"
#include "support/os/mutex.h"
#include "support/result.h"

namespace bulkhead::cli {

struct Run {
  uint64_t size = 0;  // bytes
  bool zero = false;
};

class Runs {
 public:
  explicit Runs(block::Image& image) : image_(image), chained_(!image.info().backing_name.empty()) {}

  // From a byte below the image's size on; from any thread.
  Result<Run> at(uint64_t offset) {
    {
      const LockGuard lock(mutex_);
      if (offset >= begin_ && offset - begin_ < last_.size) return Run{last_.size - (offset - begin_), last_.zero};
    }
    const block::Extent extent = TRY(image_.map(offset));
    const bool absent_is_zero = !chained_ && extent.kind == block::ExtentKind::kAbsent;
    const Run run{extent.size, extent.kind == block::ExtentKind::kZero || absent_is_zero};
    const LockGuard lock(mutex_);
    // Who comes behind others in the same run does not make them ask again.
    const bool same = run.zero == last_.zero && offset + run.size == begin_ + last_.size && begin_ < offset;
    if (!same) {
      begin_ = offset;
      last_ = run;
    }
    return run;
  }

 private:
  block::Image& image_;
  const bool chained_;
  Mutex mutex_;
  uint64_t begin_ GUARDED_BY(mutex_) = 0;
  Run last_ GUARDED_BY(mutex_);
};

}  // namespace bulkhead::cli
