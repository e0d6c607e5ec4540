#include "block/job/backup_job.h"

#include "block/testing/jobs_fixture.h"

namespace bulkhead::block {
namespace {

// A byte a second, until the test says otherwise: nothing of the disk has been copied when the guest writes.
class SlowBackup {
 public:
  SlowBackup(LiveDisk& disk, std::unique_ptr<FolderFiles> files, BackupState& state)
      : job_(disk, std::move(files), state, {"/m/target", "qcow2"}, BackupJob::What::kAll, 1, 65536) {
    job_.start();
    while (job_.progress().total_bytes == 0 && job_.progress().state == Job::State::kRunning) {
      std::this_thread::yield();
    }
  }
  Job::Progress finish() {
    job_.set_speed(0);
    job_.wait();
    return job_.progress();
  }

 private:
  BackupJob job_;
};

TEST_F(Jobs, ABackupIsOfOneMomentWhateverTheGuestWritesMeanwhile) {
  begin("qcow2");
  std::vector<uint8_t> before(kSectors * kSector), after(kSectors * kSector);
  for (const auto& [path, what] :
       {std::pair("/m/one", BackupJob::What::kAll), std::pair("/m/two", BackupJob::What::kChanged),
        std::pair("/m/three", BackupJob::What::kChanged)}) {
    SCOPED_TRACE(path);
    ASSERT_EQ(read_now(*disk_, 0, before), Status::kOk);
    const size_t moves = moves_.size();
    BackupJob job(*disk_, files(), *backups_, {path, "qcow2"}, what, kSpeed, 65536);
    job.start();
    // The moment is when the file is there and the old data protected: nothing is written before.
    while (job.progress().total_bytes == 0 && job.progress().state == Job::State::kRunning) std::this_thread::yield();
    EXPECT_EQ(run_begun(job).state, Job::State::kDone) << job.progress().message;
    EXPECT_EQ(moves_.size(), moves);
    const auto image = open_in(folder_, path, "qcow2", Access::kReadOnly).value();
    ASSERT_EQ(image->read(0, after), Status::kOk);
    EXPECT_TRUE(before == after);
    EXPECT_EQ(image->info().backing_name, path == std::string_view("/m/two")     ? "one"
                                          : path == std::string_view("/m/three") ? "two"
                                                                                 : "");
  }
  expect_kept("/m/base", "qcow2");
}

TEST_F(Jobs, ABackupOfChangesHoldsOnlyThem) {
  begin("raw");
  BackupJob all(*disk_, files(), *backups_, {"/m/all", "qcow2"}, BackupJob::What::kAll, 0);
  all.start();
  all.wait();
  ASSERT_EQ(all.progress().state, Job::State::kDone) << all.progress().message;
  std::vector<uint8_t> bytes(kSector, 7);
  const auto told = std::make_shared<std::promise<Status>>();
  disk_->submit(
      Request::write(5 * 65536, {MutableByteSpan(bytes)}, [told](Status status) { told->set_value(status); }));
  ASSERT_EQ(told->get_future().get(), Status::kOk);
  BackupJob some(*disk_, files(), *backups_, {"/m/some", "qcow2"}, BackupJob::What::kChanged, 0);
  some.start();
  some.wait();
  ASSERT_EQ(some.progress().state, Job::State::kDone) << some.progress().message;
  EXPECT_EQ(some.progress().total_bytes, 65536u);
  const auto image = open_in(folder_, "/m/some", "qcow2", Access::kReadOnly).value();
  EXPECT_EQ(image->map(0)->kind, ExtentKind::kAbsent);
  EXPECT_EQ(image->map(0)->size, 5 * 65536u);
  EXPECT_EQ(image->map(5 * 65536)->kind, ExtentKind::kData);
}

TEST_F(Jobs, ABackupThatFailsOrIsCancelledForgetsNoChange) {
  begin("raw");
  BackupJob early(*disk_, files(), *backups_, {"/m/early", "qcow2"}, BackupJob::What::kChanged, 0);
  EXPECT_NE(run(early).message.find("no earlier backup"), std::string::npos);
  BackupJob all(*disk_, files(), *backups_, {"/m/all", "qcow2"}, BackupJob::What::kAll, 0);
  EXPECT_EQ(run(all).state, Job::State::kDone);
  BackupJob cancelled(*disk_, files(), *backups_, {"/m/cancelled", "qcow2"}, BackupJob::What::kChanged, 1, 65536);
  cancelled.start();
  guest_->work(40);
  cancelled.cancel();
  cancelled.wait();
  EXPECT_EQ(cancelled.progress().state, Job::State::kCancelled);
  EXPECT_FALSE(folder_.has("/m/cancelled"));
  guest_->work(40);
  BackupJob some(*disk_, files(), *backups_, {"/m/some", "qcow2"}, BackupJob::What::kChanged, 0);
  some.start();
  some.wait();
  EXPECT_EQ(some.progress().state, Job::State::kDone) << some.progress().message;
  guest_->expect_contents(*open_in(folder_, "/m/some", "qcow2", Access::kReadOnly).value());
}

TEST_F(Jobs, AGuestDoesNotWaitForTheTargetOfABackup) {
  begin("raw");
  // A byte a second: the target takes days.
  BackupJob job(*disk_, files(), *backups_, {"/m/slow", "qcow2"}, BackupJob::What::kAll, 1, 65536);
  job.start();
  while (job.progress().total_bytes == 0) std::this_thread::yield();
  guest_->work(200);
  EXPECT_EQ(job.progress().state, Job::State::kRunning);
  job.set_speed(0);
  job.wait();
  EXPECT_EQ(job.progress().state, Job::State::kDone) << job.progress().message;
  expect_kept("/m/base", "raw");
}

TEST_F(Jobs, WhatIsZeroOrDiscardedNeedsNoPlaceBesideTheDisk) {
  for (const char* const format : {"raw", "qcow2", "vhdx"}) {
    SCOPED_TRACE(format);
    begin_anew(format);
    folder_.remove("/m/target");
    const uint64_t half = align_down(kSectors * kSector / 2, 65536), rest = kSectors * kSector - half;
    ASSERT_EQ(
        answer_of(*disk_, [&](auto done) { return Request::write_zeroes(0, half, Unmap::kYes, std::move(done)); }),
        Status::kOk);
    std::vector<uint8_t> before(kSectors * kSector), after(before.size()), bytes(half, 0x5A);
    ASSERT_EQ(read_now(*disk_, 0, before), Status::kOk);
    auto small = files();
    small->scratch_most = 0;
    SlowBackup backup(*disk_, std::move(small), *backups_);
    ASSERT_EQ(answer_of(*disk_, [&](auto done) { return Request::discard(half, rest, std::move(done)); }), Status::kOk);
    ASSERT_EQ(
        answer_of(*disk_, [&](auto done) { return Request::write(0, {MutableByteSpan(bytes)}, std::move(done)); }),
        Status::kOk);
    const Job::Progress progress = backup.finish();
    ASSERT_EQ(progress.state, Job::State::kDone) << progress.message;
    ASSERT_EQ(open_in(folder_, "/m/target", "qcow2", Access::kReadOnly).value()->read(0, after), Status::kOk);
    EXPECT_TRUE(before == after);
  }
}

TEST_F(Jobs, ABackupTakesNoMoreOfTheHostsDiskThanItMay) {
  begin("raw");
  auto small = files();
  small->scratch_most = 65536;
  SlowBackup backup(*disk_, std::move(small), *backups_);
  guest_->work(200);
  const Job::Progress progress = backup.finish();
  EXPECT_EQ(progress.state, Job::State::kFailed);
  EXPECT_NE(progress.message.find("65536 bytes at most"), std::string::npos) << progress.message;
  expect_kept("/m/base", "raw");
}

TEST_F(Jobs, ABackupOfChangesDoesNotWriteTheOneBefore) {
  begin("qcow2");
  BackupJob all(*disk_, files(), *backups_, {"/m/all", "qcow2"}, BackupJob::What::kAll, 0);
  ASSERT_EQ(run(all).state, Job::State::kDone);
  auto careful = files();
  careful->unfillable = "/m/all";
  BackupJob some(*disk_, std::move(careful), *backups_, {"/m/some", "qcow2"}, BackupJob::What::kChanged, 0);
  EXPECT_EQ(run(some).state, Job::State::kDone) << some.progress().message;
}

TEST_F(Jobs, WhatCannotBeSetAsideFailsTheBackupAndNotTheGuest) {
  begin("raw");
  auto full = files();
  full->scratch_limit = 65536;
  BackupJob job(*disk_, std::move(full), *backups_, {"/m/target", "qcow2"}, BackupJob::What::kAll, 65536, 65536);
  job.start();
  while (job.progress().total_bytes == 0) std::this_thread::yield();
  guest_->work(200);
  job.set_speed(0);
  job.wait();
  EXPECT_EQ(job.progress().state, Job::State::kFailed);
  EXPECT_NE(job.progress().message.find("set aside"), std::string::npos) << job.progress().message;
  EXPECT_FALSE(folder_.has("/m/target"));
  expect_kept("/m/base", "raw");
}

TEST_F(Jobs, ABackupOfChangesKnowsADiskThatGrew) {
  begin("raw");
  BackupJob all(*disk_, files(), *backups_, {"/m/all", "qcow2"}, BackupJob::What::kAll, 0);
  EXPECT_EQ(run(all).state, Job::State::kDone);
  expect_done(ResizeJob(*disk_, 2 * disk_->geometry().size, [] {}));
  BackupJob some(*disk_, files(), *backups_, {"/m/some", "qcow2"}, BackupJob::What::kChanged, 0);
  some.start();
  some.wait();
  ASSERT_EQ(some.progress().state, Job::State::kDone) << some.progress().message;
  const auto image = open_in(folder_, "/m/some", "qcow2", Access::kReadOnly).value();
  EXPECT_EQ(image->geometry().size, disk_->geometry().size);
  guest_->expect_contents(*image);
}

}  // namespace
}  // namespace bulkhead::block
