// The command.
#include "apps/bulkhead/run_verb.h"
#include "cli/command_line.h"
#include "cli/image/image_verb.h"
#include "vmm/signals.h"

int main(int argument_count, char** arguments) {
  bulkhead::vmm::block_signals();
  std::vector<std::unique_ptr<bulkhead::cli::Verb>> verbs;
  verbs.push_back(std::make_unique<bulkhead::apps::RunVerb>());
  verbs.push_back(std::make_unique<bulkhead::cli::ImageVerb>());
  return bulkhead::cli::run_command_line(argument_count, arguments, verbs);
}
