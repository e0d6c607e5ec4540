// "bulkhead plant": looks at a plant's description without running it: check says what is wrong with it, graph draws
// it.
#pragma once

#include <string>

#include "cli/command_line.h"
#include "support/result.h"

namespace bulkhead::cli {

class PlantVerb final : public Verb {
 public:
  [[nodiscard]] std::string name() const override { return "plant"; }
  [[nodiscard]] std::string summary() const override { return "Check and draw a plant of machines in zones"; }
  void add_options(CLI::App& options) override;
  // 0: done; 2: the file is wrong, with one line that says where.
  int run() override;

 private:
  [[nodiscard]] Result<> dispatch();

  CLI::App* app_ = nullptr;
  std::string file_ = "plant.yaml", output_;
};

// "bulkhead network explain": which rule of a plant decides about a connection.
class NetworkVerb final : public Verb {
 public:
  [[nodiscard]] std::string name() const override { return "network"; }
  [[nodiscard]] std::string summary() const override { return "Explain what a plant's zones and conduits decide"; }
  void add_options(CLI::App& options) override;
  // 0: it passes; 1: it does not; 2: the question or the file is wrong.
  int run() override;

 private:
  [[nodiscard]] Result<int> explain();

  std::string file_ = "plant.yaml", from_, to_, service_, modbus_, addresses_ = "0";
  unsigned unit_ = 1;
};

}  // namespace bulkhead::cli
