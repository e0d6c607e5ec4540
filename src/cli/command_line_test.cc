#include "cli/command_line.h"

#include <gtest/gtest.h>
#include <CLI/CLI.hpp>

namespace bulkhead::cli {
namespace {

class CountVerb final : public Verb {
 public:
  [[nodiscard]] std::string name() const override { return "count"; }
  [[nodiscard]] std::string summary() const override { return "Give back a number"; }
  void add_options(CLI::App& options) override { options.add_option("--to", to_, "The number"); }
  int run() override { return to_; }

 private:
  int to_ = 7;
};

class FindVerb final : public Verb {
 public:
  [[nodiscard]] std::string name() const override { return "find"; }
  [[nodiscard]] std::string summary() const override { return "End with 2 where nothing is found"; }
  void add_options(CLI::App&) override {}
  int run() override { return 2; }
  [[nodiscard]] int usage_error_status() const override { return 1; }
};

struct Ended {
  int status;
  std::string out, errors;
};

Ended run(std::vector<std::string> words) {
  std::vector<std::unique_ptr<Verb>> verbs;
  verbs.push_back(std::make_unique<CountVerb>());
  verbs.push_back(std::make_unique<FindVerb>());
  words.insert(words.begin(), "bulkhead");
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int status = run_command_line(static_cast<int>(arguments.size()), arguments.data(), verbs);
  return {status, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
}

TEST(CommandLine, RunsTheVerbWithItsOptions) {
  EXPECT_EQ(run({"count"}).status, 7);
  EXPECT_EQ(run({"count", "--to", "9"}).status, 9);
}

TEST(CommandLine, SaysInOneLineWhatIsWrong) {
  EXPECT_EQ(run({}).errors, "bulkhead: A subcommand is required\n");
  const Ended unknown = run({"count", "--frobnicate"});
  EXPECT_EQ(unknown.status, kUsageErrorStatus);
  EXPECT_EQ(unknown.errors, "bulkhead: The following argument was not expected: --frobnicate\n");
}

TEST(CommandLine, AVerbWhoseStatusMeansSomethingElseHasItsOwnForWrongOptions) {
  EXPECT_EQ(run({"find"}).status, 2);
  EXPECT_EQ(run({"find", "--frobnicate"}).status, 1);
}

TEST(CommandLine, HelpNamesVerbsAndOptions) {
  EXPECT_NE(run({"--help"}).out.find("Give back a number"), std::string::npos);
  EXPECT_NE(run({"count", "--help"}).out.find("--to"), std::string::npos);
  EXPECT_EQ(run({"version"}).status, 0);
}

TEST(CommandLine, MessagesCarryNoControlCharacters) {
  testing::internal::CaptureStderr();
  print_message("a\x1b[2Jb\nc");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "bulkhead: a?[2Jb?c\n");
}

}  // namespace
}  // namespace bulkhead::cli
