#include "cli/command_line.h"

#include <cstdio>

#include <CLI/CLI.hpp>

#ifndef BULKHEAD_VERSION
#define BULKHEAD_VERSION "0"
#endif

namespace bulkhead::cli {
namespace {

constexpr const char* kDescription =
    "Bulkhead: virtual machines for industrial systems, on KVM or on its own x86-64 engine.";
constexpr const char* kFooter =
    "Examples:\n"
    "  bulkhead run vm.yaml\n"
    "  bulkhead run --kernel vmlinuz --initrd initrd.img --cmdline console=ttyS0 --disk data.img\n"
    "\n"
    "'bulkhead VERB --help' tells more about a verb; the manual page is bulkhead(1).";

}  // namespace

void print_message(std::string_view line) {
  std::string text = "bulkhead: ";
  for (const char c : line) text += static_cast<unsigned char>(c) < ' ' || c == 0x7F ? '?' : c;
  text += '\n';
  std::fwrite(text.data(), 1, text.size(), stderr);
}

int run_command_line(int argument_count, char** arguments, const std::vector<std::unique_ptr<Verb>>& verbs) {
  CLI::App app(kDescription, "bulkhead");
  app.footer(kFooter);
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("bulkhead " BULKHEAD_VERSION));
  std::vector<CLI::App*> subcommands;
  for (const auto& verb : verbs) {
    subcommands.push_back(app.add_subcommand(verb->name(), verb->summary()));
    verb->add_options(*subcommands.back());
  }
  CLI::App* const version = app.add_subcommand("version", "Print the version");
  try {
    app.parse(argument_count, arguments);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    print_message(error.what());
    for (const auto& verb : verbs) {
      if (argument_count > 1 && verb->name() == arguments[1]) return verb->usage_error_status();
    }
    return kUsageErrorStatus;
  }
  if (version->parsed()) {
    std::puts("bulkhead " BULKHEAD_VERSION);
    return 0;
  }
  for (size_t i = 0; i < verbs.size(); ++i) {
    if (subcommands[i]->parsed()) return verbs[i]->run();
  }
  return kUsageErrorStatus;
}

}  // namespace bulkhead::cli
