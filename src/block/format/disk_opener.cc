#include "block/format/disk_opener.h"

#include "block/format/image.h"
#include "block/format/image_disk.h"
#include "block/store/file/file_store.h"
#include "block/store/nbd/uri.h"

namespace bulkhead::block {

Result<OpenedDisk> open_disk(const std::string& path, const std::string& format, Access access, HostCache cache,
                             unsigned thread_count, Access backing_access, std::shared_ptr<DiskKey> key) {
  if (format == "raw" && !nbd::is_uri(path) && !key)
    return OpenedDisk{TRY(file::FileStore::open(path, access, thread_count, cache))};
  auto image = TRY(open_image(path, format, access, backing_access, cache, {.key = std::move(key)}));
  if (image->geometry().size == 0) return fail("open '{}': the disk has no bytes", path);
  Image* const behind = image.get();
  return OpenedDisk{std::make_unique<ImageDisk>(std::move(image), thread_count), behind};
}

}  // namespace bulkhead::block
