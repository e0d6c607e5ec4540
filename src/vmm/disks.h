// A VM's disks as its configuration states them: storage, limits, what an error of the host does, counters. A format is
// stated or raw: it is never taken from bytes that a guest may have written.
#pragma once

#include <atomic>
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
  // Of the files of its jobs: null when it is not encrypted, or above what they see.
  [[nodiscard]] std::shared_ptr<block::DiskKey> key_of_files(size_t index) const;
  // For a job: what is to be below the live disk, with the filters that stand there, to be written.
  Result<block::OpenedDisk> open_for_job(size_t index, const std::string& path, const std::string& format,
                                         block::Access backing_access, const std::string& below);
  // Whether the disk could go on in a file of this format.
  [[nodiscard]] Result<> may_move_to(size_t index, std::string_view format) const;
  [[nodiscard]] Result<> may_grow(size_t index) const;

 private:
  Disks() = default;
  struct One {
    DiskConfig config;
    // Of the live disk, from the guest to the storage; without one, all are below.
    std::vector<DiskFilter> above, below;
    std::shared_ptr<block::ThrottleGroup> limits;
    std::shared_ptr<std::atomic<uint64_t>> fault_count = std::make_shared<std::atomic<uint64_t>>(0);
    block::LiveDisk* live = nullptr;          // within top
    block::file::FileStore* store = nullptr;  // the same, as long as no job has moved the disk
    std::shared_ptr<block::DiskKey> key;
    std::unique_ptr<block::MeteredDisk> top;
  };
  Result<One> open_one(const DiskConfig& disk, const block::ErrorPolicyDisk::Listener& on_pause);
  Result<block::OpenedDisk> open_below(const One& one, const std::string& path, const std::string& format,
                                       block::Access access, block::Access backing_access,
                                       const std::string& folder = "");
  // The filters, the first one outermost.
  Result<block::OpenedDisk> put_in_front(const One& one, std::span<const DiskFilter> filters, block::Access access,
                                         block::OpenedDisk below);

  // Of limits and delays. It goes on while the machine is paused, so that what waits is answered and the machine comes
  // to rest.
  std::unique_ptr<HostClock> clock_;
  std::map<std::string, std::shared_ptr<block::ThrottleGroup>> groups_;
  unsigned thread_count_ = 0;  // of each disk's storage; 0: a deterministic run
  std::vector<One> disks_;
};

}  // namespace bulkhead::vmm
