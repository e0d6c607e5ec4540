// A guest at work on a disk in memory, for the tests of jobs: it remembers what it was told, and the files remember in
// which order they were changed.
#pragma once

#include <atomic>
#include <cstring>
#include <future>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "block/job/backup_job.h"
#include "block/job/jobs.h"
#include "block/testing/folder_files.h"

namespace bulkhead::block {

using testing::Folder, testing::FolderFiles, testing::kSector, testing::Move, testing::open_in;

using Care = RebaseJob::Care;

inline constexpr uint64_t kSectors = 1500;
inline constexpr unsigned kEndless = 50'000;  // steps of a guest: each job needs a few hundred
inline constexpr CopySteps kSmallSteps{.piece_bytes = 65536, .last_bytes = 65536};

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
        Storage{"/m/base", format, files_->open("/m/base", format, Access::kReadOnly, "").value()});
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

inline constexpr uint64_t kSpeed = uint64_t{4} << 20;
inline constexpr unsigned kCuts = 40;

}  // namespace bulkhead::block
