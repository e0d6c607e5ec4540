// instruction_cases: runs text cases (tests/cases). Arguments: files, --only NAME, and --engine soft (the interpreter,
// which is the default) or kvm.
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
#include "kvm/kvm_vcpu.h"
#include "kvm/virtual_machine.h"
#include "memory/guest_memory.h"
#include "support/random.h"
#include "support/time/fake_clock.h"

namespace bulkhead::instructions {
namespace {

struct Options {
  std::vector<std::string> files;
  std::string only;
  bool kvm = false;
};

// A vCPU and what it lives on.
struct Processor {
  std::unique_ptr<engine::Engine> engine;
  std::unique_ptr<kvm::System> system;
  std::unique_ptr<kvm::VirtualMachine> machine;
  std::unique_ptr<cpu::Vcpu> vcpu;
};

Result<Processor> make_processor(bool kvm, memory::GuestMemory& memory, Clock& clock, RandomSource& random) {
  Processor made;
  if (kvm) {
    made.system = TRY(kvm::System::open());
    made.machine = TRY(kvm::VirtualMachine::create(*made.system, memory, clock, kvm::LocalApics::kBoard));
    const auto model = TRY(cpu::CpuModel::create("host", made.system->available_features()));
    made.vcpu = TRY(made.machine->create_vcpu(0, model.leaves(0, {.vcpu_count = 1}, clock.tsc_hz())));
  } else {
    made.engine = TRY(engine::Engine::create(
        memory, clock, random, {.vcpu_count = 1, .features = engine::Engine::available_features(), .leaves = {{}}}));
    made.vcpu = TRY(made.engine->create_vcpu(0));
  }
  return made;
}

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
  const Processor processor = TRY(make_processor(options.kvm, *memory, clock, random));
  CaseRunner runner(*memory, *processor.vcpu);
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
    } else if (std::string_view(arguments[i]) == "--engine" && i + 1 < count) {
      const std::string_view name = arguments[++i];
      if (name != "soft" && name != "kvm") {
        fmt::print(stderr, "instruction_cases: --engine '{}': not one of soft, kvm\n", name);
        return 2;
      }
      options.kvm = name == "kvm";
    } else {
      options.files.emplace_back(arguments[i]);
    }
  }
  const auto status = bulkhead::instructions::run(options);
  if (status) return *status;
  fmt::print(stderr, "instruction_cases: {}\n", status.error().message);
  return 2;
}
