// Jobs on a disk that a guest works on, on files in memory whose changes are recorded: what the guest wrote is there
// afterwards, and after a power cut at any moment.
#include "block/job/jobs.h"

#include "block/testing/jobs_fixture.h"

namespace bulkhead::block {
namespace {

TEST_F(Jobs, AMirrorMovesARunningDiskBetweenFormats) {
  begin("raw");
  unsigned number = 0;
  std::string path;
  for (const char* const format : {"qcow2", "vhdx", "vmdk", "raw", "vhd", "qcow2"}) {
    path = fmt::format("/m/moved{}", ++number);
    // A VHD's size is what its geometry can say.
    if (std::string_view(format) == "vhd") continue;
    expect_done(MirrorJob(*disk_, files(), {path, format}, kSpeed, kSmallSteps));
  }
  expect_kept(path, "qcow2");
}

TEST_F(Jobs, AMirrorSurvivesPowerCuts) {
  for (const auto& [from, to] : {std::pair("raw", "qcow2"), std::pair("qcow2", "vhdx"), std::pair("vmdk", "raw")}) {
    SCOPED_TRACE(fmt::format("{} to {}", from, to));
    close();
    folder_.remove("/m/base");
    folder_.remove("/m/target");
    moves_.clear();
    begin(from, 7);
    expect_done(MirrorJob(*disk_, files(), {"/m/target", to}, kSpeed, kSmallSteps));
    expect_to_survive_power_cuts(kCuts);
  }
}

TEST_F(Jobs, AMirrorThatIsCancelledLeavesNothing) {
  begin("qcow2");
  MirrorJob job(*disk_, files(), {"/m/target", "raw"}, 1, kSmallSteps);
  job.start();
  job.pause();
  EXPECT_EQ(job.progress().state, Job::State::kPaused);
  guest_->work(20);
  job.cancel();
  job.wait();
  EXPECT_EQ(job.progress().state, Job::State::kCancelled);
  EXPECT_FALSE(folder_.has("/m/target"));
  guest_->work(20);
  expect_kept("/m/base", "qcow2");
}

TEST_F(Jobs, ATargetThatIsThereOrCannotBeOpenedLeavesTheDiskAlone) {
  begin("qcow2");
  for (const char* const path : {"/m/base", "/m/target"}) {
    auto refusing = files();
    refusing->unopenable = "/m/target";
    MirrorJob job(*disk_, std::move(refusing), {path, "raw"}, 0);
    const Job::Progress progress = run(job);
    EXPECT_EQ(progress.state, Job::State::kFailed);
    EXPECT_NE(progress.message.find(path), std::string::npos);
  }
  EXPECT_FALSE(folder_.has("/m/target"));
  auto refusing = files();
  refusing->unopenable = "/m/target";
  SnapshotJob job(*disk_, std::move(refusing), {"/m/target", "qcow2"});
  EXPECT_EQ(run(job).message, "open '/m/target': refused");
  EXPECT_FALSE(folder_.has("/m/target"));
  expect_kept("/m/base", "qcow2");
}

TEST_F(Jobs, ASnapshotTakesWhatIsWrittenFromThenOn) {
  for (const char* const format : {"qcow2", "vhdx", "vmdk"}) {
    SCOPED_TRACE(format);
    begin_anew(format);
    std::vector<uint8_t> before(kSectors * kSector), after(kSectors * kSector);
    ASSERT_EQ(read_now(*disk_, 0, before), Status::kOk);
    SnapshotJob job(*disk_, files(), {"/m/top", format});
    job.start();
    job.wait();
    ASSERT_EQ(job.progress().state, Job::State::kDone) << job.progress().message;
    guest_->work(40);
    expect_kept("/m/top", format);
    ASSERT_EQ(open_in(folder_, "/m/base", format, Access::kReadOnly).value()->read(0, after), Status::kOk);
    EXPECT_EQ(before, after);
  }
}

TEST_F(Jobs, SnapshotsSurvivePowerCuts) {
  begin("raw", 3);
  snapshot("/m/one", "qcow2");
  snapshot("/m/two", "qcow2");
  expect_to_survive_power_cuts(kCuts);
}

TEST_F(Jobs, ACommitGoesOnInTheBackingFile) {
  begin("raw");
  snapshot("/m/top", "qcow2");
  expect_done(CommitJob(*disk_, files(), kSpeed, kSmallSteps));
  expect_kept("/m/base", "raw");
}

TEST_F(Jobs, ACommitSurvivesPowerCuts) {
  for (const auto& [format, top] :
       {std::pair("raw", "qcow2"), std::pair("qcow2", "qcow2"), std::pair("vhdx", "vhdx"), std::pair("vmdk", "vmdk")}) {
    SCOPED_TRACE(format);
    begin_anew(format, 11);
    snapshot("/m/top", top);
    expect_done(CommitJob(*disk_, files(), kSpeed, kSmallSteps));
    expect_to_survive_power_cuts(kCuts);
  }
}

TEST_F(Jobs, ACommitThatIsCancelledLeavesTheOverlay) {
  for (const char* const format : {"qcow2", "vhdx", "vmdk"}) {
    SCOPED_TRACE(format);
    begin_anew(format);
    snapshot("/m/top", format);
    CommitJob job(*disk_, files(), 1, kSmallSteps);
    job.start();
    // Until it has written something.
    while (job.progress().done_bytes == 0 && job.progress().state == Job::State::kRunning) guest_->work(1);
    job.cancel();
    job.wait();
    EXPECT_EQ(job.progress().state, Job::State::kCancelled) << job.progress().message;
    guest_->work(20);
    expect_kept("/m/top", format);
  }
}

TEST_F(Jobs, FlatteningNeedsNoBackingFileAnyMore) {
  begin("raw");
  snapshot("/m/top", "qcow2");
  expect_done(RebaseJob(*disk_, files(), {}, Care::kCopied, kSpeed));
  folder_.remove("/m/base");
  expect_kept("/m/top", "qcow2");
}

TEST_F(Jobs, FlatteningSurvivesPowerCuts) {
  begin("raw", 13);
  snapshot("/m/top", "qcow2");
  expect_done(RebaseJob(*disk_, files(), {}, Care::kCopied, kSpeed));
  expect_to_survive_power_cuts(kCuts);
}

TEST_F(Jobs, RebasingKeepsWhatTheDiskShowsOnAnotherFile) {
  for (const bool same : {false, true}) {
    begin_anew("raw");
    folder_.remove("/m/other");
    snapshot("/m/top", "qcow2");
    // A shorter one with other contents, or a copy.
    std::vector<uint8_t> bytes(same ? kSectors * kSector : 600 * kSector, 0x77);
    if (same) {
      ASSERT_EQ(open_in(folder_, "/m/base", "raw", Access::kReadOnly).value()->read(0, bytes), Status::kOk);
    }
    const auto others = files();
    ASSERT_TRUE(others->create("/m/other", "qcow2", {.size = bytes.size()}));
    others->keep();
    {
      const auto other = others->open_image("/m/other", "qcow2").value();
      ASSERT_EQ(other->write(0, bytes), Status::kOk);
    }
    RebaseJob job(*disk_, files(), {"/m/other", "qcow2"}, same ? Care::kVouched : Care::kCopied, kSpeed);
    EXPECT_EQ(run(job).message, "the backing file of '/m/top' is now '/m/other', format=qcow2");
    folder_.remove("/m/base");
    expect_kept("/m/top", "qcow2");
  }
}

TEST_F(Jobs, RebasingSurvivesPowerCuts) {
  begin("raw", 17);
  const auto others = files();
  ASSERT_TRUE(others->create("/m/other", "raw", {.size = kSectors * kSector}));
  others->keep();
  snapshot("/m/top", "qcow2");
  expect_done(RebaseJob(*disk_, files(), {"/m/other", "raw"}, Care::kCopied, kSpeed));
  expect_to_survive_power_cuts(kCuts);
}

TEST_F(Jobs, ABackingFileThatCannotBeChangedIsRefusedBeforeAnythingIsCopied) {
  for (const char* const format : {"vhdx", "vmdk"}) {
    begin_anew(format);
    snapshot("/m/top", format);
    RebaseJob rebase(*disk_, files(), {"/m/other", "raw"}, Care::kCopied, 0);
    const Job::Progress progress = run(rebase);
    EXPECT_EQ(progress.state, Job::State::kFailed);
    EXPECT_NE(progress.message.find("image's backing file must be a V"), std::string::npos) << progress.message;
    EXPECT_EQ(progress.done_bytes, 0u);
  }
}

TEST_F(Jobs, OverlaysOfEveryFormatStandAloneOnceTheyAreFlattened) {
  for (const char* const format : {"vhd", "vhdx", "vmdk"}) {
    begin_anew(format);
    snapshot("/m/top", format);
    expect_done(RebaseJob(*disk_, files(), {}, Care::kCopied, kSpeed));
    folder_.remove("/m/base");
    expect_kept("/m/top", format);
  }
}

TEST_F(Jobs, WithoutABackingFileThereIsNothingToCommitOrFlatten) {
  begin("qcow2");
  CommitJob commit(*disk_, files(), 0);
  EXPECT_EQ(run(commit).message, "'/m/base' has no backing file");
  RebaseJob flatten(*disk_, files(), {}, Care::kCopied, 0);
  EXPECT_EQ(run(flatten).message, "'/m/base' has no backing file");
}

TEST_F(Jobs, AMirrorClearsADiskThatWasThereAsItGoes) {
  begin("qcow2");
  folder_.serve("/m/served", kSectors * kSector);
  {
    MirrorJob job(*disk_, files(), {"/m/served", "raw"}, 1, kSmallSteps);
    job.start();
    while (job.progress().done_bytes == 0 && job.progress().state == Job::State::kRunning) std::this_thread::yield();
    job.cancel();
    job.wait();
    EXPECT_EQ(job.progress().state, Job::State::kCancelled) << job.progress().message;
  }
  std::vector<uint8_t> all(kSectors * kSector);
  ASSERT_EQ(open_in(folder_, "/m/served", "raw", Access::kReadOnly).value()->read(0, all), Status::kOk);
  EXPECT_EQ(all.back(), 0xEE);
  expect_done(MirrorJob(*disk_, files(), {"/m/served", "raw"}, kSpeed, kSmallSteps));
  expect_kept("/m/served", "raw");
}

TEST_F(Jobs, AMirrorThatSlowsTheGuestDownCanBePaused) {
  begin("raw");
  MirrorJob job(*disk_, files(), {"/m/target", "raw"}, kSpeed, {.piece_bytes = 65536, .last_bytes = 0});
  std::atomic<bool> asked{false}, paused{false};
  folder_.before_write = [&] {
    if (job.progress().message.find("slowed down") == std::string::npos || asked.exchange(true)) return;
    job.pause();
    paused = true;
  };
  job.start();
  for (unsigned steps = 0; !paused.load() && steps < kEndless; ++steps) guest_->work(1);
  guest_->work(50);
  EXPECT_EQ(job.progress().state, Job::State::kPaused);
  job.resume();
  EXPECT_EQ(run_begun(job).state, Job::State::kDone) << job.progress().message;
  expect_kept("/m/target", "raw");
}

TEST_F(Jobs, ADiskGrowsUnderItsGuest) {
  for (const char* const format : {"raw", "qcow2", "vhdx", "vmdk", "vhd"}) {
    SCOPED_TRACE(format);
    begin_anew(format);
    const uint64_t before = disk_->geometry().size, after = 40 * before;
    unsigned told = 0;
    const Geometry& old = disk_->geometry();
    expect_done(ResizeJob(*disk_, after, [&] {
      ++told;
      EXPECT_EQ(disk_->geometry().size, after);
    }));
    EXPECT_EQ(told, 1u);
    EXPECT_EQ(old.size, before);
    std::vector<uint8_t> bytes(kSector, 9), found(2 * kSector, 9);
    ASSERT_EQ(read_now(*disk_, before, found), Status::kOk);
    EXPECT_EQ(found, std::vector<uint8_t>(2 * kSector));
    const auto status = std::make_shared<std::promise<Status>>();
    disk_->submit(
        Request::write(after - kSector, {MutableByteSpan(bytes)}, [status](Status done) { status->set_value(done); }));
    EXPECT_EQ(status->get_future().get(), Status::kOk);
    ASSERT_EQ(read_now(*disk_, after - 2 * kSector, found), Status::kOk);
    EXPECT_TRUE(std::ranges::equal(MutableByteSpan(found).last(kSector), bytes));
    expect_kept("/m/base", format);
    EXPECT_EQ(open_in(folder_, "/m/base", format, Access::kReadOnly).value()->geometry().size, after);
  }
}

TEST_F(Jobs, GrowingSurvivesPowerCuts) {
  for (const char* const format : {"qcow2", "vhdx", "vmdk", "vhd"}) {
    SCOPED_TRACE(format);
    begin_anew(format, 19);
    // So far that tables of all formats have to move.
    expect_done(ResizeJob(*disk_, 400 * disk_->geometry().size, [] {}));
    expect_to_survive_power_cuts(kCuts);
  }
}

TEST_F(Jobs, ADiskThatCannotHaveTheSizeStaysAsItIs) {
  begin("qcow2");
  const uint64_t size = disk_->geometry().size;
  const auto refused = [&](uint64_t new_size) {
    ResizeJob job(*disk_, new_size, [] { ADD_FAILURE(); });
    const Job::Progress progress = run(job);
    EXPECT_EQ(progress.state, Job::State::kFailed);
    return progress.message;
  };
  EXPECT_NE(refused(size - 512).find("becomes smaller at rest alone"), std::string::npos);
  EXPECT_NE(refused(size + 511).find("no multiple"), std::string::npos);
  ResizeJob same(*disk_, size, [] { ADD_FAILURE(); });
  EXPECT_EQ(run(same).state, Job::State::kDone);
  expect_kept("/m/base", "qcow2");
}

}  // namespace
}  // namespace bulkhead::block
