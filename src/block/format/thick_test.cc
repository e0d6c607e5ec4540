#include "block/format/thick.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "block/format/new_files.h"
#include "block/store/memory/memory_store.h"
#include "support/random.h"

namespace bulkhead::block {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

struct Kind {
  const char* name;
  const char* format;
  std::map<std::string, std::string> settings;
};

const std::vector<Kind> kKinds = {
    {"Raw", "raw", {}},
    {"VhdFixed", "vhd", {{"subformat", "fixed"}}},
    {"VhdxFixed", "vhdx", {{"subformat", "fixed"}, {"block_size", "1048576"}}},
    {"VmdkFlat", "vmdk", {{"subformat", "monolithicFlat"}}},
    {"VmdkSplit", "vmdk", {{"subformat", "twoGbMaxExtentFlat"}, {"extent_size", "2097152"}}},
    {"Qcow2", "qcow2", {}},
    {"Qcow2OfSmallClusters", "qcow2", {{"cluster_size", "512"}, {"refcount_bits", "1"}}},
    {"Qcow2Version2", "qcow2", {{"version", "2"}, {"cluster_size", "4096"}}},
};

class Thick : public testing::TestWithParam<Kind> {
 protected:
  Thick() : folder_(testing::TempDir() + "bulkhead_thick_" + std::to_string(HostRandom().next_u64())) {
    std::filesystem::create_directory(folder_);
  }
  ~Thick() override { std::filesystem::remove_all(folder_); }

  Result<> create(const std::string& how, uint64_t size, const Progress& progress = {}) {
    NewFiles files;
    auto settings = GetParam().settings;
    settings["preallocation"] = how;
    auto made = create_files(files, path(), GetParam().format,
                             {.size = size, .settings = std::move(settings), .progress = progress});
    if (made) files.keep();
    return made;
  }
  [[nodiscard]] std::string path() const { return folder_ + "/a.image"; }
  std::unique_ptr<Image> open(Access access = Access::kReadWrite) {
    auto image = open_image(path(), GetParam().format, access);
    EXPECT_TRUE(image) << image.error().message;
    return image ? std::move(*image) : nullptr;
  }
  // Of all its files.
  [[nodiscard]] uint64_t on_the_disk() const {
    uint64_t bytes = 0;
    for (const auto& file : std::filesystem::directory_iterator(folder_)) {
      struct stat status{};
      EXPECT_EQ(::stat(file.path().c_str(), &status), 0);
      bytes += static_cast<uint64_t>(status.st_blocks) * 512;
    }
    return bytes;
  }

