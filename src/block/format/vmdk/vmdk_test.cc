#include "block/format/vmdk/vmdk_image.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <sstream>

#include <gtest/gtest.h>
#include <unistd.h>

#include "block/store/file/plain_file.h"
#include "block/testing/shared_store.h"

namespace bulkhead::block::vmdk {
namespace {

// A format may tell of a long run in parts.
Extent run_at(Image& image, uint64_t offset) {
  Extent run = image.map(offset).value();
  while (offset + run.size < image.geometry().size) {
    const Extent next = image.map(offset + run.size).value();
    if (next.kind != run.kind) break;
    run.size += next.size;
  }
  return run;
}

constexpr uint64_t kMiB = uint64_t{1} << 20;

Result<std::unique_ptr<Image>> try_open(MemoryStore& file, Access access = Access::kReadWrite) {
  return vmdk::open(std::make_unique<block::testing::SharedStore>(file), access, ImageOpener("/nonexistent"));
}

std::string error_of(MemoryStore& file) {
  const auto image = try_open(file);
  return image ? "" : image.error().message;
}

MemoryStore made(uint64_t size, const char* subformat = "monolithicSparse") {
  MemoryStore file;
  const auto done = create(file, {.size = size, .settings = {{"subformat", subformat}}});
  EXPECT_TRUE(done) << done.error().message;
  return file;
}

std::string text_in(MemoryStore& file) {
  return {reinterpret_cast<const char*>(&file.bytes()[512]), 10240};
}

class Folder : public ::testing::Test {
 protected:
  Folder() : path_(std::filesystem::temp_directory_path() / fmt::format("vmdk-{}", ::getpid())) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() override { std::filesystem::remove_all(path_); }
  void create(const std::string& name, uint64_t size, std::map<std::string, std::string> settings) {
    CreateOptions options{.size = size, .settings = std::move(settings), .file_name = name};
    options.create_beside = [&](const std::string& beside) { return PlainFile::create(path_ / beside); };
    const auto done = vmdk::create(*PlainFile::create(path_ / name).value(), options);
    ASSERT_TRUE(done) << done.error().message;
  }
  Result<std::unique_ptr<Image>> open(const std::string& name, Access access = Access::kReadWrite) {
    return open_image(path_ / name, "vmdk", access);
  }
  std::filesystem::path path_;
};

TEST_F(Folder, ASplitImageOpensByAnyOfItsFiles) {
  for (const char* const kind : {"twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "monolithicFlat"}) {
    const std::string stem = kind;
    create(stem + ".vmdk", 5 * kMiB / 2, {{"subformat", kind}, {"extent_size", "1048576"}});
    std::vector<uint8_t> data(5 * kMiB / 2), found(data.size());
    std::mt19937_64 random(1);
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
    ASSERT_EQ((*open(stem + ".vmdk"))->write(0, data), Status::kOk);
    unsigned files = 0;
    for (const auto& file : std::filesystem::directory_iterator(path_)) {
      if (!file.path().filename().string().starts_with(stem)) continue;
      const auto image = open(file.path().filename(), Access::kReadOnly);
      ASSERT_TRUE(image) << image.error().message;
      ASSERT_EQ((*image)->read(0, found), Status::kOk);
      EXPECT_TRUE(found == data) << file.path();
      ++files;
    }
    EXPECT_EQ(files, stem == "monolithicFlat" ? 2u : 4u);
  }
}

TEST_F(Folder, GrowingMakesFurtherExtentsAndLeavesNothingElse) {
  create("a.vmdk", kMiB, {{"subformat", "twoGbMaxExtentSparse"}, {"extent_size", "524288"}});
  std::filesystem::permissions(path_ / "a.vmdk", std::filesystem::perms(0640));
  // Of somebody else.
  std::ofstream(path_ / "a-s003.vmdk") << "mine";
  {
    const auto image = open("a.vmdk").value();
    const auto grown = image->grow(2 * kMiB);
    ASSERT_TRUE(grown) << grown.error().message;
    ASSERT_EQ(image->write(2 * kMiB - 512, std::vector<uint8_t>(512, 7)), Status::kOk);
    EXPECT_NE(open("a.vmdk").error().message.find("in use"), std::string::npos);
    EXPECT_FALSE(image->grow(kMiB));
    EXPECT_FALSE(image->grow(uint64_t{3} << 40));
  }
  EXPECT_EQ(std::filesystem::file_size(path_ / "a-s003.vmdk"), 4u);
  EXPECT_EQ(std::filesystem::status(path_ / "a.vmdk").permissions(), std::filesystem::perms(0640));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path_), {}), 6);
  const auto image = open("a-s005.vmdk").value();
  EXPECT_EQ(image->geometry().size, 2 * kMiB);
  std::vector<uint8_t> found(512);
  ASSERT_EQ(image->read(2 * kMiB - 512, found), Status::kOk);
  EXPECT_EQ(found[0], 7);
}

