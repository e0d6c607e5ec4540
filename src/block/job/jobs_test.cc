// Jobs on a disk that a guest works on, on files in memory whose changes are recorded: what the guest wrote is there
// afterwards, and after a power cut at any moment.
#include "block/job/jobs.h"

#include <atomic>
#include <cstring>
#include <future>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "block/job/backup_job.h"
#include "block/testing/folder_files.h"

namespace bulkhead::block {
namespace {

using testing::Folder, testing::FolderFiles, testing::kSector, testing::Move, testing::open_in;

using Care = RebaseJob::Care;

constexpr uint64_t kSectors = 1500;
constexpr unsigned kEndless = 50'000;  // steps of a guest: each job needs a few hundred
constexpr CopySteps kSmallSteps{.piece_bytes = 65536, .last_bytes = 65536};

template <typename Make>
Status answer_of(LiveDisk& disk, Make make) {
  const auto told = std::make_shared<std::promise<Status>>();
  disk.submit(make([told](Status status) { told->set_value(status); }));
  return told->get_future().get();
}

// One that remembers what it was told.
class Guest {
 public:
  Guest(Folder& folder, LiveDisk& disk, uint64_t seed) : folder_(folder), disk_(disk), random_(seed) {
    flushes_.push_back({0, 0, contents_});
  }

  void work(unsigned steps) {
    for (; steps != 0; --steps) step();
  }
  void expect_contents(Image& image) const {
    std::vector<uint8_t> bytes(kSectors * kSector);
    ASSERT_EQ(image.read(0, bytes), Status::kOk);
    for (uint64_t s = 0; s < kSectors; ++s) ASSERT_EQ(load<uint32_t>(&bytes[s * kSector]), contents_[s]) << s;
  }
  void expect_contents(Disk& disk) const {
    std::vector<uint8_t> bytes(kSectors * kSector);
    ASSERT_EQ(read_now(disk, 0, bytes), Status::kOk);
    for (uint64_t s = 0; s < kSectors; ++s) ASSERT_EQ(load<uint32_t>(&bytes[s * kSector]), contents_[s]) << s;
  }
  // What is wrong with what a power cut at a time left.
  [[nodiscard]] std::string fault(Image& image, uint64_t time) const {
    const Flush* flushed = &flushes_.front();
    for (const Flush& flush : flushes_) {
      if (flush.ended <= time) flushed = &flush;
    }
    std::vector<uint8_t> bytes(kSectors * kSector);
    if (image.read(0, bytes) != Status::kOk) return "it cannot be read";
    for (uint64_t s = 0; s < kSectors; ++s) {
      const uint8_t* const sector = &bytes[s * kSector];
      const auto found = load<uint32_t>(sector);
      if (std::memcmp(sector, sector + 4, kSector - 4) != 0) return fmt::format("sector {} is torn", s);
      bool known = found == flushed->contents[s];
      for (size_t i = flushed->writes; i < writes_.size() && !known && writes_[i].begun <= time; ++i) {
        const Write& write = writes_[i];
        known = write.tag == found && s >= write.sector && s < write.sector + write.count;
      }
      if (!known) return fmt::format("sector {} holds write {}, flushed was {}", s, found, flushed->contents[s]);
    }
    return "";
  }

 private:
  struct Write {
    uint64_t begun = 0, sector = 0, count = 0;
    uint32_t tag = 0;
  };
  struct Flush {
    uint64_t ended = 0;
    size_t writes = 0;
    std::vector<uint32_t> contents;
  };

  template <typename Make>
  void perform(Make make) {
    ASSERT_EQ(answer_of(disk_, std::move(make)), Status::kOk);
  }

  void step() {
    const uint64_t action = random_() % 10, sector = random_() % kSectors;
    const uint64_t count = 1 + random_() % std::min<uint64_t>(kSectors - sector, random_() % 4 == 0 ? 400 : 20);
    if (action < 2) {
      perform([](auto done) { return Request::flush(std::move(done)); });
      flushes_.push_back({folder_.time(), writes_.size(), contents_});
      return;
    }
    const uint32_t tag = action < 9 ? ++tag_ : 0;
    writes_.push_back({folder_.time(), sector, count, tag});
    if (tag != 0) {
      std::vector<uint8_t> bytes(count * kSector);
      for (uint64_t i = 0; i < bytes.size(); i += 4) store(&bytes[i], tag);
      perform([&](auto done) { return Request::write(sector * kSector, {MutableByteSpan(bytes)}, std::move(done)); });
    } else {
      perform([&](auto done) {
        return Request::write_zeroes(sector * kSector, count * kSector, Unmap::kYes, std::move(done));
      });
    }
    std::fill_n(contents_.begin() + static_cast<ptrdiff_t>(sector), count, tag);
  }

