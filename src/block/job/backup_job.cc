#include "block/job/backup_job.h"

#include <algorithm>
#include <cstring>

#include "block/format/bitmaps.h"
#include "support/log.h"

namespace bulkhead::block {
namespace {

constexpr uint64_t kGrain = 65536;
constexpr std::chrono::milliseconds kPatience{100};
constexpr std::string_view kPrefix = "backup ";  // a bitmap's name: that, format, and path

bool is_zero(ByteSpan bytes) {
  return bytes.empty() || (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace

BackupState::BackupState(LiveDisk& disk) : disk_(disk) {
  Image* const image = disk_.storage().opened.image;
  Bitmaps* const bitmaps = image != nullptr ? image->bitmaps() : nullptr;
  if (bitmaps == nullptr) return;
  const auto found = bitmaps->list_bitmaps();
  if (!found) return;
  for (const Bitmap& one : *found) {
    const size_t path_at = one.name.find(' ', kPrefix.size()) + 1;
    if (!one.name.starts_with(kPrefix) || path_at == 0) continue;
    if (!one.known || !one.automatic) {
      lost_ = one.name.substr(path_at);
      continue;
    }
    auto changed = std::make_unique<ChangedBlocks>(disk_.geometry().size);
    if (!bitmaps->each_changed(one.name, [&](uint64_t offset, uint64_t size) { changed->add(offset, size); })) continue;
    last_ = {one.name.substr(path_at), one.name.substr(kPrefix.size(), path_at - 1 - kPrefix.size())};
    changed_ = std::move(changed);
  }
  if (changed_) disk_.watch(*changed_);
}

BackupState::~BackupState() {
  if (!changed_) return;
  {
    const auto fence = disk_.fence_all();
    if (auto kept = keep(); !kept) {
      log::warning("disk '{}': what has changed since the backup '{}' is not kept: {}", disk_.storage().path,
                   last_.path, kept.error().message);
    }
  }
  disk_.unwatch(*changed_);
}

// In the image in which the disk lies now, which has noted what was written since it was opened and no more.
Result<> BackupState::keep() {
  Image* const image = disk_.storage().opened.image;
  Bitmaps* const bitmaps = image != nullptr ? image->bitmaps() : nullptr;
  if (bitmaps == nullptr) return {};
  const std::string name = fmt::format("{}{} {}", kPrefix, last_.format, last_.path);
  bool there = false;
  for (const Bitmap& one : TRY(bitmaps->list_bitmaps())) {
    if (!one.name.starts_with(kPrefix)) continue;
    if (one.name == name && one.known && one.automatic) {
      there = true;
    } else {
      TRY(bitmaps->remove_bitmap(one.name));
    }
  }
  if (!there) TRY(bitmaps->add_bitmap(name, changed_->block_size()));
  for (uint64_t at = 0;;) {
    const auto run = changed_->find(at, UINT64_MAX);
    if (!run) return {};
    TRY(bitmaps->note_changed(name, run->offset, run->size));
    at = run->offset + run->size;
  }
}

class BackupJob::Turn {
 public:
  explicit Turn(BackupJob& job) : job_(job) {
    const LockGuard lock(job_.mutex_);
    while (job_.turn_taken_) job_.turn_ended_.wait(job_.mutex_);
    job_.turn_taken_ = true;
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() {
    const LockGuard lock(job_.mutex_);
    job_.turn_taken_ = false;
    job_.turn_ended_.notify_all();
  }

 private:
  BackupJob& job_;
};

BackupJob::BackupJob(LiveDisk& disk, std::unique_ptr<DiskFiles> files, BackupState& state, JobTarget target, What what,
                     uint64_t speed, uint64_t piece_bytes)
    : Job("backup", speed),
      disk_(disk),
      files_(std::move(files)),
      state_(state),
      target_(std::move(target)),
      what_(what),
      piece_bytes_(piece_bytes),
      to_copy_(disk.geometry().size),
      in_storage_(disk.geometry().size),
      since_(std::make_unique<ChangedBlocks>(disk.geometry().size)),
      set_aside_(disk.geometry().size),
      piece_(std::max(piece_bytes, to_copy_.block_size())),
      aside_piece_(to_copy_.block_size()) {}

Result<> BackupJob::make_target(DiskFiles& files) {
  CreateOptions options{.size = disk_.geometry().size};
  if (what_ == What::kChanged) {
    if (!state_.changed_ && !state_.lost_.empty()) {
      return fail(
          "what has changed since the backup '{}' is not known, because the disk's image was not closed; make one of "
          "all",
          state_.lost_);
    }
    if (!state_.changed_) return fail("there is no earlier backup that is known; make one of all");
    const JobTarget& last = state_.last_;
    options.backing_name = TRY(name_from(target_.path, last.path));
    options.backing_format = last.format;
    // An image may have named it, and whoever made the image: no link is followed, and nothing is written.
    options.backing_identity =
        TRY(files.open_backing_of(target_.path, options.backing_name, last.format))->info().identity;
  }
  return files.create(target_.path, target_.format, options);
}

Result<std::string> BackupJob::work() {
  // What it made and does not keep is gone when this returns.
  const auto files = std::move(files_);
  auto result = back_up(*files);
  aside_ = {};
  return result;
}

Result<std::string> BackupJob::back_up(DiskFiles& files) {
  TRY(make_target(files));
  auto to = TRY(files.open_image(target_.path, target_.format));
  TRY(check_same_shape(disk_.geometry(), to->geometry(), target_.path));
  aside_ = TRY(files.open_scratch(disk_.storage().path));
  {
    // The moment that the backup is of.
    const auto fence = disk_.fence_all();
    if (what_ == What::kAll) {
      to_copy_.add_all();
    } else {
      to_copy_.add_those_of(*state_.changed_);
    }
    in_storage_.add_those_of(to_copy_);
    disk_.watch(*since_);
    disk_.protect(&in_storage_);
  }
  set_total(to_copy_.bytes());
  Result<bool> copied = false;
  {
    const Thread aside("disk-aside", [this] { set_aside_what_is_written(); });
    copied = copy(*to);
    const LockGuard lock(mutex_);
    ended_ = true;
  }
  disk_.protect(nullptr);
  {
    // It may have come while the last piece was read, which is then of another moment.
    const LockGuard lock(mutex_);
    if (copied && *copied && aside_error_) copied = std::unexpected(*aside_error_);
  }
  if (copied && *copied) {
    const Status flushed = to->flush();
    if (flushed != Status::kOk) copied = fail("flush '{}': {}", target_.path, to_string(flushed));
  }
  if (!copied || !*copied) {
    disk_.unwatch(*since_);
    if (!copied) return std::unexpected(std::move(copied).error());
    return "";
  }
  files.keep();
  if (state_.changed_) disk_.unwatch(*state_.changed_);
  state_.changed_ = std::move(since_);
  state_.last_ = target_;
  return fmt::format("the backup is '{}', format={}", target_.path, target_.format);
}

Result<bool> BackupJob::copy(Image& to) {
  while (const auto run = to_copy_.take(0, piece_bytes_)) {
    const MutableByteSpan piece = MutableByteSpan(piece_).first(run->size);
    TRY(fetch(run->offset, piece));
    for (uint64_t at = 0; at < run->size; at += kGrain) {
      const ByteSpan grain = piece.subspan(at, std::min(kGrain, run->size - at));
      const bool zero = is_zero(grain);
      if (zero && what_ == What::kAll && to.starts_as_zeroes()) continue;
      TRY(check_status(
          zero ? to.write_zeroes(run->offset + at, grain.size(), Unmap::kYes) : to.write(run->offset + at, grain),
          "write the target", run->offset + at));
    }
    if (!go_on(run->size)) return false;
  }
  return true;
}

Result<> BackupJob::fetch(uint64_t offset, MutableByteSpan bytes) {
  {
    const Turn turn(*this);
    {
      const LockGuard lock(mutex_);
      if (aside_error_) return std::unexpected(*aside_error_);
    }
    const uint64_t block = in_storage_.block_size();
    enum class Place { kStorage, kAside, kNowhere };
    const auto place_of = [&](uint64_t at) {
      if (in_storage_.any(offset + at, 1)) return Place::kStorage;
      return set_aside_.any(offset + at, 1) ? Place::kAside : Place::kNowhere;
    };
    for (uint64_t at = 0; at < bytes.size();) {
      const Place place = place_of(at);
      uint64_t end = at + block;
      while (end < bytes.size() && place_of(end) == place) end += block;
      const MutableByteSpan part = bytes.subspan(at, std::min<uint64_t>(end, bytes.size()) - at);
      if (place == Place::kNowhere) std::ranges::fill(part, uint8_t{0});
      if (place == Place::kStorage) {
        TRY(check_status(read_now(*disk_.storage().opened.disk, offset + at, part), "read", offset + at));
      }
      if (place == Place::kAside) {
        TRY(check_status(aside_.store->read(offset + at, part), "read what was set aside", offset + at));
        if (aside_.store->punch(offset + at, part.size()) == Status::kOk) aside_bytes_ -= part.size();
      }
      at = end;
    }
    in_storage_.remove(offset, bytes.size());
  }
  disk_.release_unprotected();
  return {};
}

void BackupJob::set_aside_what_is_written() {
  for (;;) {
    const auto write = disk_.next_protected(kPatience);
    if (write) {
      if (auto done = set_aside(write->offset, write->size); !done) {
        {
          const LockGuard lock(mutex_);
          aside_error_ = std::move(done).error();
        }
        // The backup is lost, and not the guest's write.
        disk_.protect(nullptr);
      }
      disk_.release_unprotected();
    }
    const LockGuard lock(mutex_);
    if (ended_ || aside_error_) return;
  }
}

Result<uint64_t> BackupJob::zeroes_at(uint64_t offset) {
  Image* const image = disk_.storage().opened.image;
  if (image == nullptr) return 0;
  const Extent extent = TRY(image->map(offset));
  const bool zero =
      extent.kind == ExtentKind::kZero || (extent.kind == ExtentKind::kAbsent && image->backing() == nullptr);
  return zero ? extent.size : 0;
}

Result<> BackupJob::set_aside_block(uint64_t offset, MutableByteSpan bytes) {
  TRY(check_status(read_now(*disk_.storage().opened.disk, offset, bytes), "read", offset));
  if (is_zero(bytes)) return {};
  if (aside_bytes_ + bytes.size() > aside_.most_bytes) {
    return fail("set aside at byte {}: the guest overwrites too much, {} bytes at most may be kept beside '{}'", offset,
                aside_.most_bytes, disk_.storage().path);
  }
  aside_bytes_ += bytes.size();
  TRY(check_status(aside_.store->write(offset, bytes), "set aside", offset));
  set_aside_.add(offset, bytes.size());
  return {};
}

Result<> BackupJob::set_aside(uint64_t offset, uint64_t size) {
  const Turn turn(*this);
  const uint64_t block_size = in_storage_.block_size();
  for (uint64_t at = align_down(offset, block_size); at < offset + size;) {
    if (!in_storage_.any(at, 1)) {
      at += block_size;
      continue;
    }
    const auto block = in_storage_.find(at, 1);
    uint64_t done = align_down(TRY(zeroes_at(at)), block_size);
    if (done == 0) {
      TRY(set_aside_block(at, MutableByteSpan(aside_piece_).first(block->size)));
      done = block->size;
    }
    done = std::min(done, align_up(offset + size, block_size) - at);
    in_storage_.remove(at, done);
    at += done;
  }
  return {};
}

}  // namespace bulkhead::block
