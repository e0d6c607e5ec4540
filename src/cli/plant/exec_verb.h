// "bulkhead exec": runs a command in a machine of a plant, by the agent in its guest.
#pragma once

#include <string>
#include <vector>

#include "cli/command_line.h"
#include "support/result.h"

namespace bulkhead::cli {

class ExecVerb final : public Verb {
 public:
  // Before the options are read: takes what stands behind "--" out of the program's arguments word by word, where they
  // are this verb's, and gives back how many are left. CLI11 would change some words ("[a,b]", a second "--").
  [[nodiscard]] int take_command(int argument_count, char** arguments);

  [[nodiscard]] std::string name() const override { return "exec"; }
  [[nodiscard]] std::string summary() const override { return "Run a command in the guest of a plant's machine"; }
  void add_options(CLI::App& options) override;
  // The command's status, 128 and a signal's number when that has ended it; 124: the time limit; 255: no such machine
  // runs, or its agent does not answer; 2: the question is wrong.
  int run() override;

 private:
  [[nodiscard]] Result<int> execute();

  std::string machine_, file_ = "plant.yaml", directory_;
  std::vector<std::string> command_;
  unsigned within_s_ = 10, timeout_s_ = 0;
};

}  // namespace bulkhead::cli
