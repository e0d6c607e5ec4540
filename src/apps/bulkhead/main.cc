// The command.
#include <sys/resource.h>

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

namespace {

// An image may be of more files than a process has at first: a split VMDK of 2 TiB of 1024.
void allow_all_files() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &files);
}

}  // namespace

int main(int argument_count, char** arguments) {
  bulkhead::vmm::block_signals();
  allow_all_files();
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
