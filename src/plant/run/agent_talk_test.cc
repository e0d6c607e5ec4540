#include "plant/run/agent_talk.h"

#include <gtest/gtest.h>

namespace bulkhead::plant {
namespace {

constexpr uint64_t kSecond_ns = 1'000'000'000;
constexpr std::string_view kId = "0000000000000abc";

std::string line(std::string_view words) {
  return std::string(kId) + " " + std::string(words) + "\n";
}

class Talk {
 public:
  explicit Talk(std::vector<std::string> words = {"true"}) : talk_(0xABC, words) {
    talk_.on_output = [this](bool is_error, std::string_view bytes) { (is_error ? errors : output) += bytes; };
  }
  // An agent that has answered and begun.
  Talk& begun() {
    (void)talk_.to_send(1);
    talk_.receive(line("hello 1") + line("began"), 1);
    (void)talk_.to_send(1);
    return *this;
  }
  AgentTalk* operator->() { return &talk_; }
  std::string output, errors;

 private:
  AgentTalk talk_;
};

TEST(Base64, IsTakenApartAsItWasPutTogether) {
  for (const std::string_view text : {"", "f", "fo", "foo", "foob", "fooba", "foobar"}) {
    EXPECT_EQ(from_base64(to_base64(text)), text);
  }
  EXPECT_EQ(to_base64("fooba"), "Zm9vYmE=");
  EXPECT_EQ(to_base64("\xff\xfe"), "//4=");
  for (const std::string_view wrong : {"A", "AAA", "A===", "AA!=", "A=AA", "====", "AAAA\n"}) {
    EXPECT_FALSE(from_base64(wrong)) << wrong;
  }
}

TEST(AgentTalk, CallsUntilAnAgentAnswersAndAsksOnce) {
  Talk talk({"sh", "-c", "", "a b"});
  EXPECT_EQ(talk->to_send(kSecond_ns), "\nhello 0000000000000abc\n");
  EXPECT_EQ(talk->to_send(kSecond_ns + 1), "");
  EXPECT_EQ(talk->to_send(2 * kSecond_ns), "\nhello 0000000000000abc\n");
  talk->receive(line("hello 1") + line("hello 1"), 2 * kSecond_ns);
  EXPECT_EQ(talk->to_send(2 * kSecond_ns + 1), "run 0000000000000abc " + to_base64({"sh\0-c\0\0a b", 10}) + "\n");
  EXPECT_EQ(talk->to_send(3 * kSecond_ns), "alive 0000000000000abc\n");
  EXPECT_EQ(talk->input_room(), 0u);
  talk->receive(line("began"), 4 * kSecond_ns);
  EXPECT_EQ(talk->stage(), AgentTalk::Stage::kRuns);
  EXPECT_EQ(talk->heard_ns(), 4 * kSecond_ns);
  EXPECT_EQ(talk->input_room(), AgentTalk::kInputWindow);
}

TEST(AgentTalk, AnotherVersionIsNotAsked) {
  Talk talk;
  talk->receive(line("hello 2"), 1);
  EXPECT_EQ(talk->stage(), AgentTalk::Stage::kRefused);
  EXPECT_EQ(talk->to_send(kSecond_ns), "");
}

TEST(AgentTalk, TakesOutputAndTheStatusHoweverTheLineIsCut) {
  const std::string all = "alf a line\n" + line("hello 1") + line("began") + line("out Zm9v") + line("err YmFy") +
                          "0000000000000abd end 3\n" + line("alive") + line("out AP8=") + line("end 42") +
                          line("end 1");
  for (size_t first = 0; first <= all.size(); ++first) {
    for (const size_t second : {first, (first + all.size()) / 2, all.size()}) {
      Talk talk;
      talk->receive(all.substr(0, first), 1);
      talk->receive(all.substr(first, second - first), 2);
      talk->receive(all.substr(second), 3);
      ASSERT_EQ(talk->stage(), AgentTalk::Stage::kEnded) << first;
      EXPECT_EQ(talk->status(), 42);
      EXPECT_EQ(talk.output, std::string("foo\0\xff", 5));
      EXPECT_EQ(talk.errors, "bar");
    }
  }
}

TEST(AgentTalk, WhatIsNoLineOfTheProtocolSaysNothing) {
  Talk talk;
  talk.begun();
  for (const char* const words :
       {"", "what", "end", "end ", "end 256", "end -1", "end 4x", "end 99999999999999999999", "out !!!!", "out Zm9",
        "took 1", "took -1", "took", "ended 1", " end 1", "hello 2", "END 1"}) {
    talk->receive(line(words), 2);
  }
  talk->receive("0000000000000abcend 1\n" + std::string(kId) + "\n\n \nend 1\n0000000000000ab end 1\n", 2);
  talk->receive(line("out " + std::string(AgentTalk::kMaximumLine, 'A')), 2);
  // Of a line that is too long the end is no line either.
  talk->receive(std::string(20000, 'x'), 2);
  talk->receive(line("end 3"), 2);
  EXPECT_EQ(talk->stage(), AgentTalk::Stage::kRuns);
  EXPECT_EQ(talk.output + talk.errors, "");
  EXPECT_EQ(talk->input_room(), AgentTalk::kInputWindow);
  talk->receive(line("end 3"), 2);
  EXPECT_EQ(talk->status(), 3);
}

TEST(AgentTalk, OutputAndAnEndOfACommandThatWasNotAskedForAreNotTaken) {
  Talk talk;
  talk->receive(line("out Zm9v") + line("began") + line("end 0"), 1);
  EXPECT_EQ(talk->stage(), AgentTalk::Stage::kCalling);
  talk->receive(line("hello 1") + line("out Zm9v") + line("end 0"), 1);
  EXPECT_EQ(talk->stage(), AgentTalk::Stage::kAsked);
  EXPECT_EQ(talk.output, "");
}

TEST(AgentTalk, InputGoesInPiecesAsFarAsThereIsRoom) {
  Talk talk;
  talk.begun();
  const std::string bytes(AgentTalk::kInputWindow, 'i'), piece(AgentTalk::kInputPiece, 'i');
  talk->give_input(bytes.substr(0, 1500));
  EXPECT_EQ(talk->to_send(2), "in 0000000000000abc " + to_base64(piece) + "\nin 0000000000000abc " +
                                  to_base64(bytes.substr(0, 476)) + "\n");
  EXPECT_EQ(talk->input_room(), 548u);
  talk->receive(line("took 1501"), 2);  // more than was sent
  EXPECT_EQ(talk->input_room(), 548u);
  talk->receive(line("took 1000"), 2);
  EXPECT_EQ(talk->input_room(), 1548u);
  talk->give_input("more");
  talk->receive(line("took 504"), 2);  // more than has left
  EXPECT_EQ(talk->input_room(), 1544u);
  talk->give_input("");
  EXPECT_EQ(talk->to_send(2), "in 0000000000000abc bW9yZQ==\neof 0000000000000abc\n");
  EXPECT_EQ(talk->input_room(), 0u);
  EXPECT_EQ(talk->to_send(2), "");
}

TEST(AgentTalk, TellsWhatWasTakenInOneNumberAndPassesSignalsOn) {
  Talk talk;
  talk->signal(2);
  talk.begun();
  for (int i = 0; i < 1000; ++i) {
    talk->receive(line("out Zg=="), 2);
    talk->took(1);
  }
  EXPECT_EQ(talk->to_send(2), "took 0000000000000abc 1000\n");
  talk->signal(9);
  EXPECT_EQ(talk->to_send(2), "signal 0000000000000abc 9\n");
  EXPECT_EQ(talk->to_send(2), "");
  Talk early;
  early->signal(2);
  (void)early->to_send(1);
  early->receive(line("hello 1") + line("began"), 1);
  EXPECT_TRUE(early->to_send(1).ends_with("signal 0000000000000abc 2\n"));
}

}  // namespace
}  // namespace bulkhead::plant
