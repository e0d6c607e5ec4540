#include "cli/plant/switch_questions.h"

#include <gtest/gtest.h>

namespace bulkhead::cli {
namespace {

TEST(SwitchQuestions, ALineIsWordsAndFacts) {
  const SwitchFacts facts =
      read_facts("plant", "port plc1.0 zone=control link=up received-frames=12 dropped.forged-MAC=3");
  EXPECT_EQ(facts.words, (std::vector<std::string>{"port", "plc1.0"}));
  EXPECT_EQ(facts.fact("zone"), "control");
  EXPECT_EQ(facts.number("received-frames"), 12u);
  EXPECT_EQ(facts.number("link"), 0u);
  EXPECT_EQ(facts.fact("nothing"), "");
  EXPECT_EQ(
      facts.json({"kind", "name"}),
      "{\"switch\": \"plant\", \"kind\": \"port\", \"name\": \"plc1.0\", \"zone\": \"control\", \"link\": \"up\", "
      "\"received-frames\": 12, \"dropped.forged-MAC\": 3}");
  EXPECT_TRUE(read_facts("plant", "").words.empty());
}

TEST(SwitchQuestions, FaultsAreSaidAsPlantYamlSpellsThem) {
  EXPECT_EQ(describe_faults({}), "none");
  EXPECT_EQ(describe_faults({.delay_ns = 5'000'000,
                             .jitter_ns = 1'500,
                             .lost = 10'000,
                             .duplicated = 1,
                             .reordered = 1'000'000,
                             .corrupted = 12'300,
                             .rate_bytes_a_second = 8'000,
                             .is_cut = true}),
            "delay 5ms, jitter 1500ns, lost 1%, duplicated 0.0001%, reordered 100%, corrupted 1.23%, rate 64K, cut");
}

}  // namespace
}  // namespace bulkhead::cli
