#include <gtest/gtest.h>

#include "block/format/qcow2/qcow2_image.h"
#include "block/store/memory/memory_store.h"

namespace bulkhead::block::qcow2 {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// Stands for the file, which outlives the image that is opened on it.
class Shared final : public Store {
 public:
  explicit Shared(MemoryStore& below) : below_(below) {}
  [[nodiscard]] const std::string& name() const override { return below_.name(); }
  [[nodiscard]] Result<uint64_t> size() override { return below_.size(); }
  [[nodiscard]] Status read(uint64_t o, MutableByteSpan b) override { return below_.read(o, b); }
  [[nodiscard]] Status write(uint64_t o, ByteSpan b) override { return below_.write(o, b); }
  [[nodiscard]] Status flush() override { return below_.flush(); }
  [[nodiscard]] Status punch(uint64_t o, uint64_t s) override { return below_.punch(o, s); }
  [[nodiscard]] Status truncate(uint64_t s) override { return below_.truncate(s); }
  [[nodiscard]] StoreExtent extent(uint64_t o) override { return below_.extent(o); }

 private:
  MemoryStore& below_;
};

std::unique_ptr<Image> reopen(MemoryStore& file) {
  auto image = qcow2::open(std::make_unique<Shared>(file), Access::kReadWrite, ImageOpener("/nonexistent"));
  EXPECT_TRUE(image) << image.error().message;
  return std::move(image).value();
}

std::string open_error(MemoryStore& file) {
  auto image = qcow2::open(std::make_unique<Shared>(file), Access::kReadWrite, ImageOpener("/nonexistent"));
  return image ? "" : image.error().message;
}

class Qcow2 : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(Qcow2, HoldsWhatWasWrittenAndStaysClean) {
  const auto [cluster_size, refcount_bits] = GetParam();
  MemoryStore file;
  ASSERT_TRUE(create(
      file, {.size = 4 * kMiB + 512, .settings = {{"cluster_size", cluster_size}, {"refcount_bits", refcount_bits}}}));
  std::vector<uint8_t> expected(4 * kMiB + 512);
  uint64_t state = 1;
  const auto next = [&](uint64_t limit) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % limit;
  };
  for (int round = 0; round < 3; ++round) {
    const auto image = reopen(file);
    for (int i = 0; i < 40; ++i) {
      const uint64_t at = next(expected.size() / 512) * 512;
      const uint64_t size = std::min<uint64_t>((1 + next(200)) * 512, expected.size() - at);
      const std::span<uint8_t> range(&expected[at], size);
      const uint64_t action = next(4);
      std::ranges::fill(range, static_cast<uint8_t>(action < 3 ? i + 1 : 0));
      ASSERT_EQ(action < 3 ? image->write(at, range) : image->write_zeroes(at, size, Unmap::kYes), Status::kOk);
      if (action == 0) {
        ASSERT_EQ(image->flush(), Status::kOk);
      }
    }
  }
  const auto image = reopen(file);
  std::vector<uint8_t> found(expected.size());
  ASSERT_EQ(image->read(0, found), Status::kOk);
  EXPECT_TRUE(found == expected);
  const CheckReport report = image->check(Repair::kNone).value();
  EXPECT_EQ(report.errors, 0u);
  EXPECT_EQ(report.leaks, 0u);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Qcow2,
                         testing::Values(std::pair("512", "16"), std::pair("512", "64"), std::pair("4096", "1"),
                                         std::pair("65536", "2"), std::pair("65536", "16"), std::pair("2097152", "8")));

TEST(Qcow2Discard, GivesTheClusterToTheNextWrite) {
  MemoryStore file;
  ASSERT_TRUE(create(file, {.size = kMiB}));
  const auto image = reopen(file);
  const std::vector<uint8_t> data(65536, 3);
  ASSERT_EQ(image->write(0, data), Status::kOk);
  const size_t size = file.bytes().size();
  ASSERT_EQ(image->discard(0, 65536), Status::kOk);
  ASSERT_EQ(image->flush(), Status::kOk);
  ASSERT_EQ(image->write(65536, data), Status::kOk);
  ASSERT_EQ(image->flush(), Status::kOk);
  EXPECT_EQ(file.bytes().size(), size);
}

TEST(Qcow2Header, RefusesUnknownIncompatibleFeaturesAndIgnoresCompatibleOnes) {
  MemoryStore file;
  ASSERT_TRUE(create(file, {.size = kMiB}));
  file.bytes()[80] = 0x80;
  EXPECT_EQ(open_error(file), "");
  file.bytes()[72] = 0x80;
  EXPECT_NE(open_error(file).find("0x8000000000000000 at byte 72"), std::string::npos);
}

TEST(Qcow2Header, ClearsAutoclearBitsWhenItMayWrite) {
  MemoryStore file;
  ASSERT_TRUE(create(file, {.size = kMiB}));
  file.bytes()[95] = 0xF0;
  reopen(file);
  EXPECT_EQ(file.bytes()[95], 0);
}

TEST(Qcow2Dirty, IsRepairedWhenOpened) {
  MemoryStore file;
  ASSERT_TRUE(create(file, {.size = kMiB}));
  ASSERT_EQ(reopen(file)->write(0, std::vector<uint8_t>(65536, 1)), Status::kOk);
  file.bytes()[79] = 1;
  // The counts of the clusters behind the first tables, as if they had never been written.
  std::memset(&file.bytes()[2 * 65536 + 8], 0, 100);
  EXPECT_EQ(reopen(file)->check(Repair::kNone)->errors, 0u);
  EXPECT_EQ(file.bytes()[79], 0);
}

}  // namespace
}  // namespace bulkhead::block::qcow2
