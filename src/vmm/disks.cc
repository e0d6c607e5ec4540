#include "vmm/disks.h"

#include <algorithm>
#include <chrono>
#include <ranges>

#include "block/filter/fault_disk.h"
#include "block/filter/write_through_disk.h"
#include "block/format/disk_opener.h"
#include "block/format/image.h"
#include "block/format/image_disk.h"
#include "block/format/luks/volume_disk.h"
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

bool has(const std::vector<DiskFilter>& filters, DiskFilter filter) {
  return std::ranges::find(filters, filter) != filters.end();
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
  disks->thread_count_ = config.deterministic.value ? 0 : block::ImageDisk::kDefaultThreadCount;
  for (const auto& disk : config.disks) {
    auto opened = disks->open_one(disk.value, on_pause);
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

Result<Disks::One> Disks::open_one(const DiskConfig& disk, const block::ErrorPolicyDisk::Listener& on_pause) {
  const auto access = disk.read_only ? block::Access::kReadOnly : block::Access::kReadWrite;
  std::string format = TRY(format_of(disk));
  One one{.config = disk, .below = disk.filters_in_order(thread_count_ != 0)};
  const auto changes = std::ranges::find(one.below, DiskFilter::kChanges);
  const bool is_live = changes != one.below.end();
  if (is_live) {
    one.above.assign(one.below.begin(), changes);
    one.below.erase(one.below.begin(), changes + 1);
  }
  if (!disk.secret.empty()) one.key = TRY(block::DiskKey::read(disk.secret));
  if (disk.limits.any()) one.limits = std::make_shared<block::ThrottleGroup>(disk.limits, *clock_);
  if (disk.faults.any()) {
    log::warning("disk '{}': FAULTS ARE ON, on purpose: {}", disk.path, describe(disk.faults));
  }
  // A volume that is opened above the live disk is but bytes to what is below.
  if (format == "luks" && has(one.above, DiskFilter::kEncrypt)) format = "raw";
  block::OpenedDisk opened = TRY(open_below(one, disk.path, format, access, block::Access::kReadOnly));
  one.store = opened.store;
  if (is_live) {
    auto live = std::make_unique<block::LiveDisk>(block::Storage{disk.path, format, std::move(opened)});
    one.live = live.get();
    opened = {std::move(live)};
  }
  opened = TRY(put_in_front(one, one.above, access, std::move(opened)));
  if (const uint32_t bytes = opened.disk->geometry().sector_size;
      disk.bus == machine::DiskBus::kSata && bytes != device::ahci::Controller::kSectorSize) {
    return fail("its sectors have {} bytes, and a SATA drive's {}; state bus=virtio or bus=nvme", bytes,
                device::ahci::Controller::kSectorSize);
  }
  std::unique_ptr<block::Disk> top = std::move(opened.disk);
  if (disk.cache == DiskCache::kWritethrough || disk.cache == DiskCache::kDirectsync) {
    top = std::make_unique<block::WriteThroughDisk>(std::move(top));
  }
  top = std::make_unique<block::ErrorPolicyDisk>(std::move(top), disk.path, disk.on_error, on_pause);
  // What the host takes is no part of a deterministic run.
  one.top = std::make_unique<block::MeteredDisk>(std::move(top), thread_count_ == 0 ? nullptr : host_now_ns);
  return one;
}

Result<block::OpenedDisk> Disks::open_below(const One& one, const std::string& path, const std::string& format,
                                            block::Access access, block::Access backing_access,
                                            const std::string& folder) {
  const bool ends_encrypted = !one.below.empty() && one.below.back() == DiskFilter::kEncrypt;
  const bool has_volume = !ends_encrypted && has(one.below, DiskFilter::kEncrypt);
  block::OpenedDisk opened =
      TRY(block::open_disk(path, has_volume && format == "luks" ? "raw" : format, access, host_cache_of(one.config),
                           thread_count_, backing_access, ends_encrypted ? one.key : nullptr, folder));
  return put_in_front(one, std::span(one.below).first(one.below.size() - (ends_encrypted ? 1 : 0)), access,
                      std::move(opened));
}

Result<block::OpenedDisk> Disks::put_in_front(const One& one, std::span<const DiskFilter> filters, block::Access access,
                                              block::OpenedDisk below) {
  const DiskConfig& disk = one.config;
  for (const DiskFilter filter : std::views::reverse(filters)) {
    switch (filter) {
      case DiskFilter::kThrottle:
        if (one.limits) below.disk = std::make_unique<block::ThrottleDisk>(std::move(below.disk), one.limits);
        if (!disk.group.empty()) {
          below.disk = std::make_unique<block::ThrottleDisk>(std::move(below.disk), groups_.at(disk.group));
        }
        break;
      case DiskFilter::kFault:
        below.disk = std::make_unique<block::FaultDisk>(std::move(below.disk), disk.path, disk.faults, clock_.get(),
                                                        one.fault_count);
        break;
      case DiskFilter::kEncrypt:
        below = TRY(block::luks::open_volume(std::move(below), disk.path, access, one.key, thread_count_));
        break;
      case DiskFilter::kChanges:
        CHECK(false, "a live disk below another one");
    }
  }
  return below;
}

Result<block::OpenedDisk> Disks::open_for_job(size_t index, const std::string& path, const std::string& format,
                                              block::Access backing_access, const std::string& below) {
  return open_below(disks_[index], path, format, block::Access::kReadWrite, backing_access, below);
}

std::shared_ptr<block::DiskKey> Disks::key_of_files(size_t index) const {
  return has(disks_[index].above, DiskFilter::kEncrypt) ? nullptr : disks_[index].key;
}

Result<> Disks::may_move_to(size_t index, std::string_view format) const {
  const One& one = disks_[index];
  const bool has_volume = has(one.below, DiskFilter::kEncrypt) && one.below.back() != DiskFilter::kEncrypt;
  if (!has_volume || format == "luks") return {};
  return fail("format {}: what stands below the disk's encryption (filters=) needs format luks", format);
}

Result<> Disks::may_grow(size_t index) const {
  if (!has(disks_[index].above, DiskFilter::kEncrypt)) return {};
  return fail("the disk's encryption stands above its changes (filters=): it grows at rest alone");
}

}  // namespace bulkhead::vmm
