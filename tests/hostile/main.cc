// hostile: lives of a guest that does all it can, in a process that watches its own memory. See README.md.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <thread>

#include <fmt/format.h>

#include "hostile/canaries.h"
#include "support/random.h"
#include "vmm/vm.h"

namespace bulkhead::hostile {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kUsage =
    "hostile --kernel FILE [--seconds N (10)] [--life SECONDS (2)] [--jit on|off] [--cpus N (2)] [--memory SIZE "
    "(32M)]\n"
    "        [--seed S (1)] [--disk FILE] [--falsify WHERE]\n"
    "Exit status: 0 nothing outside of the guest has changed, 1 something has, 2 wrong use.\n";

struct Arguments {
  vmm::VmConfig config;
  uint64_t seconds = 10, life = 2, seed = 1;
  std::string falsify;
};

Result<uint64_t> number(std::string_view name, const char* value) {
  char* end = nullptr;
  const uint64_t result = std::strtoull(value, &end, 0);
  if (*value == 0 || *end != 0 || result == 0) return fail("{} '{}': not a number above 0", name, value);
  return result;
}

Result<Arguments> parse(int count, char** arguments) {
  static const std::map<std::string_view, std::string_view> kKeys = {
      {"--kernel", "spec.boot.kernel"}, {"--cpus", "spec.cpus"}, {"--memory", "spec.memory"}, {"--jit", "spec.jit"}};
  Arguments result;
  TRY(vmm::set_value(result.config, "spec.memory", "32M", "hostile"));
  TRY(vmm::set_value(result.config, "spec.cpus", "2", "hostile"));
  TRY(vmm::set_value(result.config, "spec.engine", "soft", "hostile"));
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    if (i + 1 == count) return fail("{}: a value is missing\n{}", name, kUsage);
    const char* value = arguments[++i];
    if (const auto key = kKeys.find(name); key != kKeys.end()) {
      TRY(vmm::set_value(result.config, key->second, value, name));
    } else if (name == "--disk") {
      TRY(vmm::set_list(result.config, "spec.disks", {value}, name));
    } else if (name == "--seconds") {
      result.seconds = TRY(number(name, value));
    } else if (name == "--life") {
      result.life = TRY(number(name, value));
    } else if (name == "--seed") {
      result.seed = TRY(number(name, value));
    } else if (name == "--falsify") {
      result.falsify = value;
    } else {
      return fail("'{}': not an option\n{}", name, kUsage);
    }
  }
  result.config.serial_lines = {{{console::Spec::Kind::kNull, {}}, {}}};
  TRY(vmm::check_config(result.config));
  return result;
}

// What happened in all lives.
struct Totals {
  uint64_t lives = 0, outlived = 0, nmis = 0;
  std::map<std::string, uint64_t> ends;
  std::map<std::string, uint64_t> counters;
};

void add_counters(vmm::Vm& vm, Totals& totals) {
  static constexpr std::string_view kShown[] = {"instructions", "exceptions",         "interrupts", "exits.mmio",
                                                "tlb.flushes",  "blocks.code_writes", "jit.blocks", "jit.entries"};
  for (uint32_t i = 0; i < vm.vcpu_count(); ++i) {
    for (const auto& [name, value] : vm.vcpu(i).statistics()) {
      if (std::ranges::find(kShown, name) != std::end(kShown)) totals.counters[name] += value;
    }
  }
}