TEST_F(Folder, GrowingGoesPastTheFilesThatGrowthsBeforeHaveLeft) {
  create("a.vmdk", kMiB, {{"subformat", "twoGbMaxExtentSparse"}, {"extent_size", "524288"}});
  for (int i = 3; i < 50; ++i) std::ofstream(path_ / fmt::format("a-s{:03}.vmdk", i)) << "left";
  const auto grown = open("a.vmdk").value()->grow(2 * kMiB);
  ASSERT_TRUE(grown) << grown.error().message;
  EXPECT_TRUE(std::filesystem::exists(path_ / "a-s051.vmdk"));
  EXPECT_EQ(std::filesystem::file_size(path_ / "a-s049.vmdk"), 4u);
}

TEST_F(Folder, GrowingEndsWhereAFileCannotBeMade) {
  create("a.vmdk", kMiB, {{"subformat", "twoGbMaxExtentFlat"}, {"extent_size", "524288"}});
  ImageOpener opener(path_);
  unsigned tries = 0;
  opener.make_files_by([&](const std::string& name) -> Result<std::unique_ptr<Store>> {
    ++tries;
    return fail("create '{}': no space", name);
  });
  const auto image =
      vmdk::open(PlainFile::open(path_ / "a.vmdk", Access::kReadWrite).value(), Access::kReadWrite, opener);
  const auto grown = (*image)->grow(2 * kMiB);
  ASSERT_FALSE(grown);
  EXPECT_EQ(grown.error().message, "create 'a-f003.vmdk': no space");
  EXPECT_EQ(tries, 1u);
}

TEST_F(Folder, AGrowthWhoseDescriptorHasNoRoomLeavesNothing) {
  create("a.vmdk", 800'256, {{"subformat", "twoGbMaxExtentSparse"}, {"extent_size", "524288"}});
  const auto size = std::filesystem::file_size(path_ / "a.vmdk");
  std::ofstream(path_ / "a.vmdk", std::ios::app) << "#" << std::string(kMostDescriptorBytes - size - 11, 'x') << '\n';
  const auto last = std::filesystem::file_size(path_ / "a-s002.vmdk");
  const auto grown = open("a.vmdk").value()->grow(2 * kMiB);
  ASSERT_FALSE(grown);
  EXPECT_NE(grown.error().message.find("no room for a descriptor"), std::string::npos) << grown.error().message;
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path_), {}), 3);
  EXPECT_EQ(std::filesystem::file_size(path_ / "a-s002.vmdk"), last);
  EXPECT_EQ(open("a.vmdk").value()->geometry().size, 800'256u);
}

