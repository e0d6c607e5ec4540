// An image as a guest's disk: requests wait in a queue until a worker carries them out, except for those that OnTheSpot
// takes.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "block/format/image.h"
#include "block/on_the_spot.h"
#include "support/os/mutex.h"
#include "support/os/thread.h"

namespace bulkhead::block {

class ImageDisk final : public Disk {
 public:
  static constexpr unsigned kDefaultThreadCount = 4;
  // Whether its storage may make a thread wait for another one: then nothing is carried out by who submits.
  enum class Storage : uint8_t { kPrompt, kMayWait };

  // Without threads, submit() waits for the storage and completes before it returns.
  explicit ImageDisk(std::unique_ptr<Image> image, unsigned thread_count = kDefaultThreadCount,
                     Storage storage = Storage::kPrompt);
  // Carries out what is queued, then ends.
  ~ImageDisk() override;

  [[nodiscard]] const Geometry& geometry() const override { return image_->geometry(); }
  void submit(Request request) override;

 private:
  void work();
  [[nodiscard]] Status perform(const Request& request);

  const std::unique_ptr<Image> image_;
  const Storage storage_;
  Mutex mutex_;
  ConditionVariable work_arrived_;
  std::deque<Request> queue_ GUARDED_BY(mutex_);
  unsigned asleep_ GUARDED_BY(mutex_) = 0, called_ GUARDED_BY(mutex_) = 0;  // workers; and those on their way up
  bool ending_ GUARDED_BY(mutex_) = false;
  OnTheSpot on_the_spot_;
  std::vector<Thread> threads_;
};

}  // namespace bulkhead::block
