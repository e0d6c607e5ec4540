// instruction_cases: runs text cases (tests/cases). Arguments: files, --only NAME, --engine soft (the interpreter,
// which is the default), jit (every block translated at once) or kvm, --known FILE (cases that this processor is known
// not to meet, see known_cases.h),
// --progress, which names each case before it runs, and --tss-not-busy (see case_runner.h).
#include <cstdio>
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
#include "instructions/known_cases.h"
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
  std::string known;
  bool kvm = false;
  bool progress = false;
  bool tss_not_busy = false;
  bool jit = false;
};

// A vCPU and what it lives on.
struct Processor {
  std::unique_ptr<engine::Engine> engine;
  std::unique_ptr<kvm::System> system;
  std::unique_ptr<kvm::VirtualMachine> machine;
  std::unique_ptr<cpu::Vcpu> vcpu;
};

Result<Processor> make_processor(bool kvm, bool jit, memory::GuestMemory& memory, Clock& clock, RandomSource& random) {
  Processor made;
  if (kvm) {
    made.system = TRY(kvm::System::open());
    made.machine = TRY(kvm::VirtualMachine::create(*made.system, memory, clock, kvm::LocalApics::kBoard));
    const auto model = TRY(cpu::CpuModel::create("host", made.system->available_features()));
    made.vcpu = TRY(made.machine->create_vcpu(0, model.leaves(0, {.vcpu_count = 1}, clock.tsc_hz())));
  } else {
    made.engine = TRY(engine::Engine::create(memory, clock, random,
                                             {.vcpu_count = 1,
                                              .features = engine::Engine::available_features(),
                                              .leaves = {{}},
                                              .translate = jit,
                                              .translate_after = 1}));
    made.vcpu = TRY(made.engine->create_vcpu(0));
  }
  return made;
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail("open '{}': cannot be read", path);
  return std::string{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

struct Tally {
  size_t run = 0, failed = 0, known = 0, not_run = 0, passed_though_known = 0;
};

Result<> run_case(CaseRunner& runner, const Case& test, const KnownCases& known, bool progress, Tally& tally) {
  const auto listed = known.find(test.name);
  if (listed != known.end() && !listed->second.runs) {
    ++tally.not_run;
    return {};
  }
  if (progress) {
    fmt::print("running {}\n", test.name);
    std::fflush(stdout);
  }
  ++tally.run;
  const auto differences = TRY(runner.run(test));
  if (listed != known.end()) {
    if (!differences.empty()) {
      ++tally.known;
    } else {
      ++tally.passed_though_known;
      fmt::print("{}: {} passed, though listed under '{}'\n", test.where, test.name, listed->second.reason);
    }
  } else if (!differences.empty()) {
    ++tally.failed;
    fmt::print("{}: {} failed\n", test.where, test.name);
    for (const std::string& line : differences) fmt::print("    {}\n", line);
  }
  return {};
}

Result<int> run(const Options& options) {
  auto memory = TRY(memory::GuestMemory::create(memory::GuestMemory::kMinimumSize));
  FakeClock clock;
  SeededRandom random(1);
  const Processor processor = TRY(make_processor(options.kvm, options.jit, *memory, clock, random));
  CaseRunner runner(*memory, *processor.vcpu, options.tss_not_busy);
  KnownCases known;
  if (!options.known.empty()) known = TRY(parse_known_cases(TRY(read_file(options.known)), options.known));
  Tally tally;
  for (const std::string& file : options.files) {
    for (const Case& test : TRY(parse_cases(TRY(read_file(file)), file))) {
      if (!options.only.empty() && test.name != options.only) continue;
      TRY(run_case(runner, test, known, options.progress, tally));
    }
  }
  fmt::print("{} cases, {} failed", tally.run, tally.failed);
  if (!known.empty()) {
    fmt::print(", {} known to differ, {} not run, {} passed though listed", tally.known, tally.not_run,
               tally.passed_though_known);
  }
  fmt::print("\n");
  return tally.failed == 0 && tally.passed_though_known == 0 && tally.run != 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace bulkhead::instructions

int main(int count, char** arguments) {
  bulkhead::instructions::Options options;
  for (int i = 1; i < count; ++i) {
    if (std::string_view(arguments[i]) == "--only" && i + 1 < count) {
      options.only = arguments[++i];
    } else if (std::string_view(arguments[i]) == "--known" && i + 1 < count) {
      options.known = arguments[++i];
    } else if (std::string_view(arguments[i]) == "--tss-not-busy") {
      options.tss_not_busy = true;
    } else if (std::string_view(arguments[i]) == "--progress") {
      options.progress = true;
    } else if (std::string_view(arguments[i]) == "--engine" && i + 1 < count) {
      const std::string_view name = arguments[++i];
      if (name != "soft" && name != "jit" && name != "kvm") {
        fmt::print(stderr, "instruction_cases: --engine '{}': not one of soft, jit, kvm\n", name);
        return 2;
      }
      options.kvm = name == "kvm";
      options.jit = name == "jit";
    } else {
      options.files.emplace_back(arguments[i]);
    }
  }
  const auto status = bulkhead::instructions::run(options);
  if (status) return *status;
  fmt::print(stderr, "instruction_cases: {}\n", status.error().message);
  return 2;
}
