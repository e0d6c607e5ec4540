// Pulls the plug on every format: a random guest works on an image while its store's changes are recorded; states that
// a power cut may leave are built, opened, checked, and compared with what the guest was told is safe.
// BULKHEAD_CRASH_STATES sets how many states a format has to survive.
#include <array>
#include <charconv>
#include <cstdlib>
#include <map>

#include <gtest/gtest.h>
#include <malloc.h>

#include "block/format/image.h"
#include "block/testing/crash_log.h"
#include "block/testing/test_key.h"

namespace bulkhead::block {
namespace {

using testing::Change, testing::CrashLog, testing::kSector, testing::RecordingStore;

constexpr uint64_t kSectors = 1500;

// Sanitizers make it twenty times slower.
#if defined(__SANITIZE_ADDRESS__)
constexpr uint64_t kStates = 500;
#elif defined(__has_feature)
constexpr uint64_t kStates = __has_feature(address_sanitizer) ? 500 : 5000;
#else
constexpr uint64_t kStates = 5000;
#endif

uint64_t state_count() {
  const char* const text = std::getenv("BULKHEAD_CRASH_STATES");
  return text == nullptr ? kStates : std::strtoull(text, nullptr, 10);
}

// What the guest did: each sector holds the number of the write that it is from, 0 for zeroes.
struct GuestWrite {
  size_t begun = 0;  // changes in the log before it
  uint64_t sector = 0, count = 0;
  uint32_t tag = 0;
};
struct GuestFlush {
  size_t ended = 0;  // changes in the log when it was answered
  size_t writes = 0;
  std::vector<uint32_t> contents;
};

struct Shape {
  const char* name;
  const char* format;
  std::map<std::string, std::string> settings;
  bool encrypted = false;
};

// The image, and the file beside it that some formats make.
constexpr size_t kFiles = 2;
using Files = std::array<MemoryStore, kFiles>;

template <typename Beside>
auto open_with(const Format& format, std::unique_ptr<Store> store, Access access, Beside beside) {
  ImageOpener opener = testing::test_opener();
  opener.take_files_from([&](const std::string&, Access) -> Result<std::unique_ptr<Store>> { return beside(); });
  return format.open(std::move(store), access, opener);
}

class Workload {
 public:
  Workload(const Shape& shape, uint64_t seed) : random_(seed) {
    const Format& format = *find_format(shape.format).value();
    const auto file = [this](size_t i) { return std::make_unique<RecordingStore>(files_[i], log_, i); };
    EXPECT_TRUE(format.create(files_[0], {.size = kSectors * kSector,
                                          .settings = shape.settings,
                                          .key = shape.encrypted ? testing::test_key() : nullptr,
                                          .create_beside = [&](const std::string&) { return file(1); }}));
    auto image = open_with(format, file(0), Access::kReadWrite, [&] { return file(1); });
    EXPECT_TRUE(image) << image.error().message;
    // What nobody has written reads as anything in a volume that is encrypted as a whole.
    if (!(*image)->starts_as_zeroes()) {
      EXPECT_EQ((*image)->write_zeroes(0, kSectors * kSector, Unmap::kNo), Status::kOk);
      EXPECT_EQ((*image)->flush(), Status::kOk);
    }
    log_.clear();
    start_ = files_;
    std::vector<uint32_t> contents(kSectors);
    flushes_.push_back({0, 0, contents});
    for (uint32_t tag = 1; tag <= 60; ++tag) step(**image, contents, tag);
  }

  [[nodiscard]] const CrashLog& log() const { return log_; }
  [[nodiscard]] const Files& start() const { return start_; }

