// Two deterministic VMs of one configuration, each on an engine of its own, kept in step: both run for so many
// instructions, then their vCPUs are compared, and now and then their devices and the memory they have written. No
// thread but the caller's runs a guest.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/translation_watcher.h"
#include "vmm/vm.h"

namespace bulkhead::lockstep {

struct Options {
  uint64_t every = 1000;              // instructions between two comparisons of the vCPUs
  uint64_t memory_every = 1'000'000;  // and of devices and memory
  // The reference stops after so many instructions more, without a comparison: with 1 it never runs a block as a whole.
  uint64_t reference_step = UINT64_MAX;
  uint64_t end_ns = UINT64_MAX;  // guest time at which to stop
  // The comparison must find a difference: a register of the checked VM's vCPU 0 is falsified at this guest time.
  std::optional<uint64_t> falsify_at_ns;
};

struct Report {
  uint64_t guest_ns = 0;  // reached
  uint64_t equal_ns = 0;  // the last time at which everything was compared and equal
  uint64_t comparisons = 0;
  bool ended = false;                    // the guest ended itself
  uint64_t blocks = 0;                   // translated, each compared behind its first run
  std::string hash;                      // of the reference, when the guest ended
  std::vector<std::string> differences;  // empty: none
};

// Lets the VM that it watches stop behind the first run of each block that is translated.
class FirstRuns final : public engine::TranslationWatcher {
 public:
  void watch(vmm::Turns* turns) { turns_ = turns; }
  void on_translated(const engine::TranslatedBlock& block) override;
  void on_common_code(uint32_t, ByteSpan) override {}
  [[nodiscard]] uint64_t blocks() const { return blocks_; }

 private:
  vmm::Turns* turns_ = nullptr;
  uint64_t blocks_ = 0;
};

class Lockstep {
 public:
  using MakeVm = std::function<Result<std::unique_ptr<vmm::Vm>>(engine::TranslationWatcher*)>;

  // Both make a VM at its first instruction, which tells the watcher, if there is one, what it translates; called again
  // for each attempt to find the first instruction that differs.
  Lockstep(MakeVm make_checked, MakeVm make_reference, Options options);

  // To the end or the first difference. progress is called now and then with the guest's time.
  Result<Report> run(const std::function<void(uint64_t)>& progress);
  // After a difference: the first instruction behind which it shows, and what the reference executed up to there.
  Result<std::vector<std::string>> narrow_down(const Report& report);

 private:
  struct Pair {
    std::unique_ptr<FirstRuns> first_runs;
    std::unique_ptr<vmm::Vm> checked, reference;
    uint64_t equal_ns = 0, next_memory_ns = 0;
  };
  Result<Pair> make_pair();
  // Both run to this time, at most options_.every on. Lines of what differs; memory and devices are compared when it is
  // time to, or when the guest has ended.
  Result<std::vector<std::string>> advance(Pair& pair, uint64_t end_ns);
  static void run_one(vmm::Vm& vm, uint64_t end_ns, std::vector<std::string>& problems, const char* name);
  static std::vector<std::string> compare_vcpus(Pair& pair);
  static Result<std::vector<std::string>> compare_rest(Pair& pair);
  static std::string instruction_at(vmm::Vm& vm);

  MakeVm make_checked_, make_reference_;
  Options options_;
};

}  // namespace bulkhead::lockstep
