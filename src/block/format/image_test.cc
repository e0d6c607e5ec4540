// What every format has to do, whatever its tables look like.
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "block/format/image.h"
#include "block/store/file/plain_file.h"
#include "block/testing/many_threads.h"
#include "block/testing/shared_store.h"
#include "block/testing/test_key.h"

namespace bulkhead::block {
namespace {

using testing::SharedStore;

constexpr uint64_t kMiB = uint64_t{1} << 20;

struct Shape {
  const char* name;
  const char* format;
  std::map<std::string, std::string> settings;
  bool encrypted = false;
};

const std::vector<Shape> kShapes = {
    {"Raw", "raw", {}},
    {"Qcow2", "qcow2", {}},
    {"Qcow2Encrypted", "qcow2", {{"iterations", "1000"}}, true},
    {"VhdFixed", "vhd", {{"subformat", "fixed"}}},
    {"VhdDynamic", "vhd", {}},
    {"VhdOfSmallBlocks", "vhd", {{"block_size", "4096"}}},
    {"VmdkSparse", "vmdk", {}},
    {"VhdxDynamic", "vhdx", {}},
    {"VhdxOfSmallBlocks", "vhdx", {{"block_size", "1048576"}}},
    {"VhdxFixed", "vhdx", {{"subformat", "fixed"}, {"block_size", "1048576"}}},
};

std::string name_of(const ::testing::TestParamInfo<Shape>& shape) {
  return shape.param.name;
}

class EveryFormat : public ::testing::TestWithParam<Shape> {
 protected:
  EveryFormat() : format_(*find_format(GetParam().format).value()), file_({}, 256 * kMiB) {}

  void create(uint64_t size) {
    const auto made = format_.create(
        file_,
        {.size = size, .settings = GetParam().settings, .key = GetParam().encrypted ? testing::test_key() : nullptr});
    ASSERT_TRUE(made) << made.error().message;
  }
  std::unique_ptr<Image> open(Access access = Access::kReadWrite) {
    auto image = format_.open(std::make_unique<SharedStore>(file_), access, testing::test_opener());
    EXPECT_TRUE(image) << image.error().message;
    return std::move(image).value();
  }
  void expect_clean(Image& image) {
    const auto report = image.check(Repair::kNone);
    if (!report) return;  // raw
    EXPECT_EQ(report->errors, 0u) << report->messages.front();
    EXPECT_EQ(report->leaks, 0u);
  }