  Folder& folder_;
  LiveDisk& disk_;
  std::mt19937_64 random_;
  uint32_t tag_ = 0;
  std::vector<uint32_t> contents_ = std::vector<uint32_t>(kSectors);
  std::vector<Write> writes_;
  std::vector<Flush> flushes_;
};

// A disk of some format with a guest that has worked on it.
class Jobs : public ::testing::Test {
 protected:
  void begin(const std::string& format, uint64_t seed = 1) {
    files_ = files();
    ASSERT_TRUE(files_->create("/m/base", format, {.size = kSectors * kSector}));
    files_->keep();
    disk_ = std::make_unique<LiveDisk>(
        Storage{"/m/base", format, files_->open("/m/base", format, Access::kReadOnly).value()});
    backups_ = std::make_unique<BackupState>(*disk_);
    guest_ = std::make_unique<Guest>(folder_, *disk_, seed);
    guest_->work(40);
  }
  // After another disk with an overlay.
  void begin_anew(const std::string& format, uint64_t seed = 1) {
    close();
    folder_.remove("/m/base");
    folder_.remove("/m/top");
    moves_.clear();
    begin(format, seed);
  }
  std::unique_ptr<FolderFiles> files() { return std::make_unique<FolderFiles>(folder_, moves_); }
  // The guest goes on working meanwhile, and a little longer.
  Job::Progress run(Job& job) {
    job.start();
    return run_begun(job);
  }
  Job::Progress run_begun(Job& job) {
    unsigned steps = 0;
    while (job.progress().state == Job::State::kRunning && ++steps < kEndless) guest_->work(1);
    if (steps == kEndless) {
      ADD_FAILURE() << "the job does not come to an end beside a busy guest";
      job.cancel();
      job.wait();
    }
    guest_->work(40);
    return job.progress();
  }
  void expect_done(Job&& job) {
    const Job::Progress progress = run(job);
    EXPECT_EQ(progress.state, Job::State::kDone) << progress.message;
  }
  void snapshot(const std::string& path, const std::string& format) {
    expect_done(SnapshotJob(*disk_, files(), {path, format}));
  }
  void close() {
    backups_.reset();
    disk_.reset();
  }
  // Closes everything and looks at the files as a user would find them.
  void expect_kept(const std::string& path, const std::string& format) {
    guest_->expect_contents(*disk_);
    EXPECT_EQ(disk_->path_and_format(), std::pair(path, format));
    close();
    const auto image = open_in(folder_, path, format, Access::kReadOnly);
    ASSERT_TRUE(image) << image.error().message;
    guest_->expect_contents(**image);
  }
  void expect_to_survive_power_cuts(unsigned count) {
    close();
    std::mt19937_64 random(5);
    const uint64_t first = moves_.front().time, last = folder_.time();
    for (unsigned i = 0; i < count; ++i) {
      const uint64_t time = first + random() % (last - first);
      Folder left;
      folder_.cut(time, random, left);
      const Move* place = &moves_.front();
      for (const Move& move : moves_) {
        if (move.time <= time) place = &move;
      }
      const auto image = open_in(left, place->path, place->format, Access::kReadWrite);
      ASSERT_TRUE(image) << image.error().message << " at " << time;
      ASSERT_EQ(guest_->fault(**image, time), "") << place->path << " at " << time;
    }
  }

  Folder folder_;
  std::vector<Move> moves_;
  std::unique_ptr<FolderFiles> files_;
  std::unique_ptr<LiveDisk> disk_;
  std::unique_ptr<BackupState> backups_;
  std::unique_ptr<Guest> guest_;
};

constexpr uint64_t kSpeed = uint64_t{4} << 20;
constexpr unsigned kCuts = 40;

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
    RebaseJob flatten(*disk_, files(), {}, Care::kCopied, 0);
    const Job::Progress progress = run(flatten);
    EXPECT_EQ(progress.state, Job::State::kFailed);
    EXPECT_EQ(progress.message, fmt::format("the backing file of {} images cannot be changed", format));
    EXPECT_EQ(progress.done_bytes, 0u);
  }
}

TEST_F(Jobs, WithoutABackingFileThereIsNothingToCommitOrFlatten) {
  begin("qcow2");
  CommitJob commit(*disk_, files(), 0);
  EXPECT_EQ(run(commit).message, "'/m/base' has no backing file");
  RebaseJob flatten(*disk_, files(), {}, Care::kCopied, 0);
  EXPECT_EQ(run(flatten).message, "'/m/base' has no backing file");
}

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
  std::atomic<bool> paused{false};
  folder_.before_write = [&] {
    if (paused.load() || job.progress().message.find("slowed down") == std::string::npos) return;
    paused.store(true);
    job.pause();
  };
  job.start();
  for (unsigned steps = 0; !paused.load() && steps < kEndless; ++steps) guest_->work(1);
  guest_->work(50);
  EXPECT_EQ(job.progress().state, Job::State::kPaused);
  job.resume();
  EXPECT_EQ(run_begun(job).state, Job::State::kDone) << job.progress().message;
  expect_kept("/m/target", "raw");
}

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
