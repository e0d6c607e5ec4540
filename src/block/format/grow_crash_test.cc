// Pulls the plug while a disk becomes larger: it has the old size or the new one, what was written is there, what is
// new reads as zeroes, and it grows again.
#include <map>

#include <gtest/gtest.h>

#include "block/format/image.h"
#include "block/testing/folder_files.h"

namespace bulkhead::block {
namespace {

constexpr uint64_t kKiB = 1024, kMiB = 1024 * kKiB, kGiB = 1024 * kMiB;
constexpr uint64_t kSector = testing::kSector;
const std::string kPath = "/m/disk.image";

struct Shape {
  const char* name;
  const char* format;
  std::map<std::string, std::string> settings;
  std::vector<uint64_t> sizes;
  unsigned cuts = 400;
};

// From one flush to the next.
struct Step {
  uint64_t begun = 0, ended = 0;  // moments of the folder
  uint64_t size = 0;
  std::map<uint64_t, uint8_t> sectors;  // by their offsets: what each is full of
};

Result<std::unique_ptr<Image>> open_in(testing::Folder& folder, const Shape& shape) {
  ImageOpener opener("/m");
  opener.take_files_from([&folder](const std::string& name, Access) { return folder.open("/m/" + name); });
  opener.make_files_by([&folder](const std::string& name) -> Result<std::unique_ptr<Store>> {
    if (folder.has("/m/" + name)) return nullptr;
    return folder.make("/m/" + name);
  });
  return TRY(find_format(shape.format))->open(TRY(folder.open(kPath)), Access::kReadWrite, opener);
}

class Growing {
 public:
  explicit Growing(const Shape& shape) {
    CreateOptions options{.size = shape.sizes.front(), .settings = shape.settings, .file_name = "disk.image"};
    options.create_beside = [this](const std::string& name) -> Result<std::unique_ptr<Store>> {
      return folder_.make("/m/" + name);
    };
    const auto made = find_format(shape.format).value()->create(*folder_.make(kPath), options);
    EXPECT_TRUE(made) << made.error().message;
    const auto image = open_in(folder_, shape);
    EXPECT_TRUE(image) << image.error().message;
    uint8_t tag = 0;
    for (const uint64_t size : shape.sizes) {
      Step step = steps_.empty() ? Step() : steps_.back();
      step.begun = folder_.time();
      const uint64_t old_size = std::exchange(step.size, size);
      if (size != (*image)->geometry().size) {
        const auto grown = (*image)->grow(size);
        EXPECT_TRUE(grown) << grown.error().message;
      }
      EXPECT_EQ((*image)->geometry().size, size);
      // A moment at which it has grown and nothing else has happened.
      step.ended = folder_.time();
      if (!steps_.empty()) steps_.push_back(step);
      step.begun = step.ended;
      ++tag;
      for (const uint64_t offset : {old_size / 2, old_size, size / 2, size - kSector}) {
        const uint64_t at = std::min(align_down(offset, kSector), size - kSector);
        EXPECT_EQ((*image)->write(at, std::vector<uint8_t>(kSector, tag)), Status::kOk);
        step.sectors[at] = tag;
      }
      EXPECT_EQ((*image)->flush(), Status::kOk);
      step.ended = folder_.time();
      steps_.push_back(step);
    }
  }

  void check(const Shape& shape, uint64_t time, std::mt19937_64& random) const {
    const Step *last = &steps_.front(), *next = &steps_.front();
    for (const Step& step : steps_) {
      if (step.ended <= time) last = &step;
      if (step.begun < time) next = &step;
    }
    testing::Folder left;
    folder_.cut(time, random, left);
    auto image = open_in(left, shape);
    ASSERT_TRUE(image) << image.error().message;
    const uint64_t size = (*image)->geometry().size;
    ASSERT_TRUE(size == last->size || size == next->size) << size;
    for (const auto& [offset, tag] : next->sectors) {
      if (offset >= size) continue;
      const auto before = last->sectors.find(offset);
      std::vector<uint8_t> bytes(kSector);
      ASSERT_EQ((*image)->read(offset, bytes), Status::kOk);
      const uint8_t flushed = before == last->sectors.end() ? 0 : before->second;
      ASSERT_TRUE(bytes[0] == flushed || bytes[0] == tag) << "sector at " << offset << " holds " << unsigned{bytes[0]};
    }
    const auto report = (*image)->check(Repair::kNone);
    ASSERT_TRUE(report);
    ASSERT_EQ(report->errors, 0u) << report->messages.front();
    const auto grown = (*image)->grow(shape.sizes.back() + kMiB);
    ASSERT_TRUE(grown) << grown.error().message;
    const std::vector<uint8_t> written(kSector, 0xEE);
    std::vector<uint8_t> found(kSector);
    const uint64_t end = shape.sizes.back() + kMiB - kSector;
    ASSERT_EQ((*image)->write(end, written), Status::kOk);
    image->reset();
    image = open_in(left, shape);
    ASSERT_TRUE(image) << image.error().message;
    ASSERT_EQ((*image)->read(end, found), Status::kOk);
    ASSERT_EQ(found, written);
  }

  [[nodiscard]] uint64_t created() const { return steps_.front().ended; }
  [[nodiscard]] uint64_t end() const { return steps_.back().ended; }

 private:
  mutable testing::Folder folder_;
  std::vector<Step> steps_;
};

class GrowthCutOff : public ::testing::TestWithParam<Shape> {};

TEST_P(GrowthCutOff, LeavesTheOldSizeOrTheNewOne) {
  const Growing growing(GetParam());
  std::mt19937_64 random(1);
  for (unsigned cut = 0; cut < GetParam().cuts && !HasFatalFailure(); ++cut) {
    const uint64_t time = growing.created() + random() % (growing.end() - growing.created() + 1);
    SCOPED_TRACE(fmt::format("cut {} at {} of {}", cut, time, growing.end()));
    growing.check(GetParam(), time, random);
  }
}

const std::vector<uint64_t> kSmall{100 * kKiB, 130 * kKiB, 300 * kKiB, 450 * kKiB + 512};

INSTANTIATE_TEST_SUITE_P(
    Formats, GrowthCutOff,
    ::testing::Values(
        Shape{"VmdkFlat", "vmdk", {{"subformat", "monolithicFlat"}}, kSmall},
        Shape{"VmdkSplitFlat", "vmdk", {{"subformat", "twoGbMaxExtentFlat"}, {"extent_size", "65536"}}, kSmall},
        Shape{
            "VmdkSplitSparse", "vmdk", {{"subformat", "twoGbMaxExtentSparse"}, {"extent_size", "65536"}}, kSmall, 200},
        Shape{"VmdkSparse", "vmdk", {}, {100 * kKiB, 10 * kMiB, 90 * kMiB, 3 * kGiB}, 100},
        // The tables of 1 MiB and of 2 MiB that these begin with do not reach.
        Shape{"Vhdx", "vhdx", {{"block_size", "1048576"}}, {4 * kMiB, 200 * kGiB, 300 * kGiB}, 40},
        Shape{"VhdDynamic", "vhd", {{"block_size", "4096"}}, {64 * kKiB, 1 * kMiB, 9 * kMiB}, 100}),
    [](const auto& shape) { return shape.param.name; });

}  // namespace
}  // namespace bulkhead::block
