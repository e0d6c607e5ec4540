#include "vmm/disks.h"

#include <algorithm>
#include <chrono>

#include "block/filter/fault_disk.h"
#include "block/filter/write_through_disk.h"
#include "block/format/disk_opener.h"
#include "block/format/image.h"
#include "block/format/image_disk.h"
#include "block/store/file/file_store.h"
#include "device/ahci/controller.h"
#include "support/log.h"
#include "vmm/config/disk_faults.h"

namespace bulkhead::vmm {
namespace {

uint64_t host_now_ns() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1));
}

Result<std::string> format_of(const DiskConfig& disk) {
  if (disk.format.empty() && !disk.secret.empty()) return "luks";
  // An image taken for raw would be destroyed by the first write, and the guest sees rubbish.
  if (disk.format.empty()) {
    if (const std::string_view like = TRY(block::probe_format(disk.path)); like != "raw") {
      return fail("looks like a {} image; state format={} or format=raw", like, like);
    }
  }
  return disk.format.empty() ? "raw" : disk.format;
}

}  // namespace

Result<std::unique_ptr<Disks>> Disks::open(const VmConfig& config, const block::ErrorPolicyDisk::Listener& on_pause) {
  std::unique_ptr<Disks> disks(new Disks());
  const bool takes_time = std::ranges::any_of(config.disks, [](const Setting<DiskConfig>& disk) {
    return disk.value.limits.any() || !disk.value.group.empty() || disk.value.faults.takes_time();
  });
  if (takes_time) {
    disks->clock_ = std::make_unique<HostClock>(HostClock::Source::kMonotonic);
    disks->clock_->resume();
    for (const auto& group : config.disk_groups) {
      disks->groups_[group.value.name] = std::make_shared<block::ThrottleGroup>(group.value.limits, *disks->clock_);
    }
  }
  const unsigned thread_count = config.deterministic.value ? 0 : block::ImageDisk::kDefaultThreadCount;
  for (const auto& disk : config.disks) {
    auto opened = disks->open_one(disk.value, thread_count, on_pause);
    if (!opened) return fail("{}: {}", disk.label(disk.value.path), opened.error().message);
    disks->disks_.push_back(std::move(*opened));
  }
  return disks;
}

Result<> Disks::register_memory(const VmConfig& config, std::span<const MutableByteSpan> memory) {
  for (size_t i = 0; i < disks_.size(); ++i) {
    const auto& disk = config.disks[i];
    if (!disk.value.fixed_buffers) continue;
    const std::string label = disk.label(disk.value.path) + ": fixed-buffers";
    if (disks_[i].store == nullptr) return fail("{}: not in this run", label);
    TRY_IN(label, disks_[i].store->register_memory(memory));
  }
  return {};
}

block::HostCache host_cache_of(const DiskConfig& disk) {
  const bool bypasses = disk.cache == DiskCache::kNone || disk.cache == DiskCache::kDirectsync;
  return bypasses ? block::HostCache::kBypassed : block::HostCache::kUsed;
}

Result<Disks::One> Disks::open_one(const DiskConfig& disk, unsigned thread_count,
                                   const block::ErrorPolicyDisk::Listener& on_pause) {
  const auto access = disk.read_only ? block::Access::kReadOnly : block::Access::kReadWrite;
  const std::string format = TRY(format_of(disk));
  One one;
  if (!disk.secret.empty()) one.key = TRY(block::DiskKey::read(disk.secret));
  block::OpenedDisk storage = TRY(block::open_disk(disk.path, format, access, host_cache_of(disk), thread_count,
                                                   block::Access::kReadOnly, one.key));
  one.store = storage.store;
  if (const uint32_t bytes = storage.disk->geometry().sector_size;
      disk.bus == machine::DiskBus::kSata && bytes != device::ahci::Controller::kSectorSize) {
    return fail("its sectors have {} bytes, and a SATA drive's {}; state bus=virtio or bus=nvme", bytes,
                device::ahci::Controller::kSectorSize);
  }
  std::unique_ptr<block::Disk> opened;
  if (disk.read_only || thread_count == 0) {
    opened = std::move(storage.disk);
  } else {
    auto live = std::make_unique<block::LiveDisk>(block::Storage{disk.path, format, std::move(storage)});
    one.live = live.get();
    opened = std::move(live);
  }
  if (disk.faults.any()) {
    log::warning("disk '{}': FAULTS ARE ON, on purpose: {}", disk.path, describe(disk.faults));
    opened = std::make_unique<block::FaultDisk>(std::move(opened), disk.path, disk.faults, clock_.get());
  }
  if (disk.cache == DiskCache::kWritethrough || disk.cache == DiskCache::kDirectsync) {
    opened = std::make_unique<block::WriteThroughDisk>(std::move(opened));
  }
  if (disk.limits.any()) {
    opened = std::make_unique<block::ThrottleDisk>(std::move(opened),
                                                   std::make_shared<block::ThrottleGroup>(disk.limits, *clock_));
  }
  if (!disk.group.empty()) {
    opened = std::make_unique<block::ThrottleDisk>(std::move(opened), groups_.at(disk.group));
  }
  opened = std::make_unique<block::ErrorPolicyDisk>(std::move(opened), disk.path, disk.on_error, on_pause);
  // What the host takes is no part of a deterministic run.
  one.top = std::make_unique<block::MeteredDisk>(std::move(opened), thread_count == 0 ? nullptr : host_now_ns);
  return one;
}

}  // namespace bulkhead::vmm
