// The jobs that there are, and how each survives a crash: at any moment the disk's files, as the job last said where
// they are, hold everything that the guest was told is safe.
//
//   snapshot   a new overlay takes the guest's writes; what was the disk is its backing file, and is only read from
//   then on mirror     the disk's contents are copied to another file, and when both are equal the disk goes on there
//   backup     (backup_job.h) the disk stays where it is
//   commit     what the overlay holds is written into its backing file, and then the disk goes on there
//   rebase     what shows through from the backing file, and would not from another one, is written into the image,
//   which names that other one afterwards; flatten: none
//   resize     the disk's file grows, and the guest is told
#pragma once

#include "block/job/copy_job.h"

namespace bulkhead::block {

struct JobTarget {
  std::string path, format;
};

// What to call a file from inside an image in another place, which may only name what lies in its own folder or below.
[[nodiscard]] Result<std::string> name_from(const std::string& image, const std::string& named);

class SnapshotJob final : public Job {
 public:
  SnapshotJob(LiveDisk& disk, std::unique_ptr<DiskFiles> files, JobTarget overlay);
  ~SnapshotJob() override { stop(); }

 private:
  Result<std::string> work() override;

  LiveDisk& disk_;
  std::unique_ptr<DiskFiles> files_;
  const JobTarget overlay_;
};

class MirrorJob final : public CopyJob {
 public:
  MirrorJob(LiveDisk& disk, std::unique_ptr<DiskFiles> files, JobTarget target, uint64_t speed, CopySteps steps = {});
  ~MirrorJob() override { stop(); }

 private:
  Result<std::string> copy() override;

  std::unique_ptr<DiskFiles> files_;
  const JobTarget target_;
};

class CommitJob final : public CopyJob {
 public:
  CommitJob(LiveDisk& disk, std::unique_ptr<DiskFiles> files, uint64_t speed, CopySteps steps = {});
  ~CommitJob() override { stop(); }

 private:
  Result<std::string> copy() override;
  Result<std::string> copy_to(const JobTarget& base);
  Result<> open_with_backing(Access access);

  const std::unique_ptr<DiskFiles> files_;
};

class RebaseJob final : public Job {
 public:
  // kVouched: the user knows that the other file shows the same, and nothing is compared or copied.
  enum class Care : uint8_t { kCopied, kVouched };
  // Without a path, on no backing file: kCopied.
  RebaseJob(LiveDisk& disk, std::unique_ptr<DiskFiles> files, JobTarget base, Care care, uint64_t speed);
  ~RebaseJob() override { stop(); }

 private:
  Result<std::string> work() override;
  // False when the job is cancelled. A null base shows zeroes.
  Result<bool> copy(Image& image, Image* base);
  Result<> fill(Image& image, Image* base, uint64_t offset, uint64_t size);

  LiveDisk& disk_;
  const std::unique_ptr<DiskFiles> files_;
  const JobTarget base_;
  const Care care_;
  std::vector<uint8_t> bytes_, other_;
};

// A running disk only becomes larger: what a guest has on the part that goes is its own to move.
class ResizeJob final : public Job {
 public:
  // When the disk has grown, on the job's thread.
  using Listener = std::function<void()>;
  ResizeJob(LiveDisk& disk, uint64_t new_size, Listener on_grown);
  ~ResizeJob() override { stop(); }

 private:
  Result<std::string> work() override;

  LiveDisk& disk_;
  const uint64_t new_size_;
  const Listener on_grown_;
};

}  // namespace bulkhead::block