  const Format& format_;
  MemoryStore file_;
};

TEST_P(EveryFormat, HoldsWhatWasWrittenAndStaysClean) {
  std::vector<uint8_t> expected(5 * kMiB + 512);
  create(expected.size());
  std::mt19937_64 random(1);
  for (int round = 0; round < 3; ++round) {
    const auto image = open();
    for (int i = 0; i < 60; ++i) {
      const uint64_t at = random() % (expected.size() / 512) * 512;
      const uint64_t size = std::min<uint64_t>((1 + random() % (i % 8 == 0 ? 4000 : 200)) * 512, expected.size() - at);
      const std::span<uint8_t> range(&expected[at], size);
      const uint64_t action = random() % 5;
      std::ranges::fill(range, static_cast<uint8_t>(action < 3 ? i + 1 : 0));
      if (action < 3) {
        ASSERT_EQ(image->write(at, range), Status::kOk);
      } else {
        ASSERT_EQ(image->write_zeroes(at, size, action == 3 ? Unmap::kYes : Unmap::kNo), Status::kOk);
      }
      if (action == 0) {
        ASSERT_EQ(image->flush(), Status::kOk);
      }
    }
    std::vector<uint8_t> found(expected.size());
    ASSERT_EQ(image->read(0, found), Status::kOk);
    ASSERT_TRUE(found == expected);
  }
  const auto image = open(Access::kReadOnly);
  std::vector<uint8_t> found(expected.size());
  ASSERT_EQ(image->read(0, found), Status::kOk);
  EXPECT_TRUE(found == expected);
  expect_clean(*image);
}

TEST_P(EveryFormat, MapCoversTheDiskAndNamesDataWhereItIs) {
  create(9 * kMiB);
  const auto image = open();
  const std::vector<uint8_t> data(4096, 7);
  ASSERT_EQ(image->write(8 * kMiB, data), Status::kOk);
  uint64_t offset = 0;
  bool found = false;
  while (offset < image->geometry().size) {
    const Extent extent = image->map(offset).value();
    ASSERT_GT(extent.size, 0u);
    if (extent.kind == ExtentKind::kData && offset <= 8 * kMiB && offset + extent.size > 8 * kMiB) found = true;
    offset += extent.size;
  }
  EXPECT_EQ(offset, image->geometry().size);
  EXPECT_TRUE(found);
}

TEST_P(EveryFormat, GrowsAndKeepsItsData) {
  create(2 * kMiB);
  std::vector<uint8_t> data(kMiB, 9), found(kMiB);
  {
    const auto image = open();
    ASSERT_EQ(image->write(kMiB, data), Status::kOk);
    const auto grown = image->grow(20 * kMiB);
    ASSERT_TRUE(grown) << grown.error().message;
    EXPECT_EQ(image->geometry().size, 20 * kMiB);
    ASSERT_EQ(image->write(19 * kMiB, data), Status::kOk);
  }
  const auto image = open();
  EXPECT_EQ(image->geometry().size, 20 * kMiB);
  for (const uint64_t at : {1, 19}) {
    ASSERT_EQ(image->read(at * kMiB, found), Status::kOk);
    EXPECT_TRUE(found == data);
  }
  ASSERT_EQ(image->read(10 * kMiB, found), Status::kOk);
  EXPECT_EQ(std::ranges::count(found, 0), static_cast<int64_t>(kMiB));
  const auto report = image->check(Repair::kNone);
  if (report) {
    EXPECT_EQ(report->errors, 0u);
  }
}

TEST_P(EveryFormat, ManyThreadsKeepTheirSectorsApart) {
  create(8 * kMiB);
  const auto image = open();
  EXPECT_EQ(testing::write_from_four_threads(*image, 8 * kMiB, 1000), 0u);
  expect_clean(*image);
}

TEST_P(EveryFormat, WritesNothingThatIsOpenedToRead) {
  create(kMiB);
  const std::vector<uint8_t> before = file_.bytes();
  {
    const auto image = open(Access::kReadOnly);
    EXPECT_TRUE(image->geometry().read_only);
    EXPECT_EQ(image->flush(), Status::kOk);
  }
  EXPECT_TRUE(file_.bytes() == before);
}

INSTANTIATE_TEST_SUITE_P(Shapes, EveryFormat, ::testing::ValuesIn(kShapes), name_of);

// Formats that show another image where they hold nothing.
class Overlay : public ::testing::TestWithParam<Shape> {
 protected:
  Overlay() {
    folder_ = std::filesystem::temp_directory_path() /
              fmt::format("overlay-{}", ::testing::UnitTest::GetInstance()->random_seed());
    folder_ += fmt::format("-{}-{}", ::getpid(), GetParam().name);
    std::filesystem::create_directories(folder_);
  }
  ~Overlay() override { std::filesystem::remove_all(folder_); }

  void create(const std::string& name, uint64_t size, const std::string& backing) {
    const Format& format = *find_format(GetParam().format).value();
    CreateOptions options{.size = size, .backing_name = backing, .settings = GetParam().settings};
    if (!backing.empty()) {
      options.backing_format = GetParam().format;
      options.backing_identity = open(backing, Access::kReadOnly)->info().identity;
    }
    options.file_name = name;
    options.create_beside = [&](const std::string& beside) { return PlainFile::create(folder_ / beside); };
    const auto file = PlainFile::create(folder_ / name).value();
    const auto made = format.create(*file, options);
    ASSERT_TRUE(made) << made.error().message;
  }
  std::unique_ptr<Image> open(const std::string& name, Access access) {
    auto image = open_image(folder_ / name, GetParam().format, access);
    EXPECT_TRUE(image) << image.error().message;
    return std::move(image).value();
  }

