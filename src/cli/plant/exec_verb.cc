#include "cli/plant/exec_verb.h"

#include <algorithm>
#include <array>

#include <sys/socket.h>

#include <CLI/CLI.hpp>

#include "cli/plant/exec_session.h"
#include "cli/plant/up_verb.h"
#include "net/server/listen.h"
#include "plant/model.h"
#include "plant/run/agent_line.h"
#include "support/random.h"

namespace bulkhead::cli {
namespace {

// A plant that runs asks the same agent whether the machine is ready; it leaves the line alone while this is open.
// Where no plant runs nobody is in the way.
Fd ask_for_line(const std::string& directory, const std::string& machine) {
  constexpr std::chrono::seconds kPatience{2};
  auto socket = net::server::connect_to(directory + "/plant.sock", kPatience);
  if (!socket) return {};
  const std::string line = fmt::format("exec {}\n", machine);
  std::array<char, 256> answer;
  if (::send(socket->get(), line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) return {};
  (void)!::recv(socket->get(), answer.data(), answer.size(), 0);
  return std::move(*socket);
}

}  // namespace

void ExecVerb::add_options(CLI::App& options) {
  options.footer(
      "The guest needs an agent at its second serial line, see docs/agent.md. Behind '--' stand the command and its\n"
      "arguments; a shell is one of them. One command at a time runs in a machine.\n\n"
      "Examples:\n  bulkhead exec plc1 -- uptime\n"
      "  bulkhead exec -p tank.yaml --timeout 60 desk -- sh -c 'ip addr | grep inet'\n"
      "  bulkhead exec plc1 -- tar -xC /srv < recipes.tar");
  options.add_option("name", machine_, "A machine of the plant")->required()->type_name("NAME");
  options.add_option("-p,--plant", file_, "The plant's description (plant.yaml)")->type_name("FILE");
  options.add_option("--directory", directory_, "The plant's folder, where 'up' was given one")->type_name("DIR");
  options
      .add_option("--within", within_s_, "Seconds in which the agent must answer, be free, and be heard of again (10)")
      ->check(CLI::Range(1U, 86400U))
      ->type_name("SECONDS");
  options.add_option("--timeout", timeout_s_, "Seconds after which the command is killed (0: never)")
      ->check(CLI::Range(0U, 1U << 30))
      ->type_name("SECONDS");
}

int ExecVerb::take_command(int argument_count, char** arguments) {
  char** const all_end = arguments + argument_count;
  char** const end = std::find(arguments, all_end, std::string_view("--"));
  if (argument_count < 2 || arguments[1] != name() || end == all_end) return argument_count;
  command_.assign(end + 1, all_end);
  return static_cast<int>(end - arguments);
}

Result<int> ExecVerb::execute() {
  if (command_.empty() || command_[0].empty()) return fail("which command? It stands behind '--'");
  size_t size = command_.size() - 1;
  for (const std::string& word : command_) size += word.size();
  if (size > plant::AgentTalk::kMaximumCommand) {
    return fail("the command has {} bytes; allowed: {}", size, plant::AgentTalk::kMaximumCommand);
  }
  if (machine_.empty() || machine_.find('/') != std::string::npos) return fail("'{}': no name", machine_);
  std::string directory = directory_;
  if (directory.empty()) directory = folder_of(TRY(plant::load_plant(file_)).name);
  const Fd line = ask_for_line(directory, machine_);
  return run_in_guest({.machine = machine_,
                       .socket_path = plant::agent_socket_of(directory, machine_),
                       .id = HostRandom().next_u64(),
                       .words = command_,
                       .within_s = within_s_,
                       .timeout_s = timeout_s_});
}

int ExecVerb::run() {
  const auto status = execute();
  if (status) return *status;
  print_message(status.error().message);
  return kUsageErrorStatus;
}

}  // namespace bulkhead::cli
