// lockstep: a guest under two engines at once, compared as it goes. Any kernel that "bulkhead run" takes.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>

#include <fmt/format.h>
#include <unistd.h>

#include "lockstep/lockstep.h"
#include "support/log.h"

namespace bulkhead::lockstep {
namespace {

constexpr const char* kUsage =
    "lockstep [vm.yaml] [--kernel FILE] [--initrd FILE] [--cmdline TEXT] [--cpus N] [--memory SIZE] [--cpu-model "
    "MODEL]\n"
    "         [--boot-protocol NAME] [--seed N] [--output FILE]   the reference's COM1\n"
    "         [--every N]           instructions between comparisons of the vCPUs (1000)\n"
    "         [--reference-step N]  the reference stops more often than it is compared; 1: it runs no block as a "
    "whole\n"
    "         [--memory-every N]    and of memory and devices (1000000)\n"
    "         [--until MS]          guest milliseconds (until the guest ends itself)\n"
    "         [--falsify-at NS]     to see a difference found: changes a register of the checked VM\n"
    "Exit status: 0 no difference, 1 a difference, 2 wrong use.\n";

struct Arguments {
  vmm::VmConfig config;
  std::string output;
  Options options;
};

Result<uint64_t> number(std::string_view name, const char* value) {
  char* end = nullptr;
  const uint64_t result = std::strtoull(value, &end, 0);
  if (*value == 0 || *end != 0 || result == 0) return fail("{} '{}': not a number above 0", name, value);
  return result;
}

Result<Arguments> parse(int count, char** arguments) {
  static const std::map<std::string_view, std::string_view> kKeys = {{"--kernel", "spec.boot.kernel"},
                                                                     {"--initrd", "spec.boot.initrd"},
                                                                     {"--cmdline", "spec.boot.cmdline"},
                                                                     {"--cpus", "spec.cpus"},
                                                                     {"--memory", "spec.memory"},
                                                                     {"--cpu-model", "spec.cpu-model"},
                                                                     {"--seed", "spec.seed"},
                                                                     {"--boot-protocol", "spec.boot.protocol"}};
  Arguments result;
  int i = 1;
  if (i < count && arguments[i][0] != '-') result.config = TRY(vmm::load_config(arguments[i++]));
  for (; i < count; ++i) {
    const std::string name = arguments[i];
    if (i + 1 == count) return fail("{}: a value is missing", name);
    const char* value = arguments[++i];
    if (const auto key = kKeys.find(name); key != kKeys.end()) {
      TRY(vmm::set_value(result.config, key->second, value, name));
    } else if (name == "--output") {
      result.output = value;
    } else if (name == "--every") {
      result.options.every = TRY(number(name, value));
    } else if (name == "--reference-step") {
      result.options.reference_step = TRY(number(name, value));
    } else if (name == "--memory-every") {
      result.options.memory_every = TRY(number(name, value));
    } else if (name == "--until") {
      result.options.end_ns = TRY(number(name, value)) * 1'000'000;
    } else if (name == "--falsify-at") {
      result.options.falsify_at_ns = TRY(number(name, value));
    } else {
      return fail("'{}': not an option\n{}", name, kUsage);
    }
  }
  // Two VMs cannot share what they write to, and the guest's reset ends the comparison.
  if (!result.config.disks.empty()) return fail("disks: two VMs would write to one file; none allowed");
  result.config.deterministic = {true, "lockstep"};
  result.config.reboot = {false, "lockstep"};
  result.config.serial_lines = {{{console::Spec::Kind::kNull, {}}, {}}};
  result.config.virtio_console = {};
  TRY(vmm::check_config(result.config));
  return result;
}

// An engine as it was, with somebody who is told what it translates.
class WatchedBackend final : public vmm::EngineBackend {
 public:
  WatchedBackend(std::unique_ptr<vmm::EngineBackend> backend, engine::TranslationWatcher* watcher)
      : backend_(std::move(backend)), watcher_(watcher) {}
  [[nodiscard]] std::string_view name() const override { return backend_->name(); }
  [[nodiscard]] cpu::FeatureSet available_features() const override { return backend_->available_features(); }
  [[nodiscard]] HostClock::Source clock_source() const override { return backend_->clock_source(); }
  Result<std::unique_ptr<vmm::VmEngine>> create(const vmm::EngineParts& parts) override {
    vmm::EngineParts watched = parts;
    watched.watcher = watcher_;
    return backend_->create(watched);
  }

 private:
  std::unique_ptr<vmm::EngineBackend> backend_;
  engine::TranslationWatcher* watcher_;
};

Result<int> run(const Arguments& arguments) {
  const auto make_checked = [&](engine::TranslationWatcher* watcher) {
    vmm::VmConfig config = arguments.config;
    config.jit = {true, "lockstep"};
    auto sources = vmm::EngineSources::of_this_host();
    sources.make_soft = [make = sources.make_soft, watcher] {
      return std::make_unique<WatchedBackend>(make(), watcher);
    };
    return vmm::Vm::create(config, sources);
  };
  const auto make_reference = [&](engine::TranslationWatcher*) -> Result<std::unique_ptr<vmm::Vm>> {
    vmm::VmConfig config = arguments.config;
    config.jit = {false, "lockstep"};
    if (!arguments.output.empty()) {
      config.serial_lines = {{{console::Spec::Kind::kFile, arguments.output}, "--output"}};
    }
    auto vm = TRY(vmm::Vm::create(config, vmm::EngineSources::of_this_host()));
    vm->start_consoles();
    return vm;
  };
  Lockstep lockstep(make_checked, make_reference, arguments.options);
  const bool shows_progress = ::isatty(2) != 0;
  const Report report = TRY(lockstep.run([shows_progress](uint64_t ns) {
    if (shows_progress) fmt::print(stderr, "\r{} ms", ns / 1'000'000);
  }));
  fmt::print("{} blocks translated, each compared behind its first run\n", report.blocks);
  fmt::print("{} comparisons up to guest time {} ns{}: {}\n", report.comparisons, report.guest_ns,
             report.ended ? ", where the guest ended" : "", report.differences.empty() ? "no difference" : "differs");
  if (!report.hash.empty()) fmt::print("final hash: {}\n", report.hash);
  if (report.differences.empty()) return EXIT_SUCCESS;
  for (const std::string& line : report.differences) fmt::print("  {}\n", line);
  fmt::print("narrowing down\n");
  for (const std::string& line : TRY(lockstep.narrow_down(report))) fmt::print("  {}\n", line);
  return EXIT_FAILURE;
}

}  // namespace
}  // namespace bulkhead::lockstep

int main(int count, char** arguments) {
  const auto parsed = bulkhead::lockstep::parse(count, arguments);
  const auto status = parsed ? bulkhead::lockstep::run(*parsed) : std::unexpected(parsed.error());
  if (status) return *status;
  fmt::print(stderr, "lockstep: {}\n", status.error().message);
  return 2;
}
