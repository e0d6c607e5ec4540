// The command.
#include "apps/bulkhead/run_verb.h"
#include "cli/command_line.h"
#include "cli/disk/disk_verb.h"
#include "cli/image/image_verb.h"
#include "cli/plant/exec_verb.h"
#include "cli/plant/link_verb.h"
#include "cli/plant/plant_verb.h"
#include "cli/plant/switch_verb.h"
#include "cli/plant/up_verb.h"
#include "vmm/signals.h"

int main(int argument_count, char** arguments) {
  bulkhead::vmm::block_signals();
  std::vector<std::unique_ptr<bulkhead::cli::Verb>> verbs;
  verbs.push_back(std::make_unique<bulkhead::apps::RunVerb>());
  verbs.push_back(std::make_unique<bulkhead::cli::ImageVerb>());
  verbs.push_back(std::make_unique<bulkhead::cli::DiskVerb>());
  verbs.push_back(std::make_unique<bulkhead::cli::PlantVerb>());
  verbs.push_back(std::make_unique<bulkhead::cli::NetworkVerb>());
  verbs.push_back(std::make_unique<bulkhead::cli::SwitchVerb>());
  verbs.push_back(std::make_unique<bulkhead::cli::LinkVerb>());
  verbs.push_back(std::make_unique<bulkhead::cli::UpVerb>());
  using AskKind = bulkhead::cli::AskPlantVerb::Kind;
  for (const AskKind kind : {AskKind::kPs, AskKind::kLogs, AskKind::kConsole, AskKind::kStop, AskKind::kDown,
                             AskKind::kPause, AskKind::kResume}) {
    verbs.push_back(std::make_unique<bulkhead::cli::AskPlantVerb>(kind));
  }
  auto exec = std::make_unique<bulkhead::cli::ExecVerb>();
  argument_count = exec->take_command(argument_count, arguments);
  verbs.push_back(std::move(exec));
  return bulkhead::cli::run_command_line(argument_count, arguments, verbs);
}
