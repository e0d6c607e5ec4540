// What mirror and commit share: bringing an image up to date with a disk on which a guest works. Everything is copied
// once, then what was written meanwhile, and so on, until little is left. What the guest writes reaches only its own
// disk until the job exchanges that.
#pragma once

#include <chrono>

#include "block/job/job.h"
#include "block/job/storage_change.h"

namespace bulkhead::block {

struct CopySteps {
  uint64_t piece_bytes = uint64_t{1} << 20;  // read and written at once
  uint64_t last_bytes = uint64_t{8} << 20;   // may be left for the switch, while the guest waits
};

class CopyJob : public Job {
 protected:
  enum class Fresh : uint8_t { kNo, kYes };  // a place that reads as zeroes as long as nobody has written there

  CopyJob(std::string kind, LiveDisk& disk, uint64_t speed, CopySteps steps);
  virtual Result<std::string> copy() = 0;

  // False when the job is cancelled. All that the disk holds, but what its image says that it does not: of an image
  // whose backing file is the target, that is what shows through.
  enum class Skip : uint8_t { kZeroes, kBacking };
  [[nodiscard]] Result<bool> copy_once(Image& to, Skip skip);
  using Fence = std::unique_ptr<LiveDisk::Fence>;
  // Until what is left can be copied while the guest waits, which it does from then on.
  [[nodiscard]] Result<bool> catch_up(Image& to, Fence& fence);
  // The rest, with everything fenced, and a flush of the target.
  [[nodiscard]] Result<> copy_rest(Image& to);

  LiveDisk& disk_;

 private:
  Result<std::string> work() final;

  static constexpr uint64_t kGrain = 65536;
  // How long the guest waits at a time.
  static constexpr std::chrono::milliseconds kSlice{100};

  [[nodiscard]] Result<> copy_piece(Image& to, uint64_t offset, uint64_t size, Fresh fresh);
  [[nodiscard]] Result<bool> copy_pass(Image& to);
  [[nodiscard]] Result<bool> copy_held(Image& to, Fence& fence);
  [[nodiscard]] Fence fence_all() { return Fence(new LiveDisk::Fence(disk_.fence_all())); }

  const CopySteps steps_;
  ChangedBlocks changes_;
  std::unique_ptr<uint8_t, void (*)(void*)> memory_;
};

}  // namespace bulkhead::block
