// The command's shape: verbs, their options, one clear line for what is wrong with them, and the exit status. What a
// verb does is its own business.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace bulkhead::cli {

inline constexpr int kUsageErrorStatus = 2;

class Verb {
 public:
  virtual ~Verb() = default;
  [[nodiscard]] virtual std::string name() const = 0;
  [[nodiscard]] virtual std::string summary() const = 0;
  virtual void add_options(CLI::App& options) = 0;
  // After the options have been read. Gives the exit status.
  virtual int run() = 0;
  // The exit status when they cannot be read.
  [[nodiscard]] virtual int usage_error_status() const { return kUsageErrorStatus; }
};

int run_command_line(int argument_count, char** arguments, const std::vector<std::unique_ptr<Verb>>& verbs);

// "bulkhead: LINE" on standard error. Control characters, which may come from a file or a guest, become '?'.
void print_message(std::string_view line);

}  // namespace bulkhead::cli