// As a growth leaves it that was cut short before the descriptor, by a program that had written there.
TEST_F(Folder, GrowingIntoASparseExtentThatIsLargerThanItsLineShowsZeroes) {
  create("base.vmdk", kMiB, {});
  ASSERT_EQ((*open("base.vmdk"))->write(0, std::vector<uint8_t>(kMiB, 9)), Status::kOk);
  for (const bool has_parent : {false, true}) {
    create(has_parent ? "b.vmdk" : "a.vmdk", kMiB, {{"subformat", "twoGbMaxExtentSparse"}});
    const auto text_at = path_ / (has_parent ? "b.vmdk" : "a.vmdk");
    if (has_parent) {
      ASSERT_TRUE(open("b.vmdk").value()->set_backing("base.vmdk", "vmdk"));
    }
    ASSERT_EQ((*open(text_at.filename()))->write(700 * 1024, std::vector<uint8_t>(100 * 1024, 7)), Status::kOk);
    std::stringstream text;
    text << std::ifstream(text_at).rdbuf();
    std::string shorter = text.str();
    ASSERT_NE(shorter.find("RW 2048 "), std::string::npos);
    shorter.replace(shorter.find("RW 2048 "), 8, "RW 1023 ");
    std::ofstream(text_at) << shorter;
    const auto image = open(text_at.filename()).value();
    ASSERT_EQ(image->geometry().size, 1023 * 512u);
    for (const uint64_t size : {900 * 1024, 2 * 1024 * 1024}) {
      // A backing file that is longer than the disk has other reasons not to grow further than its extent.
      if (has_parent && size > kMiB) break;
      const auto grown = image->grow(size);
      ASSERT_TRUE(grown) << grown.error().message;
      std::vector<uint8_t> found(size - 1023 * 512);
      ASSERT_EQ(image->read(1023 * 512, found), Status::kOk);
      EXPECT_EQ(std::ranges::count(found, 0), static_cast<ptrdiff_t>(found.size())) << size;
    }
    std::vector<uint8_t> sector(512);
    ASSERT_EQ(image->read(1022 * 512, sector), Status::kOk);
    EXPECT_EQ(sector[0], has_parent ? 9 : 0);
    EXPECT_EQ(image->check(Repair::kNone)->errors, 0u);
  }
}

// Another image's extent may lie behind this one's in the same file.
TEST_F(Folder, GrowingCutsOffNothingThatIsAnothers) {
  create("mine.vmdk", kMiB, {{"subformat", "monolithicFlat"}});
  {
    std::fstream file(path_ / "mine-flat.vmdk", std::ios::in | std::ios::out);
    file.seekp(kMiB + 100'000);
    file << "another's";
  }
  const auto before = std::filesystem::file_size(path_ / "mine-flat.vmdk");
  const auto refused = open("mine.vmdk").value()->grow(2 * kMiB);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("lies something else"), std::string::npos) << refused.error().message;
  EXPECT_EQ(std::filesystem::file_size(path_ / "mine-flat.vmdk"), before);
  // Zeroes are nobody's.
  std::filesystem::resize_file(path_ / "mine-flat.vmdk", kMiB);
  std::filesystem::resize_file(path_ / "mine-flat.vmdk", kMiB + 4096);
  EXPECT_TRUE(open("mine.vmdk").value()->grow(2 * kMiB));
}

TEST_F(Folder, WhatAGuestWritesIntoAFlatExtentIsNoDescriptor) {
  create("mine.vmdk", kMiB, {{"subformat", "monolithicFlat"}});
  create("other.vmdk", 2 * kMiB, {{"subformat", "monolithicFlat"}});
  const auto other = PlainFile::open(path_ / "other.vmdk", Access::kReadOnly).value();
  std::vector<uint8_t> text(512);
  ASSERT_EQ(other->read(0, text), Status::kOk);
  ASSERT_EQ(open("mine.vmdk").value()->write(0, text), Status::kOk);
  const auto found = open("mine-flat.vmdk");
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ((*found)->geometry().size, kMiB);
}

TEST_F(Folder, AnExtentThatIsMissingOrTooSmallIsNamed) {
  create("a.vmdk", 3 * kMiB, {{"subformat", "twoGbMaxExtentFlat"}, {"extent_size", "1048576"}});
  std::filesystem::resize_file(path_ / "a-f002.vmdk", kMiB - 512);
  const auto small = open("a.vmdk");
  ASSERT_FALSE(small);
  EXPECT_NE(small.error().message.find("'a-f002.vmdk' has 1048064 bytes"), std::string::npos) << small.error().message;
  std::filesystem::remove(path_ / "a-f002.vmdk");
  EXPECT_NE(open("a.vmdk").error().message.find("a-f002.vmdk"), std::string::npos);
}