  // What is wrong with an image found after a cut behind the first `end` changes; empty when nothing is.
  [[nodiscard]] std::string fault(Image& image, size_t end) const {
    const GuestFlush* flushed = &flushes_.front();
    for (const GuestFlush& flush : flushes_) {
      if (flush.ended <= end) flushed = &flush;
    }
    std::vector<uint8_t> bytes(kSectors * kSector);
    if (image.read(0, bytes) != Status::kOk) return "it cannot be read";
    std::vector<std::vector<uint32_t>> later(kSectors);
    for (size_t i = flushed->writes; i < writes_.size() && writes_[i].begun <= end; ++i) {
      for (uint64_t s = 0; s < writes_[i].count; ++s) later[writes_[i].sector + s].push_back(writes_[i].tag);
    }
    for (uint64_t s = 0; s < kSectors; ++s) {
      const uint8_t* const sector = &bytes[s * kSector];
      const auto found = load<uint32_t>(sector);
      if (std::memcmp(sector, sector + 4, kSector - 4) != 0) return fmt::format("sector {} is torn", s);
      if (found == flushed->contents[s] || std::ranges::find(later[s], found) != later[s].end()) continue;
      return fmt::format("sector {} holds write {}, flushed was {}", s, found, flushed->contents[s]);
    }
    return "";
  }

 private:
  void step(Image& image, std::vector<uint32_t>& contents, uint32_t tag) {
    const uint64_t action = random_() % 10, sector = random_() % kSectors;
    const uint64_t count = 1 + random_() % std::min<uint64_t>(kSectors - sector, random_() % 4 == 0 ? 400 : 20);
    const uint64_t offset = sector * kSector, size = count * kSector;
    if (action < 2) {
      ASSERT_EQ(image.flush(), Status::kOk);
      flushes_.push_back({log_.size(), writes_.size(), contents});
      return;
    }
    const uint32_t value = action < 8 ? tag : 0;
    writes_.push_back({log_.size(), sector, count, value});
    if (action < 8) {
      std::vector<uint8_t> bytes(size);
      for (uint64_t i = 0; i < size; i += 4) store(&bytes[i], tag);
      ASSERT_EQ(image.write(offset, bytes), Status::kOk);
    } else if (action == 8) {
      ASSERT_EQ(image.write_zeroes(offset, size, Unmap::kYes), Status::kOk);
    } else {
      ASSERT_EQ(image.discard(offset, size), Status::kOk);
    }
    // A discard may leave what was there; what it did is seen at once, and then it stays.
    std::vector<uint8_t> now(size);
    ASSERT_EQ(image.read(offset, now), Status::kOk);
    for (uint64_t s = 0; s < count; ++s) contents[sector + s] = load<uint32_t>(&now[s * kSector]);
  }

