// A command in a machine's guest, from its start to its end, between the agent's line and this process's input, outputs
// and signals. What the guest says is not trusted: it is bounded, waited for with limits, and filtered for terminals.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bulkhead::cli {

// Where no command ran to its end; a command may end with these too.
inline constexpr int kNotRun = 255, kOutOfTime = 124;

struct ExecRequest {
  std::string machine, socket_path;
  uint64_t id = 0;  // random
  std::vector<std::string> words;
  uint64_t within_s = 0;   // the agent must answer, and be heard of again
  uint64_t timeout_s = 0;  // of the command; 0: none
};

// Gives the status: the command's, 128 and a signal's number, kOutOfTime or kNotRun.
int run_in_guest(const ExecRequest& request);

}  // namespace bulkhead::cli