TEST_F(Folder, AParentThatWasWrittenToIsRefused) {
  create("base.vmdk", kMiB, {});
  CreateOptions options{.size = kMiB, .backing_name = "base.vmdk", .backing_format = "vmdk"};
  options.backing_identity = (*open("base.vmdk", Access::kReadOnly))->info().identity;
  ASSERT_TRUE(vmdk::create(*PlainFile::create(path_ / "top.vmdk").value(), options));
  ASSERT_TRUE(open("top.vmdk"));
  ASSERT_EQ((*open("base.vmdk"))->write(0, std::vector<uint8_t>(512, 1)), Status::kOk);
  const auto image = open("top.vmdk");
  ASSERT_FALSE(image);
  EXPECT_NE(image.error().message.find("changed since"), std::string::npos) << image.error().message;
}

// Its descriptor stands inside, and all that counts in it in one sector, which a power cut does not tear.
TEST_F(Folder, ANameOfAParentThatHasNoRoomIsRefusedAndChangesNothing) {
  const std::string folder(200, 'f'), name = folder + "/" + std::string(150, 'b') + ".vmdk";
  std::filesystem::create_directories(path_ / folder);
  create(name, kMiB, {});
  create("top.vmdk", kMiB, {});
  std::stringstream before, after;
  before << std::ifstream(path_ / "top.vmdk").rdbuf();
  {
    const auto image = open("top.vmdk").value();
    for (const auto& refused : {image->may_set_backing(name, "vmdk"), image->set_backing(name, "vmdk")}) {
      ASSERT_FALSE(refused);
      EXPECT_NE(refused.error().message.find("no room for a descriptor of "), std::string::npos)
          << refused.error().message;
    }
  }
  after << std::ifstream(path_ / "top.vmdk").rdbuf();
  EXPECT_TRUE(before.str() == after.str());
  // In a file of its own it may be as long as it likes.
  create("split.vmdk", kMiB, {{"subformat", "twoGbMaxExtentSparse"}});
  const auto set = open("split.vmdk").value()->set_backing(name, "vmdk");
  EXPECT_TRUE(set) << set.error().message;
}

TEST(VmdkStream, HoldsWhatItWasFilledWithAndIsReadOnlyThen) {
  MemoryStore file = made(40 * kMiB + 512, "streamOptimized");
  EXPECT_EQ((*try_open(file, Access::kReadOnly))->check(Repair::kNone)->errors, 0u);
  std::vector<uint8_t> grain(65536, 7), found(65536);
  {
    const auto image = try_open(file, Access::kFill).value();
    EXPECT_EQ(image->fill_order(), FillOrder::kAscending);
    ASSERT_EQ(image->write(65536, grain), Status::kOk);
    EXPECT_EQ(image->write(0, grain), Status::kUnsupported);
    EXPECT_EQ(image->write(3 * 65536, ByteSpan(grain).first(512)), Status::kUnsupported);
    ASSERT_EQ(image->write(35 * kMiB, grain), Status::kOk);
    ASSERT_EQ(image->write(40 * kMiB, ByteSpan(grain).first(512)), Status::kOk);
    ASSERT_EQ(image->flush(), Status::kOk);
    EXPECT_EQ(image->write(40 * kMiB, ByteSpan(grain).first(512)), Status::kUnsupported);
  }
  EXPECT_LT(file.bytes().size(), 100000u);
  EXPECT_NE(error_of(file).find("can only be read"), std::string::npos);
  const auto image = try_open(file, Access::kReadOnly).value();
  for (const uint64_t at : {uint64_t{65536}, 35 * kMiB}) {
    ASSERT_EQ(image->read(at, found), Status::kOk);
    EXPECT_TRUE(found == grain);
  }
  ASSERT_EQ(image->read(0, found), Status::kOk);
  EXPECT_EQ(found[0], 0);
  ASSERT_EQ(image->read(40 * kMiB, MutableByteSpan(found).first(512)), Status::kOk);
  EXPECT_EQ(found[511], 7);
  EXPECT_EQ(image->check(Repair::kNone)->errors, 0u);
}

