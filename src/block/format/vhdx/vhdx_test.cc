#include "block/format/vhdx/vhdx_image.h"

#include <gtest/gtest.h>

#include "block/format/crc32c.h"
#include "block/testing/shared_store.h"

namespace bulkhead::block::vhdx {
namespace {

constexpr uint64_t kTableAt = 3 * kMiB, kSector = 4096;

Result<std::unique_ptr<Image>> try_open(MemoryStore& file, Access access = Access::kReadWrite) {
  return vhdx::open(std::make_unique<block::testing::SharedStore>(file), access, ImageOpener("/nonexistent"));
}

std::string error_of(MemoryStore& file, Access access = Access::kReadWrite) {
  const auto image = try_open(file, access);
  return image ? "" : image.error().message;
}

MemoryStore made(std::map<std::string, std::string> settings = {}, uint64_t size = 8 * kMiB) {
  MemoryStore file;
  settings.emplace("block_size", "1048576");
  const auto done = create(file, {.size = size, .settings = std::move(settings)});
  EXPECT_TRUE(done) << done.error().message;
  return file;
}

// A log of one entry that another program wrote: the sector of data goes to `to`.
void add_log(MemoryStore& file, uint64_t to, ByteSpan data, uint64_t zero_at) {
  Guid id;
  id.fill(0x77);
  std::vector<uint8_t> entry(2 * kSector);
  const uint64_t sequence = 5, last = file.bytes().size();
  store(&entry[0], uint32_t{0x65676F6C});
  store(&entry[8], static_cast<uint32_t>(entry.size()));
  store(&entry[12], static_cast<uint32_t>(3 * kSector));
  store(&entry[16], sequence);
  store(&entry[24], uint32_t{2});
  std::ranges::copy(id, entry.begin() + 32);
  store(&entry[48], last);
  store(&entry[56], last + kMiB);
  store(&entry[64], uint32_t{0x63736564});
  std::memcpy(&entry[64 + 4], &data[4092], 4);
  std::memcpy(&entry[64 + 8], &data[0], 8);
  store(&entry[64 + 16], to);
  store(&entry[64 + 24], sequence);
  store(&entry[96], uint32_t{0x6F72657A});
  store(&entry[96 + 8], uint64_t{kSector});
  store(&entry[96 + 16], zero_at);
  store(&entry[96 + 24], sequence);
  std::memcpy(&entry[kSector], data.data(), kSector);
  store(&entry[kSector], uint32_t{0x61746164});
  store(&entry[kSector + 4], uint32_t{0});
  store(&entry[kSector + 4092], static_cast<uint32_t>(sequence));
  store(&entry[4], crc32c_without(entry, 4));
  ASSERT_EQ(file.write(kMiB + 3 * kSector, entry), Status::kOk);
  CurrentHeader header = read_header(file).value();
  header.header.log_id = id;
  ++header.header.sequence;
  ASSERT_EQ(file.write(kHeaderAt[header.slot], make_header(header.header)), Status::kOk);
}

TEST(VhdxLog, IsLookedThroughByReadersAndCarriedOutByWriters) {
  MemoryStore file = made();
  {
    const auto image = try_open(file).value();
    ASSERT_EQ(image->write(0, std::vector<uint8_t>(kMiB, 1)), Status::kOk);
    ASSERT_EQ(image->write(5 * kMiB, std::vector<uint8_t>(kMiB, 2)), Status::kOk);
  }
  // The logged table says that the first block is zero and the second lies where the fifth did.
  std::vector<uint8_t> table(kSector);
  store(&table[0], uint64_t{2});
  std::memcpy(&table[8], &file.bytes()[kTableAt + 5 * 8], 8);
  const uint64_t data_at = load<uint64_t>(&table[8]) & ~uint64_t{0xFFFFF};
  add_log(file, kTableAt, table, data_at);
  const std::vector<uint8_t> before = file.bytes();
  for (const Access access : {Access::kReadOnly, Access::kReadWrite}) {
    const auto image = try_open(file, access);
    ASSERT_TRUE(image) << image.error().message;
    std::vector<uint8_t> found(2 * kSector);
    ASSERT_EQ((*image)->read(0, found), Status::kOk);
    EXPECT_EQ(found[0], 0);
    ASSERT_EQ((*image)->read(kMiB, found), Status::kOk);
    EXPECT_EQ(found[kSector - 1], 0);
    EXPECT_EQ(found[kSector], 2);
    if (access == Access::kReadOnly) {
      EXPECT_TRUE(file.bytes() == before);
    }
  }
  EXPECT_FALSE(read_header(file)->header.has_log());
  EXPECT_EQ(load<uint64_t>(&file.bytes()[kTableAt]), 2u);
}

TEST(VhdxLog, ThatIsTornOrPointsOutsideIsRefusedOrIgnored) {
  MemoryStore file = made();
  const std::vector<uint8_t> data(kSector, 9);
  MemoryStore torn(file.bytes());
  add_log(torn, kTableAt, data, kTableAt + kSector);
  torn.bytes()[kMiB + 3 * kSector + 100] ^= 1;
  // An entry that is not whole was never finished, and what it says did not happen.
  EXPECT_EQ(error_of(torn), "");
  EXPECT_EQ(load<uint64_t>(&torn.bytes()[kTableAt]), 0u);
  MemoryStore outside(file.bytes());
  add_log(outside, 0, data, kTableAt);
  EXPECT_NE(error_of(outside).find("outside what it may change"), std::string::npos);
  MemoryStore shorter(file.bytes());
  add_log(shorter, kTableAt, data, kTableAt + kSector);
  shorter.bytes().resize(shorter.bytes().size() - kSector);
  EXPECT_NE(error_of(shorter, Access::kReadOnly).find("when its log was written"), std::string::npos);
}

TEST(VhdxHeader, TheLaterOneThatIsWholeCounts) {
  MemoryStore file = made();
  ASSERT_EQ((*try_open(file))->write(0, std::vector<uint8_t>(512, 1)), Status::kOk);
  const CurrentHeader current = read_header(file).value();
  file.bytes()[kHeaderAt[current.slot] + 9] ^= 1;
  EXPECT_EQ(read_header(file)->slot, current.slot ^ 1);
  EXPECT_EQ(error_of(file), "");
  file.bytes()[kHeaderAt[current.slot] + 9] = 0xEE;
  file.bytes()[kHeaderAt[current.slot ^ 1]] = 0;
  EXPECT_NE(error_of(file).find("neither header"), std::string::npos);
}

TEST(VhdxHeader, ASecondRegionTableStandsInForTheFirst) {
  MemoryStore file = made();
  file.bytes()[kRegionTableAt[0] + 20] ^= 1;
  EXPECT_EQ(error_of(file), "");
  // It was written anew from that.
  EXPECT_EQ(0, std::memcmp(&file.bytes()[kRegionTableAt[0]], &file.bytes()[kRegionTableAt[1]], kRegionTableBytes));
  for (const uint64_t at : kRegionTableAt) file.bytes()[at + 20] ^= 1;
  EXPECT_NE(error_of(file).find("neither region table"), std::string::npos);
}

TEST(Vhdx, SaysWhoItIsAnewWithTheFirstWriteOnly) {
  MemoryStore file = made();
  const std::string before = (*try_open(file))->info().identity;
  EXPECT_EQ((*try_open(file))->info().identity, before);
  ASSERT_EQ((*try_open(file))->write(0, std::vector<uint8_t>(512, 1)), Status::kOk);
  EXPECT_NE((*try_open(file))->info().identity, before);
}

TEST(Vhdx, HasSectorsOf4096BytesWhenMadeSo) {
  MemoryStore file = made({{"logical_sector_size", "4096"}});
  const auto image = try_open(file).value();
  EXPECT_EQ(image->geometry().sector_size, 4096u);
  EXPECT_EQ(image->info().details[2].second, "4096");
}

TEST(Vhdx, AFixedImageHasAllItsBlocksAndGrowsByWholeOnes) {
  MemoryStore file = made({{"subformat", "fixed"}});
  const auto image = try_open(file).value();
  EXPECT_EQ(image->map(0)->kind, ExtentKind::kData);
  EXPECT_EQ(image->map(0)->size, 8 * kMiB);
  ASSERT_TRUE(image->grow(10 * kMiB));
  EXPECT_EQ(image->map(0)->size, 10 * kMiB);
  EXPECT_EQ(image->check(Repair::kNone)->errors, 0u);
}

TEST(Vhdx, NamesThePlaceOfWhatMakesNoSense) {
  MemoryStore file = made();
  const uint64_t items = 2 * kMiB + 64 * kKiB;
  const auto with = [&](uint64_t at, uint32_t value) {
    MemoryStore other(file.bytes());
    store(&other.bytes()[at], value);
    return error_of(other);
  };
  EXPECT_NE(with(items, 12345).find("block size 12345"), std::string::npos) << with(items, 12345);
  EXPECT_NE(with(items + 16, 513).find("virtual size 513 at byte 2162704"), std::string::npos) << with(items + 16, 513);
  EXPECT_NE(with(items + 48, 1024).find("sectors of 1024"), std::string::npos) << with(items + 48, 1024);
  EXPECT_NE(with(items + 20, 0x100).find("need"), std::string::npos) << with(items + 20, 0x100);
  EXPECT_NE(with(2 * kMiB + 32 + 16, 0xFFFFFFF).find("lies outside its region"), std::string::npos);
}

// As other programs write them: of the first block, the first sector is the backing file's.
TEST(Vhdx, ABlockOfWhichSomeSectorsAreHereKeepsThemOnNoBackingFileOrKeepsThat) {
  MemoryStore base = made(), file;
  ASSERT_EQ((*try_open(base))->write(0, std::vector<uint8_t>(8 * kMiB, 9)), Status::kOk);
  CreateOptions options{.size = 8 * kMiB, .backing_name = "base.vhdx", .backing_format = "vhdx"};
  options.backing_identity = (*try_open(base))->info().identity;
  options.settings = {{"block_size", "1048576"}};
  ASSERT_TRUE(create(file, options));
  ImageOpener opener("/nonexistent");
  opener.take_files_from([&](const std::string&, Access) -> Result<std::unique_ptr<Store>> {
    return std::make_unique<block::testing::SharedStore>(base);
  });
  const auto open = [&](const ImageOpener& with) {
    return vhdx::open(std::make_unique<block::testing::SharedStore>(file), Access::kCommit, with).value();
  };
  ASSERT_EQ(open(opener)->write(0, std::vector<uint8_t>(kMiB, 5)), Status::kOk);
  ASSERT_EQ(file.bytes()[kTableAt], 6);
  file.bytes()[kTableAt] = 7;
  const uint64_t place = align_up(file.bytes().size(), kMiB);
  store(&file.bytes()[kTableAt + 4096 * 8], place | 6);
  file.bytes().resize(place);
  file.bytes().resize(place + kMiB, 0xFF);
  file.bytes()[place] = 0xFE;

  const auto expect = [&](uint8_t second_block) {
    const auto image = open(opener);
    std::vector<uint8_t> found(1024);
    ASSERT_EQ(image->read(0, found), Status::kOk);
    EXPECT_EQ(found[0], 9);
    EXPECT_EQ(found[512], 5);
    ASSERT_EQ(image->read(kMiB, found), Status::kOk);
    EXPECT_EQ(found[0], second_block);
    EXPECT_EQ(image->check(Repair::kNone)->errors, 0u);
  };
  ImageOpener alone = opener;
  alone.open_no_backing();
  const std::vector<uint8_t> before = file.bytes();
  const auto refused = open(alone)->set_backing("", "");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("some sectors of its block at byte 0 are the backing file's"),
            std::string::npos)
      << refused.error().message;
  EXPECT_TRUE(file.bytes() == before);
  ASSERT_TRUE(open(alone)->set_backing("other-name.vhdx", "vhdx"));
  expect(9);
  ASSERT_TRUE(open(opener)->set_backing("", ""));
  expect(0);
}

TEST(Vhdx, CheckFindsBlocksOverTheTablesAndOverEachOther) {
  MemoryStore file = made();
  ASSERT_EQ((*try_open(file))->write(0, std::vector<uint8_t>(512, 1)), Status::kOk);
  std::memcpy(&file.bytes()[kTableAt + 8], &file.bytes()[kTableAt], 8);
  store(&file.bytes()[kTableAt + 16], (2 * kMiB) | 6);
  EXPECT_EQ((*try_open(file, Access::kReadOnly))->check(Repair::kNone)->errors, 2u);
  EXPECT_EQ((*try_open(file))->write(2 * kMiB, std::vector<uint8_t>(512, 1)), Status::kIoError);
}

TEST(Crc32c, IsThatOfTheStandard) {
  const std::string_view text = "123456789";
  EXPECT_EQ(crc32c({reinterpret_cast<const uint8_t*>(text.data()), text.size()}), 0xE3069283u);
}

}  // namespace
}  // namespace bulkhead::block::vhdx
