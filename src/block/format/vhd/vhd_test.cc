#include "block/format/vhd/vhd_image.h"

#include <gtest/gtest.h>

#include "block/format/big_endian.h"
#include "block/format/utf16.h"
#include "block/format/vhd/header.h"
#include "block/testing/shared_store.h"

namespace bulkhead::block::vhd {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

Result<std::unique_ptr<Image>> try_open(MemoryStore& file, Access access = Access::kReadWrite) {
  return vhd::open(std::make_unique<block::testing::SharedStore>(file), access, ImageOpener("/nonexistent"));
}

std::string error_of(MemoryStore& file) {
  const auto image = try_open(file);
  return image ? "" : image.error().message;
}

MemoryStore dynamic(uint64_t size) {
  MemoryStore file;
  EXPECT_TRUE(create(file, {.size = size}));
  return file;
}

// As after a change of the header or the footer that is meant.
void seal(MemoryStore& file, size_t at, size_t size, size_t sum_at) {
  uint32_t sum = 0;
  store32(&file.bytes()[at + sum_at], 0);
  for (size_t i = 0; i < size; ++i) sum += file.bytes()[at + i];
  store32(&file.bytes()[at + sum_at], ~sum);
}

TEST(Vhd, FindsTheFooterAtTheBeginningWhenTheLastIsLostAndWritesItAnew) {
  MemoryStore file = dynamic(4 * kMiB);
  ASSERT_EQ((*try_open(file))->write(0, std::vector<uint8_t>(512, 5)), Status::kOk);
  std::memset(&file.bytes()[file.bytes().size() - 512], 0xAA, 512);
  const auto image = try_open(file);
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ((*image)->check(Repair::kNone)->errors, 0u);
  std::vector<uint8_t> sector(512);
  ASSERT_EQ((*image)->read(0, sector), Status::kOk);
  EXPECT_EQ(sector[511], 5);
}

TEST(Vhd, SectorsOfABlockThatDoNotCountReadAsZeroesAndCountOnceWritten) {
  MemoryStore file = dynamic(4 * kMiB);
  ASSERT_EQ((*try_open(file))->write(0, std::vector<uint8_t>(4096, 5)), Status::kOk);
  const size_t bitmap = 4096 - 512;  // in front of the first page that footer, header and table leave
  file.bytes()[bitmap] = 0xBF;
  const auto image = try_open(file).value();
  std::vector<uint8_t> bytes(1536);
  ASSERT_EQ(image->read(0, bytes), Status::kOk);
  EXPECT_EQ(bytes[511], 5);
  EXPECT_EQ(bytes[512], 0);
  EXPECT_EQ(bytes[1024], 5);
  ASSERT_EQ(image->write(2048, std::vector<uint8_t>(512, 6)), Status::kOk);
  ASSERT_EQ(image->flush(), Status::kOk);
  EXPECT_EQ(file.bytes()[bitmap], 0xFF);
  ASSERT_EQ(image->read(0, bytes), Status::kOk);
  EXPECT_EQ(bytes[512], 0);
}

// As other programs leave them in an image without a backing file.
TEST(Vhd, SectorsOfABlockThatDoNotCountShowNothingOfABackingFileThatComesLater) {
  MemoryStore base = dynamic(4 * kMiB), made = dynamic(4 * kMiB);
  ASSERT_EQ((*try_open(base))->write(0, std::vector<uint8_t>(4 * kMiB, 9)), Status::kOk);
  ASSERT_EQ((*try_open(made))->write(0, std::vector<uint8_t>(4096, 5)), Status::kOk);
  const size_t bitmap = 4096 - 512;
  made.bytes()[bitmap] = 0xBF;
  for (const bool alone : {false, true}) {
    MemoryStore file(made.bytes());
    ImageOpener opener("/nonexistent");
    opener.take_files_from([&](const std::string&, Access) -> Result<std::unique_ptr<Store>> {
      return std::make_unique<block::testing::SharedStore>(base);
    });
    const auto open = [&](const ImageOpener& with) {
      return vhd::open(std::make_unique<block::testing::SharedStore>(file), Access::kCommit, with).value();
    };
    ImageOpener first = opener;
    if (alone) first.open_no_backing();
    const auto set = open(first)->set_backing("base.vhd", "vhd");
    ASSERT_TRUE(set) << set.error().message;
    // Of one that was opened alone, the name changes and nothing else.
    EXPECT_EQ(file.bytes()[bitmap], alone ? 0xBF : 0xFF);
    const auto image = open(opener);
    std::vector<uint8_t> bytes(1536);
    ASSERT_EQ(image->read(0, bytes), Status::kOk);
    EXPECT_EQ(bytes[511], 5);
    EXPECT_EQ(bytes[512], alone ? 9 : 0);
    EXPECT_EQ(bytes[1024], 5);
    ASSERT_EQ(image->read(3 * kMiB, bytes), Status::kOk);
    EXPECT_EQ(bytes[0], 9);
  }
}

TEST(Vhd, PutsTheDataOfABlockOnPagesOfTheHost) {
  for (const uint64_t block : {uint64_t{4096}, kMiB, 2 * kMiB, 8 * kMiB}) {
    SCOPED_TRACE(block);
    // Small blocks lie close together: a full disk would not fit otherwise.
    const uint64_t alignment = block < kMiB ? 512 : 4096;
    MemoryStore file;
    ASSERT_TRUE(create(file, {.size = 4 * block, .settings = {{"block_size", std::to_string(block)}}}));
    for (const uint64_t unit : {2, 0, 3}) {
      // A footer lies behind the last block each time, and the next goes on behind that.
      ASSERT_EQ((*try_open(file))->write(unit * block, std::vector<uint8_t>(4096, 1 + unit)), Status::kOk);
    }
    const auto image = try_open(file).value();
    for (const uint64_t unit : {2, 0, 3}) {
      const uint64_t bitmap = std::max<uint64_t>(512, block / 512 / 8);
      EXPECT_EQ((load32(&file.bytes()[1536 + unit * 4]) * uint64_t{512} + bitmap) % alignment, 0u);
      std::vector<uint8_t> page(4096);
      ASSERT_EQ(image->read(unit * block, page), Status::kOk);
      EXPECT_EQ(page, std::vector<uint8_t>(4096, 1 + unit));
    }
    const CheckReport report = image->check(Repair::kNone).value();
    EXPECT_EQ(report.errors + report.leaks, 0u);
  }
}

TEST(Vhd, TakesTheGeometryForTheSizeWhereItsMakerDid) {
  MemoryStore file = dynamic(10 * kMiB);
  for (const size_t at : {size_t{0}, file.bytes().size() - 512}) {
    std::memcpy(&file.bytes()[at + 28], "vpc ", 4);
    seal(file, at, 512, 64);
  }
  const uint64_t by_geometry = uint64_t{301} * 4 * 17 * 512;
  EXPECT_EQ((*try_open(file))->geometry().size, by_geometry);
}

TEST(Vhd, NamesThePlaceOfWhatMakesNoSense) {
  MemoryStore file = dynamic(10 * kMiB);
  EXPECT_EQ(error_of(file), "");
  file.bytes()[512 + 40] = 1;
  EXPECT_NE(error_of(file).find("checksum"), std::string::npos);
  file.bytes()[512 + 40] = 0;
  store32(&file.bytes()[512 + 32], 3000);
  seal(file, 512, 1024, 36);
  EXPECT_NE(error_of(file).find("block size 3000 at byte 544"), std::string::npos) << error_of(file);
  store32(&file.bytes()[512 + 32], 2 << 20);
  store32(&file.bytes()[512 + 28], 4);
  seal(file, 512, 1024, 36);
  EXPECT_NE(error_of(file).find("4 entries at byte 540, need 5"), std::string::npos) << error_of(file);
  store32(&file.bytes()[512 + 28], 5);
  store64(&file.bytes()[512 + 16], uint64_t{1} << 40);
  seal(file, 512, 1024, 36);
  EXPECT_NE(error_of(file).find("(byte 528) lies outside the file"), std::string::npos) << error_of(file);
}

TEST(Vhd, CheckFindsBlocksThatOverlapOrLieOutside) {
  MemoryStore file = dynamic(10 * kMiB);
  ASSERT_EQ((*try_open(file))->write(0, std::vector<uint8_t>(512, 5)), Status::kOk);
  std::memcpy(&file.bytes()[1536 + 4], &file.bytes()[1536], 4);
  store32(&file.bytes()[1536 + 8], 0x7FFFFFFF);
  const CheckReport report = (*try_open(file, Access::kReadOnly))->check(Repair::kNone).value();
  EXPECT_EQ(report.errors, 2u);
}

TEST(Vhd, NeverWritesADamagedBlockOverItsTables) {
  MemoryStore file = dynamic(10 * kMiB);
  store32(&file.bytes()[1536], 1);  // over the header
  const auto image = try_open(file).value();
  const std::vector<uint8_t> before(file.bytes().begin(), file.bytes().begin() + 1536);
  EXPECT_EQ(image->write(0, std::vector<uint8_t>(512, 5)), Status::kIoError);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), file.bytes().begin()));
}