TEST(VmdkStream, ADamagedGrainIsAnErrorAndCheckFindsAWrongMarker) {
  MemoryStore file = made(kMiB, "streamOptimized");
  std::vector<uint8_t> grain(65536, 7);
  {
    const auto image = try_open(file, Access::kFill).value();
    ASSERT_EQ(image->write(0, grain), Status::kOk);
    ASSERT_EQ(image->flush(), Status::kOk);
  }
  file.bytes()[65536 + 20] ^= 0x55;
  EXPECT_EQ((*try_open(file, Access::kReadOnly))->read(0, grain), Status::kIoError);
  file.bytes()[65536] = 128;
  EXPECT_EQ((*try_open(file, Access::kReadOnly))->check(Repair::kNone)->errors, 1u);
}

TEST(VmdkSparse, RepairsTheSecondTablesAfterAPowerCut) {
  MemoryStore file = made(4 * kMiB);
  ASSERT_EQ((*try_open(file))->write(0, std::vector<uint8_t>(512, 5)), Status::kOk);
  EXPECT_EQ(file.bytes()[72], 0);
  const size_t redundant = (21 + 1) * 512;
  ASSERT_NE(load<uint32_t>(&file.bytes()[redundant]), 0u);
  store(&file.bytes()[redundant], uint32_t{0});
  EXPECT_EQ((*try_open(file, Access::kReadOnly))->check(Repair::kNone)->errors, 1u);
  file.bytes()[72] = 1;
  EXPECT_EQ((*try_open(file))->check(Repair::kNone)->errors, 0u);
  EXPECT_EQ(file.bytes()[72], 0);
}

TEST(VmdkSparse, CutsOffWhatNoTableNamesAfterAPowerCut) {
  MemoryStore file = made(4 * kMiB);
  const size_t size = file.bytes().size();
  file.bytes().resize(size + 3 * 65536, 0xAA);
  file.bytes()[72] = 1;
  const auto image = try_open(file).value();
  EXPECT_EQ(file.bytes().size(), size);
  ASSERT_EQ(image->write(512, std::vector<uint8_t>(512, 5)), Status::kOk);
  std::vector<uint8_t> found(1536);
  ASSERT_EQ(image->read(0, found), Status::kOk);
  EXPECT_EQ(found[0], 0);
  EXPECT_EQ(found[1024], 0);
}

TEST(VmdkSparse, KnowsGrainsOfZeroes) {
  MemoryStore file = made(4 * kMiB);
  ASSERT_EQ((*try_open(file))->write(0, std::vector<uint8_t>(512, 5)), Status::kOk);
  file.bytes()[4] = 2;
  file.bytes()[8] |= kHasZeroGrains;
  const size_t table = (21 + 1 + 4 + 1) * 512;
  store(&file.bytes()[table + 4], uint32_t{1});
  const auto image = try_open(file, Access::kReadOnly).value();
  EXPECT_EQ(image->map(65536)->kind, ExtentKind::kZero);
  std::vector<uint8_t> found(512, 1);
  ASSERT_EQ(image->read(65536, found), Status::kOk);
  EXPECT_EQ(found[0], 0);
}

TEST(VmdkSparse, MakesTablesWhereThereAreNone) {
  MemoryStore file = made(100 * kMiB);
  // The second and later tables of both directories are not there.
  for (const size_t directory : {size_t{21}, size_t{21 + 1 + 4 * 4}}) {
    std::memset(&file.bytes()[directory * 512 + 4], 0, 3 * 4);
  }
  {
    const auto image = try_open(file).value();
    EXPECT_EQ(run_at(*image, 0).size, 100 * kMiB);
    ASSERT_EQ(image->write(70 * kMiB, std::vector<uint8_t>(512, 5)), Status::kOk);
  }
  const auto image = try_open(file).value();
  std::vector<uint8_t> found(512);
  ASSERT_EQ(image->read(70 * kMiB, found), Status::kOk);
  EXPECT_EQ(found[0], 5);
  const CheckReport report = image->check(Repair::kNone).value();
  EXPECT_EQ(report.errors + report.leaks, 0u);
}

