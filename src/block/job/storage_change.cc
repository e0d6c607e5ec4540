#include "block/job/storage_change.h"

#include "support/log.h"

namespace bulkhead::block {
namespace {

// In the place of storage that is gone.
class LostDisk final : public Disk {
 public:
  explicit LostDisk(const Geometry& geometry) : geometry_(geometry) {}
  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  void submit(Request request) override { request.complete(Status::kIoError); }

 private:
  const Geometry geometry_;
};

Result<Storage> open_like(const LiveDisk& disk, DiskFiles& files, const std::string& path, const std::string& format,
                          Access backing_access, const std::string& below = "") {
  Storage storage{path, format, TRY(files.open(path, format, backing_access, below))};
  TRY(check_same_shape(disk.geometry(), storage.opened.disk->geometry(), path));
  return storage;
}

}  // namespace

Result<> check_status(Status status, std::string_view what, uint64_t offset) {
  if (status == Status::kOk) return {};
  return fail("{} at byte {}: {}", what, offset, to_string(status));
}

Result<> check_same_shape(const Geometry& now, const Geometry& then, const std::string& path) {
  if (now.size != then.size) return fail("'{}' holds a disk of {} bytes, not of {}", path, then.size, now.size);
  if (now.sector_size == then.sector_size) return {};
  return fail("'{}' has sectors of {} bytes, not of {}", path, then.sector_size, now.sector_size);
}

Result<> reopen(LiveDisk& disk, DiskFiles& files, const std::string& path, const std::string& format,
                Access backing_access, const std::string& below) {
  const std::string old_path = disk.storage().path, old_format = disk.storage().format;
  (void)disk.exchange({old_path, old_format, {std::make_unique<LostDisk>(disk.geometry())}});
  auto opened = open_like(disk, files, path, format, backing_access, below);
  if (opened) {
    (void)disk.exchange(std::move(*opened));
    return {};
  }
  auto old = open_like(disk, files, old_path, old_format, Access::kReadOnly);
  if (!old) {
    log::error("disk '{}': cannot be opened again: {}; its requests fail from now on", old_path, old.error().message);
    return fail("{}; and the disk is lost until the machine starts anew: {}", opened.error().message,
                old.error().message);
  }
  (void)disk.exchange(std::move(*old));
  return std::unexpected(std::move(opened).error());
}

}  // namespace bulkhead::block
