// A disk whose storage can be exchanged while a guest works on it. It lets requests through to the storage, knows which
// are under way, and holds new ones back where a job asks for it. What a guest was told never changes by it: a request
// that is held back waits, and is carried out afterwards by what is the storage then.
#pragma once

#include <atomic>
#include <chrono>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/filter/changed_blocks.h"
#include "block/filter/holding_disk.h"
#include "block/format/disk_opener.h"
#include "support/os/mutex.h"

namespace bulkhead::block {

// Where a disk's bytes lie.
struct Storage {
  std::string path, format;
  OpenedDisk opened;
};

class LiveDisk final : public HoldingDisk {
 public:
  explicit LiveDisk(Storage storage);

  // Whatever the storage is exchanged for.
  [[nodiscard]] const Geometry& geometry() const override { return *geometry_.load(std::memory_order_acquire); }
  void submit(Request request) override;
  // When no job goes on any more.
  void hurry() override { block::hurry(*storage_.opened.disk); }

  // ---- For one job at a time ----

  // While it lives, nothing that touches the range is under way.
  class Fence {
   public:
    explicit Fence(LiveDisk& disk) : disk_(disk) {}
    Fence(const Fence&) = delete;
    Fence& operator=(const Fence&) = delete;
    ~Fence() { disk_.lift(); }

   private:
    LiveDisk& disk_;
  };
  // Waits for what is under way there. One at a time.
  [[nodiscard]] Fence fence(uint64_t offset, uint64_t size);
  // Flushes too.
  [[nodiscard]] Fence fence_all() { return fence(0, UINT64_MAX); }
  // With everything fenced: what waits is carried out and over when this returns, but writes only, in their order, as
  // long as credit_bytes pays for the blocks they touch.
  void pass_held(uint64_t& credit_bytes, uint64_t block_size);
  // With everything fenced. Without a disk in it, nobody may submit until there is one again.
  Storage exchange(Storage storage);
  // With everything fenced. What is new reads as zeroes; those who watch know of it.
  Result<> grow(uint64_t new_size);
  // It hears of every write, also of those under way, when it is over and before its maker is told.
  void watch(ChangedBlocks& changes);
  void unwatch(ChangedBlocks& changes);
  // With everything fenced: writes to these blocks wait until they are no longer among them, and discards, which are
  // hints, are left out; null: they all go on.
  void protect(ChangedBlocks* blocks);
  // The place of a write that waits for that, and null when none comes in this time.
  std::optional<ChangedBlocks::Run> next_protected(std::chrono::milliseconds patience);
  // Lets those go on that touch nothing protected any more.
  void release_unprotected();
  // Of the storage; only the job that could exchange it may look. Requests submitted to it pass by every fence.
  [[nodiscard]] const Storage& storage() const { return storage_; }
  // From any thread: where the disk's bytes lie now.
  [[nodiscard]] std::pair<std::string, std::string> path_and_format();

 private:
  struct UnderWay {
    uint64_t offset, size;
    bool flush;
    unsigned parts = 2;  // until it is answered, and until submit() of the storage has returned
  };
  using Place = std::list<UnderWay>::iterator;

  void lift();
  void admit(Request request);
  void pass(Request request, Place place);
  void answered(Place place, bool changes);
  void end_part(Place place) REQUIRES(mutex_);
  [[nodiscard]] static bool touches(const UnderWay& what, uint64_t offset, uint64_t size);

  std::list<Geometry> geometries_;  // all it ever had; added to with everything fenced
  std::atomic<const Geometry*> geometry_;
  Mutex mutex_;
  ConditionVariable ended_;
  std::list<UnderWay> under_way_ GUARDED_BY(mutex_);
  std::vector<Request> held_ GUARDED_BY(mutex_);  // at most what the device in front has under way at a time
  bool fenced_ GUARDED_BY(mutex_) = false;
  uint64_t fence_offset_ GUARDED_BY(mutex_) = 0, fence_size_ GUARDED_BY(mutex_) = 0;
  std::vector<ChangedBlocks*> watchers_ GUARDED_BY(mutex_);
  ChangedBlocks* protected_ GUARDED_BY(mutex_) = nullptr;
  std::vector<Request> held_writes_ GUARDED_BY(mutex_);  // to what is protected; bounded as held_
  ConditionVariable write_held_;
  // Last: it answers what is under way before it is gone. Written with the lock and everything fenced.
  Storage storage_;
};

}  // namespace bulkhead::block
