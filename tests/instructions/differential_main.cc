// instruction_differential: random user-mode instructions run by the interpreter and by the host's own CPU, compared in
// every register, flag and byte of memory that the manual defines. The same seed gives the same run.
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "cpu/model.h"
#include "engine/engine.h"
#include "instructions/comparison.h"
#include "instructions/generator.h"
#include "instructions/host_cpu.h"
#include "instructions/interpreter.h"

namespace bulkhead::instructions {
namespace {

struct Options {
  uint64_t count = 1'000'000;
  uint64_t seed = 1;
  uint64_t report_limit = 20;
  std::string only;
};

// Where operands lie, with room for what a wrong address would hit; the whole of the pages is compared now and then.
constexpr size_t kWindow = 0xA00, kWindowSize = 0xC00;

void print_sample(const Sample& sample) {
  std::string bytes;
  for (const uint8_t byte : sample.code()) bytes += fmt::format("{:02x} ", byte);
  fmt::print("  {}: {}\n", engine::decoder::mnemonic_name(sample.instruction.mnemonic), bytes);
  for (size_t i = 0; i < 16; ++i) fmt::print("{}r{}={:x}", i == 0 ? "   " : " ", i, sample.registers.gpr[i]);
  fmt::print(" rflags={:x} mxcsr={:x} control={:x} status={:x}\n", sample.registers.rflags,
             sample.registers.xsave_field<uint32_t>(kMxcsr), sample.registers.xsave_field<uint16_t>(kControlWord),
             sample.registers.xsave_field<uint16_t>(kStatusWord));
}

struct Tally {
  uint64_t run = 0, faulted = 0, undefined = 0, different = 0;
  std::map<std::string, uint64_t> different_by_mnemonic;
};

class Differential {
 public:
  Differential(const Options& options, HostCpu& host, Interpreter& interpreter, Generator& generator)
      : options_(options), host_(host), interpreter_(interpreter), generator_(generator) {}

  int run() {
    interpreter_.write_scratch(0, host_.scratch());
    for (tally_.run = 0; tally_.run < options_.count; ++tally_.run) run_one();
    fmt::print("{} instructions of {} forms, seed {}: {} faulted alike, {} not compared, {} differences\n", tally_.run,
               generator_.form_count(), options_.seed, tally_.faulted, tally_.undefined, tally_.different);
    for (const auto& [mnemonic, count] : tally_.different_by_mnemonic) fmt::print("  {}: {}\n", mnemonic, count);
    return tally_.different == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
  }

 private:
  void run_one() {
    generator_.next(sample_, host_.scratch());
    const auto scratch = host_.scratch();
    const bool whole = tally_.run % 1024 == 0;
    const size_t first = whole ? 0 : kWindow;
    const size_t size = whole ? kScratchSize : kWindowSize;
    // The generator has put operands there.
    interpreter_.write_scratch(kWindow, scratch.subspan(kWindow, kWindowSize));
    interpreter_.write_scratch(kScratchSize - 64, scratch.subspan(kScratchSize - 64));

    Registers expected = sample_.registers;
    Registers actual = sample_.registers;
    Outcome expected_outcome = host_.run(sample_.code(), expected);
    const Outcome actual_outcome = interpreter_.run(sample_.instruction, actual);
    tally_.faulted += expected_outcome.faulted ? 1 : 0;
    if (is_undefined(sample_.instruction, sample_.registers) || is_other_on_host(sample_.instruction, sample_.code())) {
      ++tally_.undefined;
      interpreter_.write_scratch(0, scratch);
      return;
    }
    const uint32_t ignored = expected_outcome.faulted ? 0 : undefined_flags(sample_.instruction, sample_.registers);
    forgive_host(sample_.instruction, actual, actual_outcome, expected, expected_outcome);
    auto differences = compare(expected, expected_outcome, actual, actual_outcome, ignored);
    if (const auto at = interpreter_.find_difference(first, scratch.subspan(first, size))) {
      differences.push_back(fmt::format("memory at {:x}: expected {:02x}, got {:02x}", kScratchAddress + *at,
                                        scratch[*at], interpreter_.scratch_byte(*at)));
      interpreter_.write_scratch(0, scratch);
    }
    if (!differences.empty()) report(differences);
  }

  void report(const std::vector<std::string>& differences) {
    const std::string mnemonic(engine::decoder::mnemonic_name(sample_.instruction.mnemonic));
    ++tally_.different;
    if (++tally_.different_by_mnemonic[mnemonic] > 2 || tally_.different_by_mnemonic.size() > options_.report_limit)
      return;
    fmt::print("instruction {}:\n", tally_.run);
    print_sample(sample_);
    for (const std::string& line : differences) fmt::print("    {}\n", line);
  }

  const Options& options_;
  HostCpu& host_;
  Interpreter& interpreter_;
  Generator& generator_;
  Sample sample_;
  Tally tally_;
};

Result<Options> parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string_view name = arguments[i];
    if (i + 1 == count) return fail("{}: a value is missing", name);
    const char* value = arguments[++i];
    if (name == "--only") {
      options.only = value;
      continue;
    }
    char* end = nullptr;
    const uint64_t number = std::strtoull(value, &end, 0);
    if (*value == 0 || *end != 0) return fail("{} '{}': not a number", name, value);
    if (name == "--count") {
      options.count = number;
    } else if (name == "--seed") {
      options.seed = number;
    } else if (name == "--report") {
      options.report_limit = number;
    } else {
      return fail("'{}': not an option (--count N, --seed S, --only MNEMONIC, --report N)", name);
    }
  }
  return options;
}

Result<int> run(const Options& options) {
  const cpu::FeatureSet features = engine::Engine::available_features();
  auto interpreter = TRY(Interpreter::create(features, Generator::kGsBase));
  auto host = TRY(HostCpu::create());
  if (!host->set_gs_base(Generator::kGsBase)) return fail("the host does not let a program set GS's base");
  Generator generator(interpreter->decode_options(), options.seed);
  if (!options.only.empty() && !generator.keep_only(options.only))
    return fail("--only '{}': no such instruction", options.only);
  return Differential(options, *host, *interpreter, generator).run();
}

}  // namespace
}  // namespace bulkhead::instructions

int main(int count, char** arguments) {
  const auto options = bulkhead::instructions::parse(count, arguments);
  const auto status = options ? bulkhead::instructions::run(*options) : std::unexpected(options.error());
  if (status) return *status;
  fmt::print(stderr, "instruction_differential: {}\n", status.error().message);
  return 2;
}
