// "bulkhead disk": jobs on the disks of a machine that runs, and their counters, over its control socket.
#pragma once

#include <cstdint>
#include <string>

#include "cli/command_line.h"
#include "support/os/fd.h"
#include "support/result.h"

namespace bulkhead::cli {

class DiskVerb final : public Verb {
 public:
  [[nodiscard]] std::string name() const override { return "disk"; }
  [[nodiscard]] std::string summary() const override {
    return "Snapshot, move, back up, commit or flatten a running machine's disk";
  }
  void add_options(CLI::App& options) override;
  // 0: done; 1: the machine says no, or the job failed; 2: wrong words, or there is no such machine.
  int run() override;

 private:
  [[nodiscard]] Result<int> dispatch();
  [[nodiscard]] Result<std::string> socket_path() const;
  // A question and its answer; an answer of "error: " is an error.
  [[nodiscard]] Result<std::string> ask(const std::string& question);
  [[nodiscard]] Result<int> list();
  [[nodiscard]] Result<int> list_stats();
  [[nodiscard]] Result<int> wait_for_end();

  CLI::App* app_ = nullptr;
  Fd socket_;
  uint32_t disk_ = 0;
  std::string target_, format_ = "qcow2", size_, speed_ = "0", output_ = "text";
  std::string control_, machine_, plant_ = "plant.yaml", directory_;
  bool detach_ = false, changed_ = false, unsafe_ = false, quiet_ = false;
};

}  // namespace bulkhead::cli