  std::mt19937_64 random_;
  Files files_, start_;
  CrashLog log_;
  std::vector<GuestWrite> writes_;
  std::vector<GuestFlush> flushes_;
};

class PowerCut : public ::testing::TestWithParam<Shape> {};

TEST_P(PowerCut, LosesNothingThatWasFlushed) {
  // A state's file is taken from memory that the one before it had: fresh pages cost ten times what is in them.
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 256 << 20);
  const Format& format = *find_format(GetParam().format).value();
  uint64_t states = 0;
  for (uint64_t seed = 1; states < state_count(); ++seed) {
    const Workload workload(GetParam(), seed);
    const CrashLog& log = workload.log();
    std::mt19937_64 random(seed);
    Files flushed = workload.start();
    // What is not flushed of each file: nothing orders changes of one against those of the other.
    std::array<CrashLog, kFiles> open;
    for (size_t end = 0; end <= log.size() && states < state_count(); ++end) {
      if (end != 0) {
        const Change& last = log[end - 1];
        open[last.file].push_back(last);
        if (last.kind == Change::Kind::kFlush) {
          for (const Change& change : open[last.file]) {
            testing::apply(flushed[last.file], change, [](uint64_t) { return true; });
          }
          open[last.file].clear();
        }
      }
      if (random() % 3 != 0) continue;
      ++states;
      SCOPED_TRACE(fmt::format("seed {}, cut behind change {} of {}", seed, end, log.size()));
      std::array<std::unique_ptr<MemoryStore>, kFiles> cut;
      for (size_t i = 0; i < kFiles; ++i) {
        cut[i] = std::make_unique<MemoryStore>(testing::cut_state(flushed[i], open[i], 0, open[i].size(), random));
      }
      const auto image = open_with(format, std::move(cut[0]), Access::kReadWrite, [&cut] { return std::move(cut[1]); });
      ASSERT_TRUE(image) << image.error().message;
      ASSERT_EQ(workload.fault(**image, end), "");
      if (const auto report = (*image)->check(Repair::kNone); report) {
        ASSERT_EQ(report->errors, 0u) << report->messages.front();
      }
      // It must go on working as well.
      if (states % 8 != 0) continue;
      ASSERT_EQ((*image)->write(0, std::vector<uint8_t>(200 * kSector, 0xEE)), Status::kOk);
      ASSERT_EQ((*image)->flush(), Status::kOk);
      if (const auto report = (*image)->check(Repair::kNone); report) {
        ASSERT_EQ(report->errors, 0u) << report->messages.front();
      }
    }
  }
}

// The test above would be worth nothing if it could not find this.
TEST(PowerCutOfADiskThatDoesNotFlush, IsFound) {
  const Workload workload({"Raw", "raw", {}}, 1);
  CrashLog unflushed;
  for (const Change& change : workload.log()) {
    if (change.kind != Change::Kind::kFlush) unflushed.push_back(change);
  }
  std::mt19937_64 random(1);
  unsigned faults = 0;
  for (int i = 0; i < 20; ++i) {
    auto disk =
        std::make_unique<MemoryStore>(testing::cut_state(workload.start()[0], unflushed, 0, unflushed.size(), random));
    const auto image = find_format("raw").value()->open(std::move(disk), Access::kReadOnly, testing::test_opener());
    if (!workload.fault(**image, workload.log().size()).empty()) ++faults;
  }
  EXPECT_GT(faults, 10u);
}

INSTANTIATE_TEST_SUITE_P(
    Formats, PowerCut,
    ::testing::Values(Shape{"Raw", "raw", {}}, Shape{"Qcow2Of512", "qcow2", {{"cluster_size", "512"}}},
                      Shape{"Qcow2Of512Wide", "qcow2", {{"cluster_size", "512"}, {"refcount_bits", "64"}}},
                      Shape{"Qcow2Of4096", "qcow2", {{"cluster_size", "4096"}}}, Shape{"Qcow2Of65536", "qcow2", {}},
                      Shape{"Qcow2DataFile", "qcow2", {{"cluster_size", "4096"}, {"data_file", "data"}}},
                      Shape{"Qcow2RawDataFile", "qcow2", {{"data_file", "data"}, {"data_file_raw", "on"}}},
                      Shape{"Qcow2ExtendedL2", "qcow2", {{"cluster_size", "16384"}, {"extended_l2", "on"}}},
                      Shape{"Qcow2ExtendedL2DataFile",
                            "qcow2",
                            {{"cluster_size", "16384"}, {"extended_l2", "on"}, {"data_file", "data"}}},
                      Shape{"Qcow2Encrypted", "qcow2", {{"cluster_size", "4096"}, {"iterations", "1000"}}, true},
                      Shape{"VhdDynamic", "vhd", {{"block_size", "65536"}}},
                      Shape{"VhdOfSmallBlocks", "vhd", {{"block_size", "4096"}}}, Shape{"VmdkSparse", "vmdk", {}},
                      Shape{"Vhdx", "vhdx", {{"block_size", "1048576"}}},
                      Shape{"VhdxFixed", "vhdx", {{"subformat", "fixed"}, {"block_size", "1048576"}}},
                      Shape{"VhdFixed", "vhd", {{"subformat", "fixed"}}},
                      Shape{"Luks", "luks", {{"kdf", "argon2id"}, {"memory", "64"}, {"iterations", "1"}}, true}),
    [](const auto& shape) { return shape.param.name; });

}  // namespace
}  // namespace bulkhead::block