TEST(VmdkSparse, NamesThePlaceOfWhatMakesNoSense) {
  MemoryStore file = made(4 * kMiB);
  const auto with = [&](size_t at, uint8_t value) {
    MemoryStore other(file.bytes());
    other.bytes()[at] = value;
    return error_of(other);
  };
  EXPECT_NE(with(4, 9).find("version 9 at byte 4"), std::string::npos);
  EXPECT_NE(with(20, 3).find("3 sectors at byte 20"), std::string::npos);
  EXPECT_NE(with(44, 3).find("at byte 44"), std::string::npos);
  EXPECT_NE(with(60, 9).find("(byte 56) lies outside the file"), std::string::npos);
  EXPECT_NE(with(73, '\r').find("as if it were text"), std::string::npos);
  EXPECT_NE(with(77, 1).find("at byte 77"), std::string::npos);
}

TEST(VmdkSparse, ACompressedGrainIsSmallEnoughToBeUnpackedForEachPiece) {
  MemoryStore file = made(4 * kMiB);
  for (const auto& [at, value] : {std::pair(10, 1), std::pair(77, 1), std::pair(20, 0), std::pair(21, 0x20)}) {
    file.bytes()[static_cast<size_t>(at)] = static_cast<uint8_t>(value);
  }
  EXPECT_NE(error_of(file).find("grain of 8192 sectors at byte 20, allowed are powers of two up to 4096"),
            std::string::npos)
      << error_of(file);
}

TEST(VmdkSparse, ChangesItsIdWithTheFirstWriteOfAnOpening) {
  MemoryStore file = made(4 * kMiB);
  const std::string before = (*try_open(file))->info().identity;
  EXPECT_EQ((*try_open(file))->info().identity, before);
  {
    const auto image = try_open(file).value();
    ASSERT_EQ(image->write(0, std::vector<uint8_t>(512, 5)), Status::kOk);
    const std::string after = image->info().identity;
    EXPECT_NE(after, before);
    ASSERT_EQ(image->write(0, std::vector<uint8_t>(512, 6)), Status::kOk);
    EXPECT_EQ(image->info().identity, after);
  }
  EXPECT_NE(text_in(file).find("CID=" + (*try_open(file))->info().identity), std::string::npos);
}

// ---- Snapshots of ESXi ----

// An extent whose grains are single sectors: those that are named are filled with a byte each.
std::vector<uint8_t> server_extent(uint32_t sectors, const std::map<uint32_t, uint8_t>& grains) {
  constexpr uint32_t kTableSectors = kServerTableEntries * 4 / kSector;
  const uint32_t tables = (sectors + kServerTableEntries - 1) / kServerTableEntries, directory = 4;
  uint32_t end = directory + (tables * 4 + 511) / 512;
  std::vector<uint8_t> bytes(uint64_t{end} * kSector);
  const uint32_t fields[] = {0x44574F43, 1, 3, sectors, 1, directory, tables, 0};
  std::memcpy(bytes.data(), fields, sizeof fields);
  for (const auto& [grain, fill] : grains) {
    const uint64_t entry = directory * kSector + grain / kServerTableEntries * 4;
    if (load<uint32_t>(&bytes[entry]) == 0) {
      store(&bytes[entry], end);
      end += kTableSectors;
      bytes.resize(end * kSector);
    }
    store(&bytes[load<uint32_t>(&bytes[entry]) * kSector + grain % kServerTableEntries * 4], end++);
    bytes.resize(end * kSector, fill);
  }
  return bytes;
}

class ServerSnapshot : public Folder {
 protected:
  ServerSnapshot() {
    put("vm.vmdk", describe("0000aaaa", "ffffffff", "vmfs", "VMFS \"vm-flat.vmdk\"", ""));
    put("vm-flat.vmdk", std::string(kSectors * kSector, 'f'));
    put("vm-000001.vmdk", describe("0000bbbb", "0000aaaa", "vmfsSparse", "VMFSSPARSE \"vm-000001-delta.vmdk\"",
                                   "parentFileNameHint=\"vm.vmdk\"\n"));
    put_extent(server_extent(kSectors, {{0, 1}, {1, 2}, {5000, 3}, {kSectors - 1, 4}}));
  }
  static std::string describe(const char* id, const char* parent, const char* type, const char* extent,
                              const char* hint) {
    return fmt::format("# Disk DescriptorFile\nversion=1\nCID={}\nparentCID={}\ncreateType=\"{}\"\n{}RW {} {}\n", id,
                       parent, type, hint, kSectors, extent);
  }
  void put(const std::string& name, const std::string& text) const { std::ofstream(path_ / name) << text; }
  void put_extent(const std::vector<uint8_t>& bytes) const {
    put("vm-000001-delta.vmdk", std::string(bytes.begin(), bytes.end()));
  }
  std::string error(Access access = Access::kReadOnly) {
    const auto image = open("vm-000001.vmdk", access);
    return image ? "" : image.error().message;
  }
  static constexpr uint32_t kSectors = 12000;
};