TEST(Vhd, AGuestsFirstSectorDoesNotSayWhatAFixedDiskIs) {
  MemoryStore file, other = dynamic(4 * kMiB);
  ASSERT_TRUE(create(file, {.size = kMiB, .settings = {{"subformat", "fixed"}}}));
  ASSERT_EQ((*try_open(file))->write(0, other.bytes()), Status::kOk);
  EXPECT_NE(error_of(file).find("are footers of two images"), std::string::npos) << error_of(file);
  // Nor does one that claims to be fixed too.
  ASSERT_TRUE(create(other = MemoryStore(), {.size = 2 * kMiB, .settings = {{"subformat", "fixed"}}}));
  std::copy_n(other.bytes().end() - 512, 512, file.bytes().begin());
  EXPECT_NE(error_of(file).find("are footers of two images"), std::string::npos) << error_of(file);
  file.bytes()[0] = 0;
  EXPECT_EQ(try_open(file).value()->geometry().size, kMiB);
}

TEST(Vhd, RefusesSettingsThatItDoesNotKnow) {
  MemoryStore file;
  const auto made = create(file, {.size = kMiB, .settings = {{"cluster_size", "4096"}}});
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find("cluster_size=4096: unknown to vhd"), std::string::npos);
  EXPECT_FALSE(create(file, {.size = uint64_t{3} << 40}));
}

TEST(WindowsName, IsTurnedIntoOneOfThisFolder) {
  EXPECT_EQ(from_windows_name(".\\base.vhd"), "base.vhd");
  EXPECT_EQ(from_windows_name("C:\\VMs\\base.vhd"), "base.vhd");
  EXPECT_EQ(from_windows_name("\\\\server\\share\\base.vhd"), "base.vhd");
  EXPECT_EQ(from_windows_name("..\\base.vhd"), "../base.vhd");
  EXPECT_EQ(to_windows_name("images/base.vhd"), ".\\images\\base.vhd");
}

TEST(Utf16, GoesBothWaysAndReplacesWhatIsNone) {
  const std::string text = "Anlage \xC3\xA4 \xE2\x82\xAC \xF0\x9F\x9A\xA2";
  for (const ByteOrder order : {ByteOrder::kLittle, ByteOrder::kBig}) {
    EXPECT_EQ(from_utf16(to_utf16(text, order), order), text);
  }
  EXPECT_EQ(from_utf16(std::vector<uint8_t>{0x00, 0xD8, 'a', 0, 'b'}, ByteOrder::kLittle),
            "\xEF\xBF\xBD"
            "a");
}

}  // namespace
}  // namespace bulkhead::block::vhd
