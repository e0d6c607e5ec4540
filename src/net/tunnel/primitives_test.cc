#include "net/tunnel/primitives.h"

#include <gtest/gtest.h>

#include "net/tunnel/replay_window.h"

namespace bulkhead::net::tunnel {
namespace {

std::vector<uint8_t> from_hex(std::string_view text) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

Secret secret(std::string_view hex) {
  const auto bytes = from_hex(hex);
  Secret made;
  std::copy_n(bytes.begin(), made.bytes.size(), made.bytes.begin());
  return made;
}

template <typename Bytes>
std::vector<uint8_t> all(const Bytes& bytes) {
  return {bytes.begin(), bytes.end()};
}

ByteSpan text(std::string_view words) {
  return {reinterpret_cast<const uint8_t*>(words.data()), words.size()};
}

TEST(TunnelPrimitives, Blake2sIsThatOfRfc7693) {
  // Appendix B.
  EXPECT_EQ(all(hash({text("a"), text("bc")})),
            from_hex("508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"));
}

TEST(TunnelPrimitives, AgreementIsThatOfRfc7748) {
  // Section 6.1.
  const Secret one = secret("77076d0a7318a57d3c16c17251b26645df1f20f0d9d8a1ba24a77c7de1b4f2ce");
  const Secret two = secret("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
  const auto forth = agree(one, public_key_of(two)), back = agree(two, public_key_of(one));
  ASSERT_TRUE(forth && back);
  EXPECT_EQ(forth->bytes, back->bytes);
  EXPECT_FALSE(agree(one, Bytes32{})) << "a key of no use";
}

TEST(TunnelPrimitives, LongNoncesAreThoseOfTheDraft) {
  // draft-irtf-cfrg-xchacha-03, sections 2.2.1 and A.3.1.
  const Secret key = secret("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
  EXPECT_EQ(all(hchacha20(key, from_hex("000000090000004a0000000031415927")).bytes),
            from_hex("82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"));
  const Secret aead_key = secret("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
  LongNonce nonce;
  for (size_t i = 0; i < nonce.size(); ++i) nonce[i] = static_cast<uint8_t>(0x40 + i);
  const std::string_view words =
      "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be "
      "it.";
  std::vector<uint8_t> sealed(words.size() + kTagSize);
  seal_with_long_nonce(aead_key, nonce, text(words), from_hex("50515253c0c1c2c3c4c5c6c7"), sealed);
  EXPECT_EQ(all(ByteSpan(sealed).last(kTagSize)), from_hex("c0875924c1c7987947deafd8780acf49"));
  std::vector<uint8_t> opened(words.size());
  EXPECT_TRUE(open_with_long_nonce(aead_key, nonce, sealed, from_hex("50515253c0c1c2c3c4c5c6c7"), opened));
  EXPECT_EQ(opened, all(text(words)));
  sealed[3] ^= 1;
  EXPECT_FALSE(open_with_long_nonce(aead_key, nonce, sealed, from_hex("50515253c0c1c2c3c4c5c6c7"), opened));
}

TEST(TunnelPrimitives, SealsInPlaceAndSealsNothing) {
  Aead aead(secret(std::string(64, '7')));
  std::vector<uint8_t> bytes(100 + kTagSize, 5);
  aead.seal(9, ByteSpan(bytes).first(100), {}, bytes);
  EXPECT_FALSE(aead.open(8, bytes, {}, MutableByteSpan(bytes).first(100))) << "another counter";
  aead.seal(9, std::vector<uint8_t>(100, 5), {}, bytes);
  EXPECT_TRUE(aead.open(9, bytes, {}, MutableByteSpan(bytes).first(100)));
  EXPECT_EQ(all(ByteSpan(bytes).first(100)), std::vector<uint8_t>(100, 5));
  std::array<uint8_t, kTagSize> nothing;
  aead.seal(1, {}, {}, nothing);
  EXPECT_TRUE(aead.open(1, nothing, {}, {}));
  EXPECT_FALSE(aead.open(1, ByteSpan(nothing).first(3), {}, {}));
}

TEST(TunnelPrimitives, KeysAreBase64) {
  const Bytes32 key = secret("ff" + std::string(62, '0')).bytes;
  const std::string words = key_text(key);
  EXPECT_EQ(words, "/wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
  EXPECT_EQ(parse_key(words).value(), key);
  for (const char* const bad :
       {"", "/w==", "/wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=", "/wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
        " wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "/wAAAAAAAAAAAAAAAAAA-AAAAAAAAAAAAAAAAAAAAAA="}) {
    EXPECT_FALSE(parse_key(bad)) << bad;
  }
}

TEST(ReplayWindow, TakesEachCounterOnce) {
  ReplayWindow window;
  EXPECT_TRUE(window.take(0));
  EXPECT_FALSE(window.take(0));
  EXPECT_TRUE(window.take(5));
  EXPECT_TRUE(window.take(3));
  EXPECT_FALSE(window.take(3));
  // As far behind as the window reaches, and no further.
  const uint64_t far = 5 + ReplayWindow::kSize;
  EXPECT_TRUE(window.take(far));
  EXPECT_FALSE(window.take(5));
  EXPECT_TRUE(window.take(6));
  EXPECT_FALSE(window.take(4)) << "too old";
  // A jump over all of it forgets nothing that could come again.
  EXPECT_TRUE(window.take(far + 1'000'000));
  EXPECT_FALSE(window.take(far));
  EXPECT_FALSE(window.take(far + 1'000'000));
  EXPECT_TRUE(window.take(far + 1'000'000 - ReplayWindow::kSize + 1));
}

TEST(ReplayWindow, AgreesWithASetOfAllThatCame) {
  SeededRandom random(7);
  ReplayWindow window;
  std::vector<bool> came(20'000);
  uint64_t largest = 0;
  for (uint64_t step = 0; step < 60'000; ++step) {
    const uint64_t counter = std::min<uint64_t>(step / 4 + random.below(3000), came.size() - 1);
    largest = std::max(largest, counter);
    const bool old = counter + ReplayWindow::kSize < largest + 1;
    ASSERT_EQ(window.take(counter), !old && !came[counter]) << counter;
    if (!old) came[counter] = true;
  }
}

}  // namespace
}  // namespace bulkhead::net::tunnel
