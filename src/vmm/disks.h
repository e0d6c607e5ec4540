// A VM's disks as its configuration states them: storage, limits, what an error of the host does, counters. A format is
// stated or raw: it is never taken from bytes that a guest may have written.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "block/encrypt/secret.h"
#include "block/filter/metered_disk.h"
#include "block/filter/throttle/throttle_disk.h"
#include "block/job/live_disk.h"
#include "support/time/host_clock.h"
#include "vmm/config/config.h"

namespace bulkhead::vmm {

[[nodiscard]] block::HostCache host_cache_of(const DiskConfig& disk);

class Disks {
 public:
  // on_pause hears of errors that are to stop the machine. Errors name the setting they come from.
  static Result<std::unique_ptr<Disks>> open(const VmConfig& config, const block::ErrorPolicyDisk::Listener& on_pause);

  // Guest RAM, for the disks that are to know it (Ring::register_memory()). Before anybody submits requests.
  Result<> register_memory(const VmConfig& config, std::span<const MutableByteSpan> memory);

  [[nodiscard]] size_t size() const { return disks_.size(); }
  [[nodiscard]] block::MeteredDisk& operator[](size_t index) { return *disks_[index].top; }
  // Null when its storage stays what it is: a read-only disk, or one of a deterministic run.
  [[nodiscard]] block::LiveDisk* live(size_t index) { return disks_[index].live; }
  // Null when it is not encrypted.
  [[nodiscard]] const std::shared_ptr<block::DiskKey>& key(size_t index) const { return disks_[index].key; }

 private:
  Disks() = default;
  struct One {
    block::LiveDisk* live = nullptr;          // within top
    block::file::FileStore* store = nullptr;  // the same, as long as no job has moved the disk
    std::shared_ptr<block::DiskKey> key;
    std::unique_ptr<block::MeteredDisk> top;
  };
  Result<One> open_one(const DiskConfig& disk, unsigned thread_count, const block::ErrorPolicyDisk::Listener& on_pause);

  // Of limits and delays. It goes on while the machine is paused, so that what waits is answered and the machine comes
  // to rest.
  std::unique_ptr<HostClock> clock_;
  std::map<std::string, std::shared_ptr<block::ThrottleGroup>> groups_;
  std::vector<One> disks_;
};

}  // namespace bulkhead::vmm
