// "bulkhead network counters" and "bulkhead network fault": questions to the switches of a plant that runs, by their
// control sockets.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "net/fault/faults.h"
#include "support/result.h"

namespace CLI {
class App;
}

namespace bulkhead::cli {

// A line of a switch's answer: words, then facts as NAME=VALUE.
struct SwitchFacts {
  std::string switch_name;
  std::vector<std::string> words;
  std::vector<std::pair<std::string, std::string>> facts;

  [[nodiscard]] std::string fact(std::string_view name) const;
  [[nodiscard]] uint64_t number(std::string_view name) const;
  // As an object; the words under these names.
  [[nodiscard]] std::string json(const std::vector<std::string_view>& names) const;
};
[[nodiscard]] SwitchFacts read_facts(const std::string& switch_name, std::string_view line);

// "delay 5ms, lost 1%", as plant.yaml spells them; "none" where nothing happens to a frame.
[[nodiscard]] std::string describe_faults(const net::fault::FaultConfig& config);

class SwitchQuestions {
 public:
  // Beside the other verbs of "network".
  void add_options(CLI::App& network);
  [[nodiscard]] bool is_asked() const;
  // 0: done; 1: a switch does not run, or says no.
  [[nodiscard]] Result<int> run();

 private:
  [[nodiscard]] Result<int> show_counters() const;
  [[nodiscard]] Result<int> show_faults() const;
  [[nodiscard]] Result<int> set_faults() const;
  [[nodiscard]] Result<net::fault::FaultConfig> wanted_faults() const;
  // Asks each switch; answer gets what one said.
  [[nodiscard]] Result<int> ask(
      const std::string& question,
      const std::function<void(const std::string& name, const std::string& text)>& answer) const;
  void print_facts(const std::vector<SwitchFacts>& all, const std::vector<std::string_view>& names) const;

  CLI::App *counters_ = nullptr, *fault_ = nullptr, *set_ = nullptr, *clear_ = nullptr;
  std::string file_ = "plant.yaml", directory_, format_ = "text", port_;
  std::map<std::string, std::string> values_;  // of fault set, by option
  bool cut_ = false, in_ = false, out_ = false;
};

}  // namespace bulkhead::cli