TEST_F(ServerSnapshot, IsReadThroughToWhatItStandsOn) {
  for (const char* const name : {"vm-000001.vmdk", "vm-000001-delta.vmdk"}) {
    const auto image = open(name, Access::kReadOnly);
    ASSERT_TRUE(image) << image.error().message;
    EXPECT_TRUE((*image)->geometry().read_only);
    EXPECT_EQ((*image)->geometry().size, kSectors * kSector);
    std::vector<uint8_t> data(kSectors * kSector);
    ASSERT_EQ((*image)->read(0, data), Status::kOk);
    const std::map<uint32_t, uint8_t> here = {{0, 1}, {1, 2}, {5000, 3}, {kSectors - 1, 4}};
    for (uint32_t sector = 0; sector < kSectors; ++sector) {
      const uint8_t expected = here.contains(sector) ? here.at(sector) : 'f';
      ASSERT_EQ(data[sector * kSector], expected) << sector;
      ASSERT_EQ(data[sector * kSector + 511], expected) << sector;
    }
    const Extent first = run_at(**image, 0), second = run_at(**image, 2 * kSector);
    EXPECT_EQ(first.size, 2 * kSector);
    EXPECT_EQ(first.kind, ExtentKind::kData);
    EXPECT_EQ(second.size, 4998 * kSector);
    EXPECT_EQ(second.kind, ExtentKind::kAbsent);
    const auto report = (*image)->check(Repair::kNone).value();
    EXPECT_EQ(report.errors + report.leaks, 0u);
  }
}

TEST_F(ServerSnapshot, IsNotWritten) {
  EXPECT_NE(
      error(Access::kReadWrite).find("'vm-000001-delta.vmdk' is an ESXi snapshot's (COWD), which can only be read"),
      std::string::npos)
      << error(Access::kReadWrite);
}

TEST_F(ServerSnapshot, NamesWhatMakesNoSense) {
  struct Wrong {
    size_t field;
    uint32_t value;
    const char* message;
  };
  const Wrong all[] = {{1, 3, "version 3 of COWD at byte 4"},
                       {4, 3, "grain of 3 sectors at byte 16"},
                       {5, 1 << 20, "grain directory at sector 0x100000 (byte 20) lies outside the file"},
                       {5, 0, "grain directory at sector 0x0 (byte 20)"},
                       {6, 2, "a grain directory of 2 entries at byte 24, 12000 sectors need 3"},
                       {3, 11999, "has 6143488 bytes, its descriptor says 6144000"}};
  const std::vector<uint8_t> good = server_extent(kSectors, {{0, 1}, {5000, 3}});
  for (const Wrong& wrong : all) {
    std::vector<uint8_t> bytes = good;
    store(&bytes[wrong.field * 4], wrong.value);
    put_extent(bytes);
    EXPECT_NE(error().find(wrong.message), std::string::npos) << error();
  }
  // Tables and grains outside the file are errors of what is read, and found.
  for (const uint32_t at : {4 * 512u, 5 * 512u}) {
    std::vector<uint8_t> bytes = good;
    store(&bytes[at], 0x7FFFFFFFu);
    put_extent(bytes);
    const auto image = open("vm-000001.vmdk", Access::kReadOnly).value();
    std::vector<uint8_t> data(512);
    EXPECT_EQ(image->read(0, data), Status::kIoError);
    const auto report = image->check(Repair::kNone);
    EXPECT_TRUE(!report || report->errors == 1);
  }
  put("other.vmdk", std::string(good.begin(), good.end()));
  const auto image = open("other.vmdk", Access::kReadOnly);
  ASSERT_FALSE(image);
  EXPECT_NE(image.error().message.find("an extent of a VMDK image; name the image's descriptor"), std::string::npos);
}

