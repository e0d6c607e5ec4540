#include "support/state/state.h"

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

TEST(State, GivesBackWhatWasWritten) {
  StateWriter writer(3);
  writer.put("reload", 0x1234u).put_bytes("fifo", std::vector<uint8_t>{1, 2, 3});
  writer.child("channel", 2).put("mode", 5);
  const auto bytes = writer.encode();
  const auto reader = StateReader::parse(bytes, "pit");
  ASSERT_TRUE(reader) << reader.error().message;
  EXPECT_EQ(reader->version(), 3u);
  EXPECT_EQ(reader->get("reload").value(), 0x1234u);
  EXPECT_EQ(reader->get_bytes("fifo", 3)->size(), 3u);
  EXPECT_EQ(reader->child("channel")->get("mode").value(), 5u);
}

TEST(State, NamesTheFieldThatIsOutOfRangeOrMissing) {
  const auto bytes = StateWriter().put("mode", 9).encode();
  const auto reader = StateReader::parse(bytes, "pit");
  ASSERT_TRUE(reader);
  EXPECT_EQ(reader->get("mode", 5).error().message, "pit: field 'mode' is 9, above 5");
  EXPECT_EQ(reader->get("count").error().message, "pit: field 'count' is missing");
}

TEST(State, RefusesEveryTruncation) {
  StateWriter writer;
  writer.put("a", 1).child("b").put_bytes("c", std::vector<uint8_t>(10));
  const auto bytes = writer.encode();
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(StateReader::parse(ByteSpan(bytes).first(size), "cut")) << size;
  }
}

}  // namespace
}  // namespace bulkhead
