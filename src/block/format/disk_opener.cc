#include "block/format/disk_opener.h"

#include "block/format/image.h"
#include "block/format/image_disk.h"
#include "block/format/named_file.h"
#include "block/store/file/file_store.h"
#include "block/store/nbd/uri.h"

namespace bulkhead::block {

Result<OpenedDisk> open_disk(const std::string& path, const std::string& format, Access access, HostCache cache,
                             unsigned thread_count, Access backing_access, std::shared_ptr<DiskKey> key,
                             const std::string& below) {
  if (format == "raw" && !nbd::is_uri(path) && !key) {
    auto store =
        TRY(file::FileStore::open(path, access, thread_count, cache, file::FileStore::Driver::kRingIfPossible, below));
    file::FileStore* const raw = store.get();
    return OpenedDisk{std::move(store), nullptr, raw};
  }
  const Unlock unlock{.key = std::move(key)};
  auto image = below.empty() ? TRY(open_image(path, format, access, backing_access, cache, unlock))
                             : TRY(open_image_below(below, path, format, access, backing_access, cache, unlock));
  if (image->geometry().size == 0) return fail("open '{}': the disk has no bytes", path);
  Image* const behind = image.get();
  return OpenedDisk{std::make_unique<ImageDisk>(std::move(image), thread_count), behind};
}

Result<> grow_disk(const OpenedDisk& opened, uint64_t new_size) {
  if (opened.store != nullptr) return opened.store->grow(new_size);
  if (opened.image != nullptr) return opened.image->grow(new_size);
  return fail("there is no disk");
}

}  // namespace bulkhead::block
