// "bulkhead up" runs a plant; "ps", "logs", "console", "stop" and "down" speak to one that runs, by the socket in its
// folder; "pause" and "resume" to one of its machines, or to any machine with a control socket.
#pragma once

#include <string>

#include "cli/command_line.h"
#include "support/result.h"

namespace bulkhead::cli {

// Where a plant of this name keeps its sockets and logs, unless it is told otherwise.
[[nodiscard]] std::string folder_of(const std::string& name);

class UpVerb final : public Verb {
 public:
  [[nodiscard]] std::string name() const override { return "up"; }
  [[nodiscard]] std::string summary() const override { return "Run a plant: its switches, and its machines in order"; }
  void add_options(CLI::App& options) override;
  // 0: up (with --detach) or ended as asked; 1: not everything became ready; 2: the plant or the folder is wrong.
  int run() override;

 private:
  [[nodiscard]] Result<int> supervise();

  std::string file_ = "plant.yaml", directory_;
  bool detach_ = false;
};

class AskPlantVerb final : public Verb {
 public:
  enum class Kind : uint8_t { kPs, kLogs, kConsole, kStop, kDown, kPause, kResume };
  explicit AskPlantVerb(Kind kind) : kind_(kind) {}

  [[nodiscard]] std::string name() const override;
  [[nodiscard]] std::string summary() const override;
  void add_options(CLI::App& options) override;
  // 0: done; 1: the plant says no; 2: there is no such plant or name.
  int run() override;

 private:
  [[nodiscard]] Result<int> ask();
  [[nodiscard]] Result<int> tell_machine(const std::string& socket_path) const;
  [[nodiscard]] Result<int> show_log(const std::string& directory) const;

  const Kind kind_;
  std::string file_ = "plant.yaml", directory_, machine_, control_;
};

}  // namespace bulkhead::cli
