#include "block/job/jobs.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "block/format/named_file.h"
#include "support/log.h"

namespace bulkhead::block {
namespace {

constexpr uint64_t kPiece = uint64_t{1} << 20, kGrain = 65536;

bool is_zero(ByteSpan bytes) {
  return bytes.empty() || (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

// The bytes of a backing file as they show through a disk that may be longer.
Status read_below(Image* base, uint64_t offset, MutableByteSpan bytes) {
  const uint64_t size = base != nullptr ? base->geometry().size : 0;
  const uint64_t there = offset < size ? std::min<uint64_t>(bytes.size(), size - offset) : 0;
  std::ranges::fill(bytes.subspan(there), uint8_t{0});
  return there == 0 ? Status::kOk : base->read(offset, bytes.first(there));
}

std::string moved_to(const LiveDisk& disk) {
  const Storage& storage = disk.storage();
  return fmt::format("the disk is now '{}', format={}", storage.path, storage.format);
}

// Before a write of the guest lands there: whoever starts the machine after a crash must find this.
void tell_of_move(const LiveDisk& disk, const std::string& from) {
  log::info("disk '{}': {}", from, moved_to(disk));
}

}  // namespace

Result<std::string> name_from(const std::string& image, const std::string& named) {
  std::error_code error;
  const auto folder = std::filesystem::weakly_canonical(folder_of(image), error);
  const auto name = std::filesystem::weakly_canonical(named, error).lexically_relative(folder).string();
  if (!error && !name.empty() && !name.starts_with("..")) return name;
  return fail("'{}' does not lie in the folder of '{}' or below, so that it could not be its backing file", named,
              image);
}

SnapshotJob::SnapshotJob(LiveDisk& disk, std::unique_ptr<DiskFiles> files, JobTarget overlay)
    : Job("snapshot"), disk_(disk), files_(std::move(files)), overlay_(std::move(overlay)) {}

Result<std::string> SnapshotJob::work() {
  // What it made and does not keep is gone when this returns.
  const auto files = std::move(files_);
  CreateOptions options{.size = disk_.geometry().size};
  // Most of what is not safe yet is made so before the guest waits.
  TRY(check_status(flush_now(*disk_.storage().opened.disk), "flush", 0));
  if (!go_on(0)) return "";
  const auto fence = disk_.fence_all();
  if (cancelled()) return "";
  const Storage& base = disk_.storage();
  const std::string from = base.path;
  TRY(check_status(flush_now(*base.opened.disk), "flush", 0));
  options.backing_name = TRY(name_from(overlay_.path, base.path));
  options.backing_format = base.format;
  if (base.opened.image != nullptr) options.backing_identity = base.opened.image->info().identity;
  TRY(files->create(overlay_.path, overlay_.format, options));
  TRY(reopen(disk_, *files, overlay_.path, overlay_.format));
  files->keep();
  tell_of_move(disk_, from);
  return moved_to(disk_);
}

MirrorJob::MirrorJob(LiveDisk& disk, std::unique_ptr<DiskFiles> files, JobTarget target, uint64_t speed,
                     CopySteps steps)
    : CopyJob("mirror", disk, speed, steps), files_(std::move(files)), target_(std::move(target)) {}

Result<std::string> MirrorJob::copy() {
  // What it made and does not keep is gone when this returns.
  const auto files = std::move(files_);
  TRY(files->create(target_.path, target_.format, {.size = disk_.geometry().size}));
  auto to = TRY(files->open_image(target_.path, target_.format));
  TRY(check_same_shape(disk_.geometry(), to->geometry(), target_.path));
  // Closed when the guest has gone on.
  Storage old;
  Fence fence;
  if (!TRY(copy_once(*to, Skip::kZeroes)) || !TRY(catch_up(*to, fence))) return "";
  if (cancelled()) return "";
  TRY(copy_rest(*to));
  to.reset();
  OpenedDisk opened = TRY(files->open(target_.path, target_.format, Access::kReadOnly, ""));
  TRY(check_same_shape(disk_.geometry(), opened.disk->geometry(), target_.path));
  files->keep();
  old = disk_.exchange({target_.path, target_.format, std::move(opened)});
  tell_of_move(disk_, old.path);
  return moved_to(disk_);
}

CommitJob::CommitJob(LiveDisk& disk, std::unique_ptr<DiskFiles> files, uint64_t speed, CopySteps steps)
    : CopyJob("commit", disk, speed, steps), files_(std::move(files)) {}

Result<> CommitJob::open_with_backing(Access access) {
  const std::string path = disk_.storage().path, format = disk_.storage().format;
  TRY(check_status(flush_now(*disk_.storage().opened.disk), "flush", 0));
  const auto fence = disk_.fence_all();
  TRY(check_status(flush_now(*disk_.storage().opened.disk), "flush", 0));
  return reopen(disk_, *files_, path, format, access);
}

Result<std::string> CommitJob::copy() {
  const Storage& top = disk_.storage();
  if (top.opened.image == nullptr || top.opened.image->backing() == nullptr) {
    return fail("'{}' has no backing file", top.path);
  }
  const ImageInfo info = top.opened.image->info();
  const std::string folder = folder_of(top.path);
  const std::string path = folder + "/" + TRY(name_below(folder, info.backing_name));
  TRY(open_with_backing(Access::kReadWrite));
  auto result = copy_to({path, info.backing_format});
  // The image still shows everything, whatever its backing file holds by now.
  if (disk_.storage().path != path) {
    auto closed = open_with_backing(Access::kReadOnly);
    if (!closed && result) return std::unexpected(std::move(closed).error());
  }
  return result;
}

Result<std::string> CommitJob::copy_to(const JobTarget& base) {
  Image& to = *disk_.storage().opened.image->backing();
  if (to.geometry().size < disk_.geometry().size) {
    const auto fence = disk_.fence_all();
    TRY(to.grow(disk_.geometry().size));
  }
  TRY(check_same_shape(disk_.geometry(), to.geometry(), base.path));
  Fence fence;
  if (!TRY(copy_once(to, Skip::kBacking)) || !TRY(catch_up(to, fence))) return "";
  if (cancelled()) return "";
  TRY(copy_rest(to));
  const std::string from = disk_.storage().path;
  // The image has named it: found as it was when the image was opened, and nowhere else.
  TRY(reopen(disk_, *files_, base.path, base.format, Access::kReadOnly, folder_of(from)));
  tell_of_move(disk_, from);
  return moved_to(disk_);
}

RebaseJob::RebaseJob(LiveDisk& disk, std::unique_ptr<DiskFiles> files, JobTarget base, Care care, uint64_t speed)
    : Job(base.path.empty() ? "flatten" : "rebase", speed),
      disk_(disk),
      files_(std::move(files)),
      base_(std::move(base)),
      care_(base_.path.empty() ? Care::kCopied : care),
      bytes_(kPiece),
      other_(kGrain) {
  set_total(disk.geometry().size);
}

// Nobody writes there meanwhile, or what was read could be older than what is there.
Result<> RebaseJob::fill(Image& image, Image* base, uint64_t offset, uint64_t size) {
  const MutableByteSpan piece = MutableByteSpan(bytes_).first(size);
  const auto fence = disk_.fence(offset, size);
  for (uint64_t at = 0; at < size;) {
    // Looked at again: the guest may have written there since.
    const Extent extent = TRY(image.map(offset + at));
    const uint64_t end = std::min(size, at + extent.size);
    for (; at < end && extent.kind == ExtentKind::kAbsent; at += std::min(kGrain, end - at)) {
      const MutableByteSpan grain = piece.subspan(at, std::min(kGrain, end - at));
      const MutableByteSpan other = MutableByteSpan(other_).first(grain.size());
      TRY(check_status(image.read(offset + at, grain), "read", offset + at));
      TRY(check_status(read_below(base, offset + at, other), "read the other backing file", offset + at));
      if (std::memcmp(grain.data(), other.data(), grain.size()) == 0) continue;
      TRY(check_status(
          is_zero(grain) ? image.write_zeroes(offset + at, grain.size(), Unmap::kYes) : image.write(offset + at, grain),
          "write", offset + at));
    }
    at = end;
  }
  return {};
}

Result<bool> RebaseJob::copy(Image& image, Image* base) {
  for (uint64_t offset = 0; offset < disk_.geometry().size;) {
    const Extent extent = TRY(image.map(offset));
    const bool absent = extent.kind == ExtentKind::kAbsent;
    const uint64_t part = absent ? std::min(kPiece, extent.size) : extent.size;
    if (absent) TRY(fill(image, base, offset, part));
    offset += part;
    if (!absent) add_done(part);
    if (!go_on(absent ? part : 0)) return false;
  }
  return true;
}

Result<std::string> RebaseJob::work() {
  const Storage& storage = disk_.storage();
  Image* const image = storage.opened.image;
  if (image == nullptr || (image->backing() == nullptr && base_.path.empty())) {
    return fail("'{}' has no backing file", storage.path);
  }
  const std::string name = base_.path.empty() ? "" : TRY(name_from(storage.path, base_.path));
  TRY(image->may_set_backing(name, base_.format));
  // Open until the disk stands on it, so that nobody changes it meanwhile.
  const auto base = base_.path.empty() ? nullptr : TRY(files_->open_base(base_.path, base_.format));
  if (care_ == Care::kCopied && !TRY(copy(*image, base.get()))) return "";
  TRY(check_status(flush_now(*storage.opened.disk), "flush", 0));
  const auto fence = disk_.fence_all();
  if (cancelled()) return "";
  TRY(check_status(flush_now(*storage.opened.disk), "flush", 0));
  TRY(image->set_backing(name, base_.format));
  const std::string path = storage.path, format = storage.format;
  TRY(reopen(disk_, *files_, path, format));
  if (name.empty()) return fmt::format("'{}' has no backing file any more", path);
  return fmt::format("the backing file of '{}' is now '{}', format={}", path, base_.path, base_.format);
}

ResizeJob::ResizeJob(LiveDisk& disk, uint64_t new_size, Listener on_grown)
    : Job("resize"), disk_(disk), new_size_(new_size), on_grown_(std::move(on_grown)) {}

Result<std::string> ResizeJob::work() {
  const uint64_t size = disk_.geometry().size;
  const uint32_t sector_size = disk_.geometry().sector_size;
  if (new_size_ < size) {
    return fail("the disk has {} bytes, and becomes smaller at rest alone (bulkhead image resize --shrink)", size);
  }
  if (new_size_ % sector_size != 0) return fail("{} bytes are no multiple of a sector's {}", new_size_, sector_size);
  if (new_size_ == size) return fmt::format("the disk has {} bytes already", size);
  // Most of what is not safe yet is made so before the guest waits.
  TRY(check_status(flush_now(*disk_.storage().opened.disk), "flush", 0));
  const Image* const image = disk_.storage().opened.image;
  const uint64_t step = image == nullptr ? 0 : image->growth_step();
  set_total(new_size_ - size);
  Result<> grown;
  for (uint64_t reached = size; grown && reached < new_size_;) {
    const uint64_t next = step == 0 ? new_size_ : std::min(new_size_, reached + step);
    {
      const auto fence = disk_.fence_all();
      if (cancelled()) break;
      grown = disk_.grow(next);
    }
    if (grown && !go_on(next - std::exchange(reached, next))) break;
  }
  const uint64_t now = disk_.geometry().size;
  if (now != size) on_grown_();
  if (!grown) {
    if (now == size) return std::unexpected(std::move(grown).error());
    return fail("{}; the disk has {} bytes now", grown.error().message, now);
  }
  return fmt::format("the disk has {} bytes now, {} before", now, size);
}

}  // namespace bulkhead::block
