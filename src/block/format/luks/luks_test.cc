#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "block/format/big_endian.h"
#include "block/format/luks/luks_image.h"
#include "block/format/luks/volume_key.h"
#include "block/testing/shared_store.h"

namespace bulkhead::block::luks {
namespace {

using testing::SharedStore;

std::shared_ptr<DiskKey> key_of(std::string_view text) {
  return std::make_shared<DiskKey>(Secret(ByteSpan(reinterpret_cast<const uint8_t*>(text.data()), text.size())));
}

using Words = std::map<std::string, std::string>;

struct Shape {
  const char* name;
  Words settings;
};

class EveryVolume : public ::testing::TestWithParam<Shape> {
 protected:
  void create(uint64_t size) {
    const auto made = luks::create(file_, {.size = size, .settings = GetParam().settings, .key = key_of("secret")});
    ASSERT_TRUE(made) << made.error().message;
  }
  Result<std::unique_ptr<Image>> open(std::shared_ptr<DiskKey> key, Access access = Access::kReadWrite) {
    ImageOpener opener("/nonexistent");
    opener.use_key({.key = std::move(key)});
    return luks::open(std::make_unique<SharedStore>(file_), access, opener);
  }
  MemoryStore file_;
};

TEST_P(EveryVolume, HoldsWhatWasWritten) {
  create(1 << 20);
  std::vector<uint8_t> bytes(1 << 20), found(1 << 20);
  std::mt19937_64 random(1);
  std::ranges::generate(bytes, [&] { return static_cast<uint8_t>(random()); });
  {
    const auto image = open(key_of("secret")).value();
    ASSERT_EQ(image->geometry().size, bytes.size());
    ASSERT_EQ(image->write(0, bytes), Status::kOk);
    ASSERT_EQ(image->write_zeroes(4096, 8192, Unmap::kYes), Status::kOk);
    ASSERT_EQ(image->flush(), Status::kOk);
  }
  std::fill_n(bytes.begin() + 4096, 8192, uint8_t{0});
  const auto image = open(key_of("secret"), Access::kReadOnly).value();
  ASSERT_EQ(image->read(0, found), Status::kOk);
  EXPECT_TRUE(found == bytes);
  EXPECT_FALSE(image->starts_as_zeroes());
  EXPECT_EQ(image->check(Repair::kNone).value().errors, 0u);
  EXPECT_TRUE(std::ranges::search(file_.bytes(), std::span(bytes).first(64)).empty());
}

TEST_P(EveryVolume, NeedsItsSecret) {
  create(1 << 20);
  EXPECT_NE(open(nullptr).error().message.find("it is encrypted; state its secret"), std::string::npos);
  const std::string wrong = open(key_of("secret\n")).error().message;
  EXPECT_NE(wrong.find("opens none of 1 keyslots; it ends with a newline, which counts"), std::string::npos) << wrong;
  EXPECT_EQ(wrong.find("secret\n"), std::string::npos);
}

TEST_P(EveryVolume, CanBeLookedAtWithoutASecret) {
  create(1 << 20);
  ImageOpener opener("/nonexistent");
  opener.use_key({.may_stay_locked = true});
  const auto image = luks::open(std::make_unique<SharedStore>(file_), Access::kReadOnly, opener).value();
  std::vector<uint8_t> bytes(512, 9);
  EXPECT_EQ(image->read(0, bytes), Status::kUnsupported);
  EXPECT_EQ(image->info().virtual_size, uint64_t{1} << 20);
}

TEST_P(EveryVolume, GrowsWithZeroesAndShrinks) {
  create(1 << 20);
  const auto image = open(key_of("secret")).value();
  ASSERT_TRUE(image->grow(3 << 20));
  std::vector<uint8_t> bytes(2 << 20, 9);
  ASSERT_EQ(image->read(1 << 20, bytes), Status::kOk);
  EXPECT_TRUE(std::ranges::all_of(bytes, [](uint8_t byte) { return byte == 0; }));
  ASSERT_TRUE(image->shrink(8192));
  EXPECT_EQ(open(key_of("secret"), Access::kReadOnly).value()->geometry().size, 8192u);
}

TEST_P(EveryVolume, OneKeyOpensItAgainWithoutADerivation) {
  create(1 << 20);
  const auto key = key_of("secret");
  ASSERT_TRUE(open(key));
  // The keyslot's area is gone; what is known of the volume still opens it.
  const Header header = read_header(file_, 0, file_.bytes().size()).value();
  std::fill_n(file_.bytes().begin() + static_cast<ptrdiff_t>(header.keyslots[0].offset), 4096, uint8_t{0});
  EXPECT_TRUE(open(key));
  EXPECT_FALSE(open(key_of("secret")));
}

const Words kQuick2{{"kdf", "argon2id"}, {"memory", "64"}, {"iterations", "1"}};
INSTANTIATE_TEST_SUITE_P(
    Luks, EveryVolume,
    ::testing::Values(Shape{"One", {{"version", "1"}, {"iterations", "1000"}}},
                      Shape{"OneEssiv", {{"version", "1"}, {"iterations", "1000"}, {"cipher", "aes-cbc-essiv:sha256"}}},
                      Shape{"TwoArgon2", kQuick2},
                      Shape{"TwoPbkdf2", {{"kdf", "pbkdf2"}, {"iterations", "1000"}, {"key_size", "256"}}},
                      Shape{"TwoOfLargeSectors", {{"memory", "64"}, {"iterations", "1"}, {"sector_size", "4096"}}}),
    [](const auto& shape) { return std::string(shape.param.name); });

TEST(Splitter, GivesBackWhatWasSplit) {
  const std::vector<uint8_t> key(61, 0x5A);
  for (const char* const hash : {"sha1", "sha256", "sha512", "ripemd160"}) {
    const Secret stripes = split(key, 100, hash).value();
    ASSERT_EQ(stripes.size(), key.size() * 100);
    EXPECT_TRUE(std::ranges::equal(merge(stripes.bytes(), key.size(), hash)->bytes(), key)) << hash;
    // Any bit that is missing takes at least as much as a hash has with it.
    std::vector<uint8_t> damaged(stripes.bytes().begin(), stripes.bytes().end());
    damaged[1234] ^= 1;
    const Secret other = merge(damaged, key.size(), hash).value();
    EXPECT_GT(std::ranges::count_if(other.bytes(), [](uint8_t byte) { return byte != 0x5A; }), 15) << hash;
  }
}

// A new volume, a change in it, and what opening it says.
class HostileVolume : public ::testing::Test {
 protected:
  void create(Words settings) {
    settings.insert({"iterations", settings.contains("memory") ? "1" : "1000"});
    ASSERT_TRUE(luks::create(file_, {.size = 1 << 20, .settings = settings, .key = key_of("secret")}));
  }
  std::string opened() {
    ImageOpener opener("/nonexistent");
    opener.use_key({.key = key_of("secret")});
    const auto image = luks::open(std::make_unique<SharedStore>(file_), Access::kReadOnly, opener);
    return image ? "opened" : image.error().message;
  }
  // As if the JSON had always been so: in the first header, and without the second.
  void replace(const std::string& from, const std::string& to) {
    auto* const json = reinterpret_cast<char*>(&file_.bytes()[kBinaryBytes]);
    std::string text(json);
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << text;
    text.replace(at, from.size(), to);
    said_ = parse2(text, "memory", file_.bytes().size());
  }
  MemoryStore file_;
  Result<Header> said_ = Header();
};

TEST_F(HostileVolume, RefusesWhatWouldTakeTooMuch) {
  create({{"memory", "64"}});
  const auto unlocked = [&]() -> std::string {
    if (!said_) return said_.error().message;
    const auto key = key_of("secret");
    const auto found = unlock(file_, 0, *said_, *key);
    return found ? "unlocked" : found.error().message;
  };
  replace("\"memory\":64", "\"memory\":64");
  EXPECT_EQ(unlocked(), "unlocked");
  for (const auto& [from, to, why] :
       {std::tuple(R"("memory":64)", R"("memory":1048577)", "1048577 KiB of memory; allowed are 1048576"),
        std::tuple(R"("time":1)", R"("time":4294967295)", "takes more time than is allowed"),
        std::tuple(R"("cpus":4)", R"("cpus":17)", "17 lanes; allowed are 16"),
        std::tuple(R"("cpus":4)", R"("cpus":99)", "cpus '99'; allowed are 1 to 64"),
        std::tuple(R"("iterations":100000)", R"("iterations":2147483647)", "takes more time than is allowed"),
        std::tuple(R"("stripes":4000)", R"("stripes":1000000)", "stripes '1000000'"),
        std::tuple(R"("key_size":64)", R"("key_size":65)", "key_size '65'"),
        std::tuple(R"("hash":"sha256")", R"("hash":"md5")", "hash 'md5'"),
        std::tuple(R"("type":"crypt")", R"("type":"linear")", "segment of type 'linear'"),
        std::tuple(R"("sector_size":512)", R"("sector_size":768)", "sectors of 768 bytes"),
        std::tuple(R"("offset":"32768")", R"("offset":"99999999")", "bytes at 99999999 do not hold"),
        std::tuple(R"("config":{)", R"("config":{"requirements":{"mandatory":["online-reencrypt"]},)",
                   "requirements")}) {
    replace(from, to);
    EXPECT_NE(unlocked().find(why), std::string::npos) << to << ": " << unlocked();
  }
}

TEST_F(HostileVolume, RefusesKeyslotsThatTogetherTakeTooMuch) {
  create({{"version", "1"}});
  Header header = read_header(file_, 0, file_.bytes().size()).value();
  header.keyslots.assign(8, header.keyslots[0]);
  for (Keyslot& slot : header.keyslots) slot.kdf.iterations = 2000;
  const auto key = key_of("wrong");
  const auto found = unlock(file_, 0, header, *key, {.pbkdf2_iterations = 10000});
  EXPECT_NE(found.error().message.find("more time than is allowed"), std::string::npos) << found.error().message;
}

TEST_F(HostileVolume, RefusesFieldsThatMakeNoSense) {
  const auto with = [&](size_t at, uint32_t value) {
    MemoryStore kept = file_;
    store32(&file_.bytes()[at], value);
    std::string said = opened();
    file_.bytes() = kept.bytes();
    return said;
  };
  create({{"version", "1"}});
  EXPECT_EQ(opened(), "opened");
  EXPECT_NE(with(108, 65).find("a key of 65 bytes"), std::string::npos);
  EXPECT_NE(with(104, 100).find("reaches into the disk"), std::string::npos);
  EXPECT_NE(with(104, UINT32_MAX).find("behind the end of the file"), std::string::npos);
  EXPECT_NE(with(208, 7).find("keyslot 0 at byte 208 is marked 0x7"), std::string::npos);
  EXPECT_NE(with(208 + 40, 0).find("lie outside of the header"), std::string::npos);
  EXPECT_NE(with(208 + 40, UINT32_MAX).find("lie outside of the header"), std::string::npos);
  EXPECT_NE(with(208 + 44, UINT32_MAX).find("4294967295 stripes"), std::string::npos);
  EXPECT_NE(with(208 + 4, UINT32_MAX).find("more time than is allowed"), std::string::npos);
  EXPECT_NE(with(4, 0xBABE0003).find("no LUKS header of a known version"), std::string::npos);
}

TEST_F(HostileVolume, OneHeaderOfTwoIsEnoughAndTheOtherIsRepaired) {
  for (const size_t damaged : {size_t{5000}, size_t{kHeaderSize2 + 5000}, size_t{0}}) {
    file_ = MemoryStore();
    create({{"memory", "64"}});
    file_.bytes()[damaged] ^= 1;
    EXPECT_EQ(opened(), "opened") << damaged;
    ImageOpener opener("/nonexistent");
    opener.use_key({.may_stay_locked = true});
    const auto image = luks::open(std::make_unique<SharedStore>(file_), Access::kRepair, opener).value();
    EXPECT_EQ(image->check(Repair::kNone).value().errors, 1u);
    EXPECT_EQ(image->check(Repair::kAll).value().left, 0u);
    EXPECT_EQ(image->check(Repair::kNone).value().errors, 0u);
  }
  file_.bytes()[5000] ^= 1;
  file_.bytes()[kHeaderSize2 + 5000] ^= 1;
  EXPECT_NE(opened().find("its sum is wrong"), std::string::npos);
}

TEST_F(HostileVolume, SettingsThatMakeNoSenseAreRefused) {
  for (const Words& words :
       {Words{{"version", "3"}}, Words{{"cipher", "aes-ecb"}}, Words{{"key_size", "300"}}, Words{{"memory", "2000000"}},
        Words{{"sector_size", "1024"}, {"colour", "red"}}, Words{{"version", "1"}, {"sector_size", "4096"}}}) {
    EXPECT_FALSE(luks::create(file_, {.size = 1 << 20, .settings = words, .key = key_of("secret")}))
        << words.begin()->first;
  }
  EXPECT_FALSE(luks::create(file_, {.size = 1 << 20}));
}

}  // namespace
}  // namespace bulkhead::block::luks