  const std::string folder_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, Thick, testing::ValuesIn(kKinds),
                         [](const auto& kind) { return std::string(kind.param.name); });

TEST_P(Thick, TakesAllItsStorageAtOnceOrNone) {
  constexpr uint64_t kSize = 5 * kMiB + 512;
  for (const std::string how : {"off", "falloc", "full"}) {
    uint64_t told = 0;
    const auto made = create(how, kSize, [&told](uint64_t done, uint64_t all) {
      EXPECT_LE(done, all);
      EXPECT_GE(done, told);
      told = done;
    });
    ASSERT_TRUE(made) << how << ": " << made.error().message;
    if (how == "off") {
      EXPECT_LT(on_the_disk(), kSize / 2) << how;
      EXPECT_EQ(told, 0u);
    } else {
      EXPECT_GE(on_the_disk(), kSize) << how;
      EXPECT_GE(told, kSize) << how;
    }
    const auto image = open();
    ASSERT_TRUE(image);
    EXPECT_EQ(image->allocated(), on_the_disk()) << how;
    std::vector<uint8_t> bytes(kSize, 0xAA);
    ASSERT_EQ(image->read(0, bytes), Status::kOk);
    EXPECT_EQ(std::ranges::count(bytes, 0), static_cast<ptrdiff_t>(kSize)) << how;
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directory(folder_);
  }
}

TEST_P(Thick, TakesWritesAndIsClean) {
  for (const std::string how : {"falloc", "full"}) {
    ASSERT_TRUE(create(how, 3 * kMiB));
    const std::vector<uint8_t> bytes(70'000, 0x5A);
    const uint64_t before = on_the_disk();
    {
      const auto image = open();
      ASSERT_TRUE(image);
      ASSERT_EQ(image->write(kMiB + 3 * 512, ByteSpan(bytes).first(69'632)), Status::kOk);
      ASSERT_EQ(image->flush(), Status::kOk);
    }
    // A handful of metadata at most, no new place for data.
    EXPECT_LE(on_the_disk(), before + 65536) << how;
    const auto image = open(Access::kReadOnly);
    std::vector<uint8_t> there(3 * kMiB);
    ASSERT_EQ(image->read(0, there), Status::kOk);
    EXPECT_EQ(std::ranges::count(there, 0x5A), 69'632);
    EXPECT_EQ(there[kMiB + 3 * 512], 0x5A);
    if (std::string_view(GetParam().format) != "raw") {
      const auto report = image->check(Repair::kNone);
      ASSERT_TRUE(report) << report.error().message;
      EXPECT_EQ(report->errors + report->leaks, 0u) << (report->messages.empty() ? "" : report->messages[0]);
    }
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directory(folder_);
  }
}

TEST(ThickQcow2, MetadataAloneTakesLittle) {
  MemoryStore file;
  const Format& qcow2 = *find_format("qcow2").value();
  ASSERT_TRUE(qcow2.create(file, {.size = 8 * kMiB, .settings = {{"preallocation", "metadata"}}}));
  EXPECT_GE(file.size().value(), 8 * kMiB);
  // Header, refcounts, L1 and one L2 table.
  const auto is_data = [](uint8_t byte) { return byte != 0; };
  EXPECT_EQ(std::ranges::count_if(file.bytes().begin() + 6 * 65536, file.bytes().end(), is_data), 0);
}

TEST(ThickImages, RefuseWhatTheyCannotBe) {
  MemoryStore file;
  const auto error = [&](const char* format, std::map<std::string, std::string> settings, std::string backing = "") {
    const auto made = (*find_format(format))
                          ->create(file, {.size = kMiB,
                                          .backing_name = backing,
                                          .backing_format = backing.empty() ? "" : "qcow2",
                                          .settings = std::move(settings)});
    return made ? "" : made.error().message;
  };
  EXPECT_EQ(error("raw", {{"preallocation", "metadata"}}),
            "option preallocation=metadata: allowed are off, falloc, full");
  EXPECT_EQ(error("vhd", {{"preallocation", "full"}}),
            "option preallocation: only of a fixed VHD image (subformat=fixed)");
  EXPECT_EQ(error("vhdx", {{"preallocation", "falloc"}}),
            "option preallocation: only of a fixed VHDX image (subformat=fixed)");
  EXPECT_EQ(error("vmdk", {{"preallocation", "falloc"}}),
            "option preallocation: only of a flat VMDK image (subformat=monolithicFlat or twoGbMaxExtentFlat)");
  EXPECT_EQ(error("qcow2", {{"preallocation", "full"}}, "below.qcow2"),
            "option preallocation: only without a backing file, encryption, a data file and extended L2 entries");
}

TEST(ThickImages, SayWhereThereWasNoRoom) {
  for (const auto& [how, verb] : {std::pair("falloc", "reserve"), std::pair("full", "write")}) {
    MemoryStore file({}, 4 * kMiB + kMiB / 2);
    // The file may be as long, its storage is not there.
    const Result<> made = make_thick(
        file, 0, 8 * kMiB, std::string_view(how) == "full" ? Preallocation::kWritten : Preallocation::kReserved, {});
    ASSERT_FALSE(made);
    EXPECT_TRUE(made.error().message.starts_with(verb)) << made.error().message;
    EXPECT_TRUE(made.error().message.ends_with("no space")) << made.error().message;
  }
}

}  // namespace
}  // namespace bulkhead::block
