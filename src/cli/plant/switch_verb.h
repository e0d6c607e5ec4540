// "bulkhead switch": a switch of a plant as a process of its own, which gives up files and system calls once its
// sockets are there. "bulkhead network ports|rules|refusals|faults" asks one that runs.
#pragma once

#include <string>
#include <vector>

#include "cli/command_line.h"
#include "support/result.h"

namespace bulkhead::cli {

class SwitchVerb final : public Verb {
 public:
  [[nodiscard]] std::string name() const override { return "switch"; }
  [[nodiscard]] std::string summary() const override { return "Run a plant's switch, for machines in other processes"; }
  void add_options(CLI::App& options) override;
  // 0: ended by a signal; 2: the plant or the folder is wrong.
  int run() override;

 private:
  [[nodiscard]] Result<> serve();

  std::string file_ = "plant.yaml", switch_, directory_;
};

}  // namespace bulkhead::cli
