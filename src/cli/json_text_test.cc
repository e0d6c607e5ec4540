#include "cli/json_text.h"

#include <gtest/gtest.h>

namespace bulkhead::cli {
namespace {

TEST(JsonText, KeepsTextAndEscapesWhatJsonWants) {
  EXPECT_EQ(json_text("Prüfstand 4 – 日本 \U0001F600"), "\"Prüfstand 4 – 日本 \U0001F600\"");
  EXPECT_EQ(json_text("a\"b\\c\n\x7F"), R"("a\"b\\c\u000a\u007f")");
}

TEST(JsonText, NoControlCharacterReachesATerminal) {
  EXPECT_EQ(json_text("\x1B[2J\xC2\x9B"), R"("\u001b[2J\u009b")");
}

TEST(JsonText, BytesThatAreNoUtf8AreMarked) {
  // Alone, cut off, longer than needed, a surrogate, and beyond the last character.
  for (const char* const bytes : {"\xFF", "\x80", "\xC3", "\xE2\x82", "\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80"}) {
    const std::string found = json_text(bytes);
    EXPECT_EQ(found.find("\uFFFD"), 1u) << found;
    EXPECT_EQ(found.find(bytes), std::string::npos) << found;
  }
  EXPECT_EQ(json_text("a\xFFz"), "\"a\uFFFDz\"");
}

}  // namespace
}  // namespace bulkhead::cli
