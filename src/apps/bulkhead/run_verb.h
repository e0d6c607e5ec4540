// "bulkhead run": one VM in this process, from vm.yaml and flags, to its end. It stands here and not in cli/ because
// the management tower's command line knows no VM; later verbs speak to the daemon.
#pragma once

#include <map>
#include <string>

#include "cli/command_line.h"
#include "vmm/config/config.h"
#include "vmm/outcome.h"

namespace CLI {
class Option;
}

namespace bulkhead::apps {

class RunVerb final : public cli::Verb {
 public:
  [[nodiscard]] std::string name() const override { return "run"; }
  [[nodiscard]] std::string summary() const override { return "Run a virtual machine in this process, until it ends"; }
  void add_options(CLI::App& options) override;
  int run() override;

 private:
  [[nodiscard]] Result<vmm::VmConfig> read_config() const;
  [[nodiscard]] Result<vmm::Outcome> run_vm(const vmm::VmConfig& config, std::string& statistics) const;

  std::string file_;
  // Flags that set a value of vm.yaml, by flag; those that were given have results.
  std::map<std::string, const CLI::Option*> value_flags_;
  std::string control_, gdb_, trace_, trace_file_, restore_, checkpoint_;
  bool no_reboot_ = false;
  bool debug_exit_ = false;
  bool statistics_ = false;
  bool perf_map_ = false;
  bool deterministic_ = false;
  bool final_hash_ = false;
};

}  // namespace bulkhead::apps