  std::filesystem::path folder_;
};

TEST_P(Overlay, ShowsItsBackingFileAndLeavesItAlone) {
  const uint64_t size = 6 * kMiB;
  create("base", size, "");
  std::mt19937_64 random(3);
  std::vector<uint8_t> expected(size), below(size);
  for (uint64_t at = 0; at < size; at += 3 * kMiB) {
    for (uint64_t i = 0; i < kMiB; ++i) expected[at + i] = static_cast<uint8_t>(random());
  }
  ASSERT_EQ(open("base", Access::kReadWrite)->write(0, expected), Status::kOk);
  below = expected;
  create("top", size, "base");
  const auto image = open("top", Access::kReadWrite);
  EXPECT_EQ(image->info().backing_name, "base");
  for (int i = 0; i < 50; ++i) {
    const uint64_t at = random() % (size / 512) * 512,
                   length = std::min<uint64_t>((1 + random() % 300) * 512, size - at);
    const bool zero = random() % 4 == 0;
    std::fill_n(&expected[at], length, static_cast<uint8_t>(zero ? 0 : i + 1));
    ASSERT_EQ(zero ? image->write_zeroes(at, length, Unmap::kYes) : image->write(at, ByteSpan(&expected[at], length)),
              Status::kOk);
  }
  std::vector<uint8_t> found(size);
  ASSERT_EQ(image->read(0, found), Status::kOk);
  EXPECT_TRUE(found == expected);
  const auto report = image->check(Repair::kNone);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->errors + report->leaks, 0u);
  ASSERT_EQ(open("base", Access::kReadOnly)->read(0, found), Status::kOk);
  EXPECT_TRUE(found == below);
}

TEST_P(Overlay, GrowingShowsNothingOfALongerBackingFile) {
  create("base", 8 * kMiB, "");
  ASSERT_EQ(open("base", Access::kReadWrite)->write(2 * kMiB, std::vector<uint8_t>(6 * kMiB, 7)), Status::kOk);
  create("top", 2 * kMiB, "base");
  {
    const auto image = open("top", Access::kReadWrite);
    if (const auto grown = image->grow(8 * kMiB); !grown) {
      EXPECT_NE(grown.error().message.find("flatten it first"), std::string::npos) << grown.error().message;
      EXPECT_EQ(image->geometry().size, 2 * kMiB);
    }
  }
  const auto image = open("top", Access::kReadOnly);
  std::vector<uint8_t> found(image->geometry().size - 2 * kMiB);
  ASSERT_EQ(image->read(2 * kMiB, found), Status::kOk);
  EXPECT_EQ(std::ranges::count(found, 0), static_cast<ptrdiff_t>(found.size()));
}

TEST_P(Overlay, OfAnotherFileThanItWasMadeForIsRefused) {
  create("base", kMiB, "");
  if (open("base", Access::kReadOnly)->info().identity.empty()) return;
  create("top", kMiB, "base");
  for (const auto& file : std::filesystem::directory_iterator(folder_)) {
    if (file.path().filename().string().starts_with("base")) std::filesystem::remove(file.path());
  }
  create("base", kMiB, "");
  const auto image = open_image(folder_ / "top", GetParam().format, Access::kReadWrite);
  ASSERT_FALSE(image);
  EXPECT_NE(image.error().message.find("made for"), std::string::npos) << image.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Overlay,
    ::testing::Values(Shape{"Qcow2", "qcow2", {}}, Shape{"Vhd", "vhd", {}},
                      Shape{"VhdOfSmallBlocks", "vhd", {{"block_size", "4096"}}}, Shape{"Vhdx", "vhdx", {}},
                      Shape{"VmdkSparse", "vmdk", {}},
                      Shape{"VmdkSplit", "vmdk", {{"subformat", "twoGbMaxExtentSparse"}, {"extent_size", "1048576"}}}),
    name_of);

}  // namespace
}  // namespace bulkhead::block
