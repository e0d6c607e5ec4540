#include "cli/plant/terminal_text.h"

#include <gtest/gtest.h>

namespace bulkhead::cli {
namespace {

TEST(TerminalText, TakesATerminalsCommandsOut) {
  EXPECT_EQ(TerminalText().filter("level\t7 m\r\n"), "level\t7 m\n");
  EXPECT_EQ(TerminalText().filter("\x1b]0;title\a\x1b[2J\x7f"), "?]0;title??[2J?");
  EXPECT_EQ(TerminalText().filter(std::string_view("\0", 1)), "?");
  // C1: as a byte, in UTF-8, and in a longer form of it.
  EXPECT_EQ(TerminalText().filter("\x9b"
                                  "2J"),
            "?2J");
  EXPECT_EQ(TerminalText().filter("\xc2\x9b"
                                  "2J"),
            "?2J");
  EXPECT_EQ(TerminalText().filter("\xe0\x82\x9b"
                                  "2J \xf0\x80\x82\x9b"),
            "?2J ?");
  EXPECT_EQ(TerminalText().filter("\xc1\x9b\xff\xc2"
                                  "a\xe2\x82\x1b"),
            "????a??");
}

TEST(TerminalText, LetsTextThroughCutAnywhere) {
  const std::string text =
      "3 \xc2\xb5m, 20 \xe2\x82\xac, \xf0\x9f\x8f\xad, Gr\xc3\xb6\xc3\x9f"
      "e";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    TerminalText filter;
    std::string all = filter.filter(text.substr(0, cut));
    all += filter.filter(text.substr(cut));
    EXPECT_EQ(all, text) << cut;
  }
}

}  // namespace
}  // namespace bulkhead::cli
