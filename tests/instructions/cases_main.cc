// instruction_cases: runs text cases (tests/cases) on the interpreter. Arguments: files, and --only NAME.
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "engine/engine.h"
#include "instructions/case_file.h"
#include "instructions/case_runner.h"
#include "memory/guest_memory.h"
#include "support/random.h"
#include "support/time/fake_clock.h"

namespace bulkhead::instructions {
namespace {

struct Options {
  std::vector<std::string> files;
  std::string only;
};

Result<std::vector<Case>> read_cases(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail("open '{}': cannot be read", path);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return parse_cases(text, path);
}

Result<int> run(const Options& options) {
  auto memory = TRY(memory::GuestMemory::create(memory::GuestMemory::kMinimumSize));
  FakeClock clock;
  SeededRandom random(1);
  auto engine = TRY(engine::Engine::create(
      *memory, clock, random, {.vcpu_count = 1, .features = engine::Engine::available_features(), .leaves = {{}}}));
  auto vcpu = TRY(engine->create_vcpu(0));
  CaseRunner runner(*memory, *vcpu);
  size_t run_count = 0, failed_count = 0;
  for (const std::string& file : options.files) {
    for (const Case& test : TRY(read_cases(file))) {
      if (!options.only.empty() && test.name != options.only) continue;
      ++run_count;
      const auto differences = TRY(runner.run(test));
      if (differences.empty()) continue;
      ++failed_count;
      fmt::print("{}: {} failed\n", test.where, test.name);
      for (const std::string& line : differences) fmt::print("    {}\n", line);
    }
  }
  fmt::print("{} cases, {} failed\n", run_count, failed_count);
  return failed_count == 0 && run_count != 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace bulkhead::instructions

int main(int count, char** arguments) {
  bulkhead::instructions::Options options;
  for (int i = 1; i < count; ++i) {
    if (std::string_view(arguments[i]) == "--only" && i + 1 < count) {
      options.only = arguments[++i];
    } else {
      options.files.emplace_back(arguments[i]);
    }
  }
  const auto status = bulkhead::instructions::run(options);
  if (status) return *status;
  fmt::print(stderr, "instruction_cases: {}\n", status.error().message);
  return 2;
}
