#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "block/encrypt/hidden_store.h"
#include "block/store/memory/memory_store.h"
#include "support/os/thread.h"

namespace bulkhead::block {
namespace {

std::vector<uint8_t> from_hex(std::string_view text) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

std::unique_ptr<SectorCipher> cipher_of(std::string_view name, size_t key_bytes, uint32_t sector_size = 512) {
  std::vector<uint8_t> key(key_bytes);
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(i + 1);
  return SectorCipher::make(CipherSpec::parse(name, key_bytes).value(), key, sector_size).value();
}

// IEEE 1619-2007, annex B, vector 4.
TEST(SectorCipher, EncryptsAsTheStandardSays) {
  const auto key = from_hex("2718281828459045235360287471352631415926535897932384626433832795");
  const auto cipher = SectorCipher::make(CipherSpec::parse("aes-xts-plain64", 32).value(), key, 512).value();
  std::vector<uint8_t> bytes(512);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i);
  ASSERT_EQ(cipher->encrypt(0, bytes, bytes), Status::kOk);
  bytes.resize(32);
  EXPECT_EQ(bytes, from_hex("27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"));
}

TEST(SectorCipher, EverySectorAndKindIsItsOwn) {
  const std::vector<uint8_t> zeroes(8192);
  std::vector<std::vector<uint8_t>> seen;
  for (const auto& [name, key_bytes] : {std::pair("aes-xts-plain64", 64), std::pair("aes-xts-plain", 32),
                                        std::pair("aes-cbc-essiv:sha256", 32), std::pair("aes-cbc-plain64", 16)}) {
    const auto cipher = cipher_of(name, static_cast<size_t>(key_bytes));
    std::vector<uint8_t> hidden(zeroes.size()), back(zeroes.size());
    ASSERT_EQ(cipher->encrypt(7, zeroes, hidden), Status::kOk);
    for (size_t at = 0; at < hidden.size(); at += 512) {
      seen.emplace_back(hidden.begin() + static_cast<ptrdiff_t>(at), hidden.begin() + static_cast<ptrdiff_t>(at + 512));
    }
    ASSERT_EQ(cipher->decrypt(7, hidden, back), Status::kOk);
    EXPECT_EQ(back, zeroes) << name;
    ASSERT_EQ(cipher->decrypt(8, hidden, back), Status::kOk);
    EXPECT_NE(back, zeroes) << name;
  }
  std::ranges::sort(seen);
  EXPECT_EQ(std::ranges::adjacent_find(seen), seen.end());
}

TEST(SectorCipher, LargeSectorsAreNumberedInSmallOnes) {
  const auto cipher = cipher_of("aes-xts-plain64", 64, 4096);
  std::vector<uint8_t> both(8192), second(4096);
  ASSERT_EQ(cipher->encrypt(0, both, both), Status::kOk);
  ASSERT_EQ(cipher->encrypt(8, second, second), Status::kOk);
  EXPECT_TRUE(std::ranges::equal(second, std::span(both).subspan(4096)));
}

TEST(CipherSpec, RefusesWhatItDoesNotKnow) {
  for (const auto& [name, bytes] :
       {std::pair("aes-xts-plain64", 48), std::pair("aes-cbc-plain64", 64), std::pair("serpent-xts-plain64", 64),
        std::pair("aes-xts-essiv:md5", 64), std::pair("aes", 32), std::pair("", 32), std::pair("aes-", 32)}) {
    EXPECT_FALSE(CipherSpec::parse(name, static_cast<uint64_t>(bytes))) << name;
  }
}

TEST(CipherStore, HoldsWhatWasWrittenAtAnyPlace) {
  for (const uint32_t sector : {512u, 4096u}) {
    MemoryStore below;
    CipherStore store(below, cipher_of("aes-xts-plain64", 64, sector), 8192, 3);
    std::vector<uint8_t> expected(600'000);
    ASSERT_EQ(store.write(0, expected), Status::kOk);
    std::mt19937_64 random(sector);
    for (int i = 0; i < 300; ++i) {
      const uint64_t at = random() % expected.size();
      const uint64_t size = std::min<uint64_t>(1 + random() % (i % 10 == 0 ? 300'000 : 3000), expected.size() - at);
      const std::span<uint8_t> range(&expected[at], size);
      std::ranges::generate(range, [&] { return static_cast<uint8_t>(random()); });
      ASSERT_EQ(store.write(at, range), Status::kOk);
      const uint64_t from = random() % expected.size(), count = std::min<uint64_t>(5000, expected.size() - from);
      std::vector<uint8_t> found(count);
      ASSERT_EQ(store.read(from, found), Status::kOk);
      ASSERT_TRUE(std::ranges::equal(found, std::span(expected).subspan(from, count)));
    }
    EXPECT_TRUE(std::ranges::all_of(std::span(below.bytes()).first(8192), [](uint8_t b) { return b == 0; }));
    const auto clear = std::ranges::search(below.bytes(), std::span(expected).subspan(300'000, 32));
    EXPECT_TRUE(clear.empty());
  }
}

TEST(CipherStore, NeighboursInASectorAreNotLostToEachOther) {
  MemoryStore below(std::vector<uint8_t>(4096));
  CipherStore store(below, cipher_of("aes-xts-plain64", 64, 4096), 0, 0);
  const auto fill = [&](uint64_t at, uint8_t first) {
    for (uint8_t i = 0; i < 200; ++i) {
      const std::vector<uint8_t> bytes(512, static_cast<uint8_t>(first + i % 2));
      (void)store.write(at, bytes);
    }
  };
  {
    const Thread one("one", [&] { fill(0, 1); });
    const Thread two("two", [&] { fill(2048, 5); });
  }
  std::vector<uint8_t> found(4096);
  ASSERT_EQ(store.read(0, found), Status::kOk);
  EXPECT_EQ(found[0], 2);
  EXPECT_EQ(found[2048], 6);
}

TEST(HiddenStore, LeavesNothingThatCouldBeRead) {
  auto memory = std::make_unique<MemoryStore>();
  MemoryStore& below = *memory;
  const auto store = hide(std::move(memory)).value();
  const std::vector<uint8_t> bytes(4096, 7);
  ASSERT_EQ(store->write(4096, bytes), Status::kOk);
  std::vector<uint8_t> found(4096);
  ASSERT_EQ(store->read(4096, found), Status::kOk);
  EXPECT_EQ(found, bytes);
  EXPECT_LT(std::ranges::count(below.bytes(), 7), 200);
}

class DiskKeyTest : public ::testing::Test {
 protected:
  ~DiskKeyTest() override { std::filesystem::remove_all(folder_); }
  std::string file(const std::string& contents) {
    std::ofstream(folder_ / "secret", std::ios::binary) << contents;
    return folder_ / "secret";
  }
  static std::string new_folder() {
    std::string name = ::testing::TempDir() + "secretXXXXXX";
    return ::mkdtemp(name.data());
  }
  const std::filesystem::path folder_ = new_folder();
};

TEST_F(DiskKeyTest, IsAllBytesOfItsFile) {
  const auto key = DiskKey::read(file(std::string("a\0b\n", 4))).value();
  EXPECT_EQ(std::string(key->passphrase().begin(), key->passphrase().end()), std::string("a\0b\n", 4));
  EXPECT_TRUE(key->ends_with_newline());
}

TEST_F(DiskKeyTest, RefusesWhatIsNoSecret) {
  EXPECT_NE(DiskKey::read(file("")).error().message.find("is empty"), std::string::npos);
  EXPECT_NE(DiskKey::read(file(std::string(65537, 'x'))).error().message.find("larger than 65536"), std::string::npos);
  EXPECT_FALSE(DiskKey::read(folder_ / "none"));
  const std::string pipe = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_FALSE(DiskKey::read(pipe));  // nobody writes into it
}

TEST_F(DiskKeyTest, KeepsTheKeysThatItHasLedTo) {
  DiskKey key(Secret(from_hex("01")));
  EXPECT_FALSE(key.find("volume"));
  key.keep("volume", from_hex("0203"));
  EXPECT_TRUE(std::ranges::equal(key.find("volume")->bytes(), from_hex("0203")));
  EXPECT_FALSE(key.find("other"));
}

}  // namespace
}  // namespace bulkhead::block