// However many directory entries name one table.
TEST_F(ServerSnapshot, ACheckEndsWhereTablesLieInOneAnother) {
  std::vector<uint8_t> bytes = server_extent(kSectors, {{0, 1}});
  store(&bytes[12], 1u << 28);
  store(&bytes[24], 1u << 16);
  bytes.resize(4 * 512 + (4u << 16));
  const auto table = load<uint32_t>(&bytes[4 * 512]);
  for (size_t at = 4 * 512; at < bytes.size(); at += 4) store(&bytes[at], table);
  put_extent(bytes);
  const auto report = open("vm-000001.vmdk", Access::kReadOnly).value()->check(Repair::kNone);
  ASSERT_FALSE(report);
  EXPECT_NE(report.error().message.find("tables lie in one another"), std::string::npos);
}

TEST(VmdkDescriptor, IsReadAsProductsWriteIt) {
  const auto found = parse_descriptor(
      "# Disk DescriptorFile\r\nversion=1\r\nencoding=\"windows-1252\"\r\nCID=fffffffe\r\nparentCID=ffffffff\r\n"
      "isNativeSnapshot=\"no\"\r\ncreateType=\"vmfs\"\r\n\r\n# Extent description\r\n"
      "RW 4192256 VMFS \"my disk-flat.vmdk\"\r\nRW 100 ZERO\r\nRDONLY 63 FLAT \"mbr.vmdk\" 8\r\n"
      "ddb.adapterType = \"lsilogic\"\r\n",
      "x");
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->type, "vmfs");
  EXPECT_EQ(found->id, 0xFFFFFFFEu);
  ASSERT_EQ(found->extents.size(), 3u);
  EXPECT_EQ(found->extents[0].file, "my disk-flat.vmdk");
  EXPECT_EQ(found->extents[1].type, ExtentType::kZero);
  EXPECT_EQ(found->extents[2].offset, 8u);
  EXPECT_EQ(found->extents[2].access, ExtentAccess::kReadOnly);
  EXPECT_EQ(found->adapter, "lsilogic");
}

TEST(VmdkDescriptor, NamesTheLineOfWhatMakesNoSense) {
  const auto error = [](const std::string& lines) {
    const auto found = parse_descriptor("# Disk DescriptorFile\nCID=1\n" + lines, "x");
    return found ? "" : found.error().message;
  };
  EXPECT_EQ(error("RW 8 FLAT \"a\"\n"), "");
  EXPECT_NE(error("RW eight FLAT \"a\"\n").find("line 3: size of the extent"), std::string::npos);
  EXPECT_NE(error("\nRW 8 SESPARSE \"a\"\n").find("line 4: extents of type SESPARSE are not supported"),
            std::string::npos);
  EXPECT_NE(error("RW 8 FLAT\n").find("line 3: no file"), std::string::npos);
  EXPECT_NE(error("parentCID=xyz\n").find("line 3: parentCID"), std::string::npos);
  EXPECT_NE(error("").find("names no extent"), std::string::npos);
  EXPECT_FALSE(parse_descriptor("# Disk DescriptorFile\nRW 8 FLAT \"a\"\n", "x"));
}

TEST(VmdkDescriptor, IsFoundByTheNameOfAnExtent) {
  EXPECT_EQ(descriptor_of_extent("disk-s001.vmdk"), "disk.vmdk");
  EXPECT_EQ(descriptor_of_extent("my-disk-f1024.vmdk"), "my-disk.vmdk");
  EXPECT_EQ(descriptor_of_extent("disk-flat.vmdk"), "disk.vmdk");
  EXPECT_EQ(descriptor_of_extent("disk-000001-delta.vmdk"), "disk-000001.vmdk");
  EXPECT_EQ(descriptor_of_extent("disk.vmdk"), "");
  EXPECT_EQ(descriptor_of_extent("disk-system.vmdk"), "");
  EXPECT_EQ(descriptor_of_extent("-flat.vmdk"), "");
  EXPECT_EQ(descriptor_of_extent("disk-s001.img"), "");
}

}  // namespace
}  // namespace bulkhead::block::vmdk
