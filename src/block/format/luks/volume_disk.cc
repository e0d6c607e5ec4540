#include "block/format/luks/volume_disk.h"

#include <algorithm>

#include "block/filter/holding_disk.h"
#include "block/format/image_disk.h"
#include "block/format/luks/luks_image.h"
#include "block/wait.h"
#include "support/os/mutex.h"

namespace bulkhead::block::luks {
namespace {

// A disk's bytes for a format: a call waits for the request that it makes.
class DiskStore final : public Store {
 public:
  DiskStore(OpenedDisk below, std::string name) : below_(std::move(below)), name_(std::move(name)) {}

  [[nodiscard]] Disk& disk() { return *below_.disk; }
  [[nodiscard]] const std::string& name() const override { return name_; }
  [[nodiscard]] Result<uint64_t> size() override { return end(); }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override {
    const uint64_t there = offset < end() ? std::min<uint64_t>(bytes.size(), end() - offset) : 0;
    std::ranges::fill(bytes.subspan(there), uint8_t{0});
    bytes = bytes.first(there);
    if (bytes.empty()) return Status::kOk;
    if (is_whole(offset, bytes.size())) return read_now(*below_.disk, offset, bytes);
    std::vector<uint8_t> sectors(around(offset, bytes.size()));
    const uint64_t start = align_down(offset, unit());
    if (const Status status = read_now(*below_.disk, start, sectors); status != Status::kOk) return status;
    std::memcpy(bytes.data(), sectors.data() + (offset - start), bytes.size());
    return Status::kOk;
  }
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override {
    if (bytes.empty()) return Status::kOk;
    if (is_whole(offset, bytes.size())) return write_now(*below_.disk, offset, bytes);
    std::vector<uint8_t> sectors(around(offset, bytes.size()));
    const uint64_t start = align_down(offset, unit());
    const LockGuard lock(part_mutex_);
    if (const Status status = read_now(*below_.disk, start, sectors); status != Status::kOk) return status;
    std::memcpy(sectors.data() + (offset - start), bytes.data(), bytes.size());
    return write_now(*below_.disk, start, sectors);
  }
  [[nodiscard]] Status flush() override { return flush_now(*below_.disk); }
  [[nodiscard]] Status punch(uint64_t, uint64_t) override { return Status::kUnsupported; }
  [[nodiscard]] Status truncate(uint64_t size) override {
    if (size < end()) return Status::kUnsupported;
    const auto grown = grow_disk(below_, align_up(size, unit()));
    return grown ? Status::kOk : Status::kIoError;
  }
  [[nodiscard]] bool starts_as_zeroes() const override { return false; }
  [[nodiscard]] StoreExtent extent(uint64_t offset) override { return {.size = end() - offset}; }

 private:
  [[nodiscard]] uint64_t end() const { return below_.disk->geometry().size; }
  [[nodiscard]] uint64_t unit() const { return below_.disk->geometry().sector_size; }
  [[nodiscard]] bool is_whole(uint64_t offset, uint64_t size) const { return ((offset | size) & (unit() - 1)) == 0; }
  // Bytes of the sectors that a range touches.
  [[nodiscard]] uint64_t around(uint64_t offset, uint64_t size) const {
    return align_up(offset + size, unit()) - align_down(offset, unit());
  }

  const OpenedDisk below_;
  const std::string name_;
  Mutex part_mutex_;  // held while a part of a sector is written, so that its neighbour in the same is not lost
};

class VolumeDisk final : public HoldingDisk {
 public:
  VolumeDisk(std::unique_ptr<Image> image, Disk& below, unsigned thread_count)
      : below_(below), disk_(std::move(image), thread_count, ImageDisk::Storage::kMayWait) {}
  // The workers wait for what is below.
  ~VolumeDisk() override { block::hurry(below_); }
  [[nodiscard]] const Geometry& geometry() const override { return disk_.geometry(); }
  void submit(Request request) override { disk_.submit(std::move(request)); }
  void hurry() override { block::hurry(below_); }

 private:
  Disk& below_;  // within disk_
  ImageDisk disk_;
};

}  // namespace

Result<OpenedDisk> open_volume(OpenedDisk below, const std::string& name, Access access,
                               const std::shared_ptr<DiskKey>& key, unsigned thread_count) {
  ImageOpener opener = ImageOpener::of_nothing();
  opener.use_key({.key = key});
  auto store = std::make_unique<DiskStore>(std::move(below), name);
  Disk& disk = store->disk();
  auto image = TRY(open(std::move(store), access, opener));
  if (image->geometry().size == 0) return fail("open '{}': the disk has no bytes", name);
  Image* const behind = image.get();
  return OpenedDisk{std::make_unique<VolumeDisk>(std::move(image), disk, thread_count), behind};
}

}  // namespace bulkhead::block::luks
