#include "cli/plant/exec_verb.h"

#include <gtest/gtest.h>

namespace bulkhead::cli {
namespace {

int left_of(std::vector<std::string> words) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  return ExecVerb().take_command(static_cast<int>(arguments.size()), arguments.data());
}

TEST(ExecVerb, TakesACommandsWordsOutOfItsOwnArgumentsAlone) {
  EXPECT_EQ(left_of({"bulkhead", "exec", "plc1", "--", "ls", "--", "-l"}), 3);
  EXPECT_EQ(left_of({"bulkhead", "exec", "plc1", "--"}), 3);
  EXPECT_EQ(left_of({"bulkhead", "exec", "plc1", "ls"}), 4);
  EXPECT_EQ(left_of({"bulkhead", "logs", "--", "exec"}), 4);
  EXPECT_EQ(left_of({"bulkhead"}), 1);
}

}  // namespace
}  // namespace bulkhead::cli
