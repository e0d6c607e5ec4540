// Which parts of a disk certainly read as zeroes, for threads that go through it chunk by chunk: of every file of its
// chain the run told last is kept, since a format walks through its tables to tell how long one is, and a hole of a
// terabyte is to be walked through once, not once for each chunk. The images do not change meanwhile.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

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
  explicit Runs(block::Image& top) {
    for (block::Image* image = &top; image != nullptr; image = image->backing()) {
      files_.push_back(std::make_unique<File>(*image));
      // A file that was opened without the one it stands on does not tell what it lacks.
      whole_ = image->backing() != nullptr || image->info().backing_name.empty();
    }
  }

  // From a byte below the disk's size on; from any thread.
  Result<Run> at(uint64_t offset) {
    uint64_t size = UINT64_MAX;
    for (const auto& file : files_) {
      // What a shorter backing file does not reach is zeroes.
      if (offset >= file->size()) break;
      const block::Extent extent = TRY(file->at(offset));
      size = std::min(size, extent.size);
      if (extent.kind != block::ExtentKind::kAbsent) return Run{size, extent.kind == block::ExtentKind::kZero};
    }
    return Run{size, whole_};
  }

 private:
  class File {
   public:
    explicit File(block::Image& image) : image_(image) {}
    [[nodiscard]] uint64_t size() const { return image_.geometry().size; }
    Result<block::Extent> at(uint64_t offset) {
      {
        const LockGuard lock(mutex_);
        if (offset >= begin_ && offset - begin_ < last_.size) {
          return block::Extent{last_.size - (offset - begin_), last_.kind};
        }
      }
      const block::Extent extent = TRY(image_.map(offset));
      const LockGuard lock(mutex_);
      // Who comes behind others in the same run does not make them ask again.
      const bool same = extent.kind == last_.kind && offset + extent.size == begin_ + last_.size && begin_ < offset;
      if (!same) {
        begin_ = offset;
        last_ = extent;
      }
      return extent;
    }

   private:
    block::Image& image_;
    Mutex mutex_;
    uint64_t begin_ GUARDED_BY(mutex_) = 0;
    block::Extent last_ GUARDED_BY(mutex_);
  };
  std::vector<std::unique_ptr<File>> files_;  // from the top down
  bool whole_ = true;
};

}  // namespace bulkhead::cli
