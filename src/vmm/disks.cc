#include "vmm/disks.h"

#include "block/filter/write_through_disk.h"
#include "block/format/image.h"
#include "block/format/image_disk.h"
#include "block/store/file/file_store.h"

namespace bulkhead::vmm {
namespace {

Result<std::unique_ptr<block::Disk>> open_raw(const DiskConfig& disk, block::Access access, unsigned thread_count) {
  // An image taken for raw would be destroyed by the first write, and the guest sees rubbish.
  if (disk.format.empty()) {
    if (const std::string_view like = TRY(block::probe_format(disk.path)); like != "raw") {
      return fail("begins like a {} image; state format={} or format=raw", like, like);
    }
  }
  return TRY(block::file::FileStore::open(disk.path, access, thread_count));
}

}  // namespace

Result<std::unique_ptr<block::Disk>> open_disk(const DiskConfig& disk, unsigned thread_count) {
  const auto access = disk.read_only ? block::Access::kReadOnly : block::Access::kReadWrite;
  std::unique_ptr<block::Disk> opened;
  if (disk.format.empty() || disk.format == "raw") {
    opened = TRY(open_raw(disk, access, thread_count));
  } else {
    auto image = TRY(block::open_image(disk.path, disk.format, access));
    if (image->geometry().size == 0) return fail("open '{}': the disk has no bytes", disk.path);
    opened = std::make_unique<block::ImageDisk>(std::move(image), thread_count);
  }
  if (disk.cache == DiskCache::kWriteback) return opened;
  return std::make_unique<block::WriteThroughDisk>(std::move(opened));
}

}  // namespace bulkhead::vmm