// Pokes the guest until it or its time has come to an end. An error: something is wrong that is not the guest's.
Result<> live(vmm::Vm& vm, std::chrono::milliseconds span, Totals& totals) {
  constexpr std::chrono::milliseconds kPoke{5};
  constexpr std::chrono::seconds kPatience{60};
  const auto begin = Clock::now();
  vm.start();
  bool asked_to_end = false;
  while (!vm.driver().ended()) {
    std::this_thread::sleep_for(kPoke);
    for (uint32_t i = 0; i < vm.vcpu_count(); ++i) vm.vcpu(i).raise_nmi();
    ++totals.nmis;
    if (!asked_to_end && Clock::now() - begin > span) {
      asked_to_end = true;
      ++totals.outlived;
      vm.driver().quit();
    }
    if (Clock::now() - begin > span + kPatience) {
      fmt::print("a VM does not end {} s after it was asked to\n", kPatience.count());
      std::abort();
    }
  }
  const vmm::Outcome outcome = vm.driver().wait();
  if (outcome.kind == vmm::Outcome::Kind::kEngineError || outcome.kind == vmm::Outcome::Kind::kHostError) {
    return fail("{}", outcome.line());
  }
  const std::string line = outcome.line();
  ++totals.ends[line.substr(0, line.find(':'))];
  for (const std::string& mapping : TRY(writable_code())) return fail("writable and executable: {}", mapping);
  vm.finish();
  add_counters(vm, totals);
  return {};
}

// Of many, for another mapping may take the place first.
Result<std::unique_ptr<vmm::Vm>> create_in_place(const vmm::VmConfig& config, Canaries& canaries) {
  constexpr int kAttempts = 20;
  Result<> in_place;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    auto vm = TRY(vmm::Vm::create(config, vmm::EngineSources::of_this_host()));
    in_place = canaries.check_place(vm->memory());
    if (in_place) return vm;
    vm.reset();
    TRY(canaries.make_place(config.memory_bytes.value));
  }
  return std::unexpected(in_place.error());
}

Result<std::vector<std::string>> run(const Arguments& arguments, Totals& totals) {
  Canaries canaries(arguments.seed);
  const size_t descriptors = TRY(descriptor_count());
  const auto end = Clock::now() + std::chrono::seconds(arguments.seconds);
  uint64_t bytes = 0;
  while (Clock::now() < end) {
    vmm::VmConfig config = arguments.config;
    config.command_line = {fmt::format("seed={}", arguments.seed + totals.lives), "hostile"};
    {
      const auto vm = TRY(create_in_place(config, canaries));
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
      TRY(live(*vm, std::min<std::chrono::milliseconds>(left, std::chrono::seconds(arguments.life)), totals));
    }
    ++totals.lives;
    bytes = canaries.bytes();
    if (!arguments.falsify.empty() && !canaries.falsify(arguments.falsify)) {
      return fail("--falsify '{}': no such canary", arguments.falsify);
    }
    if (auto lines = canaries.changed(); !lines.empty()) return lines;
    if (const size_t now = TRY(descriptor_count()); now > descriptors) {
      return fail("{} descriptors before the first life, {} after {}", descriptors, now, totals.lives);
    }
  }
  fmt::print("{} bytes of canaries compared after each life\n", bytes);
  return std::vector<std::string>{};
}

int report(const Result<std::vector<std::string>>& changed, const Totals& totals) {
  fmt::print("{} lives, {} NMIs each vCPU, {} ended by their time;", totals.lives, totals.nmis, totals.outlived);
  for (const auto& [name, value] : totals.ends) fmt::print(" {} x {},", value, name);
  fmt::print("\n");
  for (const auto& [name, value] : totals.counters) fmt::print("  {:<24}{:>16}\n", name, value);
  if (!changed) {
    fmt::print("{}\n", changed.error().message);
    return EXIT_FAILURE;
  }
  for (const std::string& line : *changed) fmt::print("CHANGED {}\n", line);
  if (changed->empty()) fmt::print("nothing outside of the guest has changed\n");
  return changed->empty() ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace bulkhead::hostile

int main(int count, char** arguments) {
  using namespace bulkhead::hostile;
  const auto parsed = parse(count, arguments);
  if (!parsed) {
    fmt::print(stderr, "hostile: {}\n", parsed.error().message);
    return 2;
  }
  Totals totals;
  return report(run(*parsed, totals), totals);
}
