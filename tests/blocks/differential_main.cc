// block_differential: random programs under two engines, compared in everything. The same seed gives the same programs;
// one case of a run can be run alone with --first.
#include <chrono>
#include <cstdlib>
#include <string_view>

#include <fmt/format.h>

#include "blocks/pair.h"

namespace bulkhead::blocks {
namespace {

struct Options {
  uint64_t count = 100'000, seed = 1, first = 0, report_limit = 5;
  uint64_t seconds = 0;  // 0: as many cases as count says
  std::string_view inject;
};

struct NamedInjection {
  std::string_view name;
  Injection injection;
};
constexpr NamedInjection kInjections[] = {{"register", Injection::kRegister},
                                          {"flag", Injection::kFlag},
                                          {"vector", Injection::kVector},
                                          {"memory", Injection::kMemory},
                                          {"count", Injection::kCount}};
// With --inject, every so many-th case is falsified.
constexpr uint64_t kInjectionPeriod = 100;

Result<Options> parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string_view name = arguments[i];
    if (i + 1 == count) return fail("{}: a value is missing", name);
    const char* value = arguments[++i];
    if (name == "--inject") {
      options.inject = value;
      continue;
    }
    char* end = nullptr;
    const uint64_t number = std::strtoull(value, &end, 0);
    if (*value == 0 || *end != 0) return fail("{} '{}': not a number", name, value);
    if (name == "--count") {
      options.count = number;
    } else if (name == "--seconds") {
      options.seconds = number;
    } else if (name == "--seed") {
      options.seed = number;
    } else if (name == "--first") {
      options.first = number;
    } else if (name == "--report") {
      options.report_limit = number;
    } else {
      return fail("'{}': not an option (--count N, --seconds N, --seed S, --first N, --report N, --inject WHAT)", name);
    }
  }
  return options;
}

Case make_case(uint64_t seed, uint64_t number, const engine::decoder::DecodeOptions& options) {
  // A generator takes a while to make; its draws depend on this case's numbers alone.
  static ProgramGenerator generator(options, 0);
  SeededRandom random(seed * 0x9E37'79B9'7F4A'7C15 + number);
  generator.reseed(random.next());
  // Modes change seldom, because that builds the worlds anew.
  Case test{
      .mode = Pair::kModes[Pair::kOrder[number / 500 % Pair::kOrder.size()]], .seed = random.next(), .program = {}};
  const Ring ring = test.mode.ends_with("user") ? Ring::kUser : Ring::kKernel;
  test.program = test.mode.starts_with("long") ? generator.next(ring) : generator.next_32(ring);
  return test;
}

Result<int> run(const Options& options) {
  Injection injection = Injection::kNone;
  for (const auto& [name, value] : kInjections) {
    if (options.inject == name) injection = value;
  }
  if (!options.inject.empty() && injection == Injection::kNone) {
    return fail("--inject '{}': allowed: register, flag, vector, memory or count", options.inject);
  }
  auto pair = TRY(Pair::create({.translate = true, .translate_after = 1}, {}));
  uint64_t different = 0, injected = 0, runs = 0, number = options.first;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(options.seconds);
  for (; options.seconds != 0 ? std::chrono::steady_clock::now() < end : number < options.first + options.count;
       ++number) {
    const Case test = make_case(options.seed, number, pair->decode_options());
    const bool falsify = injection != Injection::kNone && number % kInjectionPeriod == 0;
    injected += falsify ? 1 : 0;
    runs += Pair::kRounds;
    const auto differences = pair->run(test, falsify ? injection : Injection::kNone);
    if (differences.empty()) continue;
    if (++different > options.report_limit) continue;
    fmt::print("case {} (--seed {} --first {} --count 1): {}", number, options.seed, number,
               list(test, pair->decode_options()));
    for (const std::string& line : differences) fmt::print("    {}\n", line);
  }
  fmt::print(
      "{} programs, {} runs of them, {} blocks translated, {} instructions, seed {}: {} differences, {} left to the "
      "TLB\n",
      number - options.first, runs, pair->translated(), pair->instructions(), options.seed, different,
      pair->left_to_tlb());
  if (injection == Injection::kNone) return different == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
  fmt::print("{} of {} falsified results were found\n", different, injected);
  return injected != 0 && different == injected ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace bulkhead::blocks

int main(int count, char** arguments) {
  const auto options = bulkhead::blocks::parse(count, arguments);
  const auto status = options ? bulkhead::blocks::run(*options) : std::unexpected(options.error());
  if (status) return *status;
  fmt::print(stderr, "block_differential: {}\n", status.error().message);
  return 2;
}
