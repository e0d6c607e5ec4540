// Copies a disk as it was at one moment to a new file, while a guest goes on writing to it. What the guest is about to
// overwrite is first set aside in a local file, so that the guest never waits for the target: a write waits at most
// until the old data has been read and set aside, and a discard is left out. What is zero needs no place there, and
// what needs too much of it ends the backup, not the guest. After a first backup the next ones can be of what has
// changed since: they stand on the one before as their backing file.
#pragma once

#include <optional>

#include "block/job/jobs.h"

namespace bulkhead::block {

// What is known of a disk's last backup; lives as long as the disk does. In between, the disk's image keeps it, where
// its format has bitmaps: one whose name says which backup it is of.
class BackupState {
 public:
  // Before anybody submits requests.
  explicit BackupState(LiveDisk& disk);
  ~BackupState();

 private:
  friend class BackupJob;
  Result<> keep();

  LiveDisk& disk_;
  JobTarget last_;                          // of which this is true:
  std::unique_ptr<ChangedBlocks> changed_;  // what has been written since; null: there is none
  std::string lost_;                        // the backup of which it is no longer known, after a crash
};

class BackupJob final : public Job {
 public:
  enum class What : uint8_t { kAll, kChanged };
  BackupJob(LiveDisk& disk, std::unique_ptr<DiskFiles> files, BackupState& state, JobTarget target, What what,
            uint64_t speed, uint64_t piece_bytes = uint64_t{1} << 20);
  ~BackupJob() override { stop(); }

 private:
  Result<std::string> work() override;
  Result<std::string> back_up(DiskFiles& files);
  Result<> make_target(DiskFiles& files);
  Result<bool> copy(Image& to);
  // The old contents, wherever they are by now; the guest may write there afterwards.
  Result<> fetch(uint64_t offset, MutableByteSpan bytes);
  void set_aside_what_is_written();
  Result<> set_aside(uint64_t offset, uint64_t size);
  Result<> set_aside_block(uint64_t offset, MutableByteSpan bytes);
  // How many bytes from there on certainly read as zeroes, by what the storage's image says.
  Result<uint64_t> zeroes_at(uint64_t offset);

  // Old data is moved by one thread at a time.
  class Turn;

  LiveDisk& disk_;
  std::unique_ptr<DiskFiles> files_;
  BackupState& state_;
  const JobTarget target_;
  const What what_;
  const uint64_t piece_bytes_;  // read and written at once
  ChangedBlocks to_copy_;
  ChangedBlocks in_storage_;              // whose old contents are nowhere else
  std::unique_ptr<ChangedBlocks> since_;  // what is written from the moment on
  Scratch aside_;
  ChangedBlocks set_aside_;  // what lies there; old contents that are neither there nor in the storage are zeroes
  uint64_t aside_bytes_ = 0;
  std::vector<uint8_t> piece_, aside_piece_;

  Mutex mutex_;
  ConditionVariable turn_ended_;
  bool turn_taken_ GUARDED_BY(mutex_) = false;
  bool ended_ GUARDED_BY(mutex_) = false;
  std::optional<Error> aside_error_ GUARDED_BY(mutex_);
};

}  // namespace bulkhead::block
