#include "support/sha256.h"

#include <string_view>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

ByteSpan bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// The examples of FIPS 180-4's companion values.
TEST(Sha256, GivesTheStandardsValues) {
  EXPECT_EQ(Sha256().finish(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256().update(bytes_of("abc")).finish(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, DoesNotSeeWhereThePiecesEnd) {
  EXPECT_EQ(Sha256().update(bytes_of("a")).update({}).update(bytes_of("bc")).finish(),
            Sha256().update(bytes_of("abc")).finish());
}

}  // namespace
}  // namespace bulkhead
