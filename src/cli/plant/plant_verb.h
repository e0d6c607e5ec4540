// "bulkhead plant": looks at a plant's description without running it: check says what is wrong with it, graph draws
// it.
#pragma once

#include <string>

#include "cli/command_line.h"
#include "cli/plant/switch_questions.h"
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

// "bulkhead network": explain says which rule of a plant decides about a connection, tunnels in which state those to
// other hosts are; keygen and key make and show the keys that hosts are known by; counters and fault ask its switches.
class NetworkVerb final : public Verb {
 public:
  [[nodiscard]] std::string name() const override { return "network"; }
  [[nodiscard]] std::string summary() const override {
    return "Explain what a plant's conduits decide; tunnels to other hosts";
  }
  void add_options(CLI::App& options) override;
  // 0: all of it passes, or done; 1: nothing does, or a tunnel does not run; 2: the question or the file is wrong;
  // 3: some of it passes.
  int run() override;

 private:
  [[nodiscard]] Result<int> dispatch();
  [[nodiscard]] Result<int> explain() const;
  [[nodiscard]] Result<int> show_tunnels() const;
  [[nodiscard]] Result<int> show_key(bool make) const;

  SwitchQuestions switch_questions_;
  CLI::App* app_ = nullptr;
  std::string file_ = "plant.yaml", directory_, key_file_, from_, to_, service_, modbus_, addresses_ = "0";
  unsigned unit_ = 1;
};

}  // namespace bulkhead::cli
