#include "lockstep/lockstep.h"

#include <algorithm>
#include <cstring>

#include "blocks/world.h"
#include "engine/decoder/decoder.h"

namespace bulkhead::lockstep {
namespace {

constexpr size_t kMaximumLines = 40;

std::vector<uint64_t> take_written(memory::GuestMemory& memory) {
  std::vector<uint64_t> pages;
  memory.take_dirty([&](uint64_t page) { pages.push_back(page); });
  return pages;
}

void compare_page(vmm::Vm& checked, vmm::Vm& reference, uint64_t page, std::vector<std::string>& lines) {
  const uint8_t* expected = reference.memory().host_base() + page * kPageSize;
  const uint8_t* actual = checked.memory().host_base() + page * kPageSize;
  if (std::memcmp(expected, actual, kPageSize) == 0 || lines.size() >= kMaximumLines) return;
  const auto at = static_cast<uint64_t>(std::mismatch(expected, expected + kPageSize, actual).first - expected) & ~7ull;
  lines.push_back(fmt::format("memory at {:x}: expected {:016x}, got {:016x}", page * kPageSize + at,
                              load<uint64_t>(expected + at), load<uint64_t>(actual + at)));
}

}  // namespace

void FirstRuns::on_translated(const engine::TranslatedBlock& block) {
  ++blocks_;
  if (turns_ != nullptr) turns_->end_after(block.instructions.size());
}

Lockstep::Lockstep(MakeVm make_checked, MakeVm make_reference, Options options)
    : make_checked_(std::move(make_checked)), make_reference_(std::move(make_reference)), options_(options) {}

Result<Lockstep::Pair> Lockstep::make_pair() {
  auto first_runs = std::make_unique<FirstRuns>();
  auto checked = TRY(make_checked_(first_runs.get()));
  Pair pair{.first_runs = std::move(first_runs),
            .checked = std::move(checked),
            .reference = TRY(make_reference_(nullptr)),
            .next_memory_ns = options_.memory_every};
  if (pair.checked->turns() == nullptr || pair.reference->turns() == nullptr) {
    return fail("both VMs have to be deterministic");
  }
  pair.first_runs->watch(pair.checked->turns());
  return pair;
}

void Lockstep::run_one(vmm::Vm& vm, uint64_t end_ns, std::vector<std::string>& problems, const char* name) {
  const cpu::StopReason reason = vm.turns()->run_until(end_ns);
  if (reason == cpu::StopReason::kInternalError) problems.push_back(fmt::format("{}: {}", name, vm.turns()->error()));
}

Result<std::vector<std::string>> Lockstep::advance(Pair& pair, uint64_t end_ns) {
  std::vector<std::string> lines;
  const auto falsify_at = options_.falsify_at_ns;
  if (falsify_at && pair.checked->guest_ns() < *falsify_at && *falsify_at <= end_ns) {
    while (lines.empty() && pair.checked->guest_ns() < *falsify_at)
      run_one(*pair.checked, *falsify_at, lines, "checked");
    cpu::State state = pair.checked->vcpu(0).get_state();
    state.gpr[cpu::kR15] ^= 1;
    CHECK(pair.checked->vcpu(0).set_state(state).has_value(), "a state that was taken can be set");
  }
  run_one(*pair.checked, end_ns, lines, "checked");
  // It may have stopped earlier, behind a block that was translated.
  if (!pair.checked->turns()->frozen()) end_ns = std::min(end_ns, pair.checked->guest_ns());
  while (lines.empty() && pair.reference->guest_ns() < end_ns) {
    const uint64_t at = pair.reference->guest_ns();
    run_one(*pair.reference, at + std::min(options_.reference_step, end_ns - at), lines, "reference");
    if (pair.reference->guest_ns() == at) break;  // it has ended
  }
  const auto vcpus = compare_vcpus(pair);
  lines.insert(lines.end(), vcpus.begin(), vcpus.end());
  const uint64_t now_ns = pair.reference->guest_ns();
  if (!lines.empty() || (now_ns < pair.next_memory_ns && !pair.reference->turns()->frozen())) return lines;
  lines = TRY(compare_rest(pair));
  pair.next_memory_ns = now_ns + options_.memory_every;
  if (lines.empty()) pair.equal_ns = now_ns;
  return lines;
}

std::vector<std::string> Lockstep::compare_vcpus(Pair& pair) {
  std::vector<std::string> lines;
  if (pair.checked->guest_ns() != pair.reference->guest_ns()) {
    lines.push_back(
        fmt::format("guest time: expected {} ns, got {} ns", pair.reference->guest_ns(), pair.checked->guest_ns()));
  }
  if (pair.checked->turns()->frozen() != pair.reference->turns()->frozen()) lines.emplace_back("only one has ended");
  for (uint32_t i = 0; i < pair.reference->vcpu_count(); ++i) {
    const cpu::State expected = pair.reference->vcpu(i).get_state();
    const cpu::State actual = pair.checked->vcpu(i).get_state();
    if (expected == actual) continue;
    for (const std::string& line : blocks::compare_states(expected, actual)) {
      lines.push_back(fmt::format("vCPU {} {}", i, line));
    }
  }
  return lines;
}

// What either has written since the last time, and all devices.
Result<std::vector<std::string>> Lockstep::compare_rest(Pair& pair) {
  std::vector<std::string> lines;
  std::vector<uint64_t> pages = take_written(pair.checked->memory());
  const std::vector<uint64_t> others = take_written(pair.reference->memory());
  pages.insert(pages.end(), others.begin(), others.end());
  std::ranges::sort(pages);
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  for (const uint64_t page : pages) compare_page(*pair.checked, *pair.reference, page, lines);
  StateWriter checked, reference;
  TRY(pair.checked->save(checked));
  TRY(pair.reference->save(reference));
  if (checked.encode() != reference.encode()) lines.emplace_back("saved state of vCPUs or devices");
  TRY(pair.checked->forget_written());
  TRY(pair.reference->forget_written());
  return lines;
}

Result<Report> Lockstep::run(const std::function<void(uint64_t)>& progress) {
  Pair pair = TRY(make_pair());
  Report report;
  while (report.guest_ns < options_.end_ns && !report.ended) {
    const uint64_t end = std::min(report.guest_ns + options_.every, options_.end_ns);
    report.differences = TRY(advance(pair, end));
    ++report.comparisons;
    report.blocks = pair.first_runs->blocks();
    // A triple fault does not let time go on either.
    report.ended = pair.reference->turns()->frozen() || pair.reference->guest_ns() == report.guest_ns;
    report.guest_ns = pair.reference->guest_ns();
    if (report.equal_ns != pair.equal_ns) progress(pair.equal_ns);
    report.equal_ns = pair.equal_ns;
    if (!report.differences.empty()) return report;
  }
  for (uint64_t page = 0; page < pair.reference->memory().low_size() / kPageSize; ++page) {
    compare_page(*pair.checked, *pair.reference, page, report.differences);
  }
  report.hash = TRY(pair.reference->state_hash());
  if (TRY(pair.checked->state_hash()) != report.hash) report.differences.emplace_back("the final hash");
  return report;
}

std::string Lockstep::instruction_at(vmm::Vm& vm) {
  const uint32_t index = vm.turns()->stopped_index();
  const cpu::State state = vm.vcpu(index).get_state();
  const cpu::Segment& code = state.segments[cpu::kCs];
  using engine::decoder::DecodeMode;
  const bool code64 = (state.efer & 0x400) != 0 && (code.attributes & 0x2000) != 0;
  const DecodeMode mode = code64                            ? DecodeMode::kLong64
                          : (code.attributes & 0x4000) != 0 ? DecodeMode::kProtected32
                          : (state.cr0 & 1) != 0            ? DecodeMode::kProtected16
                                                            : DecodeMode::kReal16;
  const uint64_t linear = code64 ? state.rip : code.base + state.rip;
  std::vector<uint8_t> bytes;
  for (uint64_t i = 0; i < engine::decoder::kMaxInstructionLength; ++i) {
    const auto physical = vm.vcpu(index).translate(linear + i);
    const auto byte = physical ? vm.memory().read_object<uint8_t>(*physical) : std::nullopt;
    if (!byte) break;
    bytes.push_back(*byte);
  }
  const auto decoded = engine::decoder::decode(bytes, mode, {});
  const bool valid = decoded.status == engine::decoder::DecodeStatus::kOk;
  if (valid) bytes.resize(decoded.instruction.length);
  std::string hex;
  for (const uint8_t byte : bytes) hex += fmt::format("{:02x} ", byte);
  return fmt::format("vCPU {} count {} {:04x}:{:x}  {:<46}{}", index, state.instruction_count, code.selector, state.rip,
                     hex, valid ? engine::decoder::mnemonic_name(decoded.instruction.mnemonic) : "(not decoded)");
}

// Each question is asked of a new pair that takes the same steps up to there, because what an engine does depends on
// where it was asked to stop before.
Result<std::vector<std::string>> Lockstep::narrow_down(const Report& report) {
  const auto run_to = [&](Pair& pair, uint64_t end_ns) -> Result<std::vector<std::string>> {
    for (uint64_t at = 0; at < end_ns;) {
      if (auto lines = TRY(advance(pair, std::min(at + options_.every, end_ns))); !lines.empty()) return lines;
      if (pair.reference->guest_ns() == at) break;
      at = pair.reference->guest_ns();
    }
    return TRY(compare_rest(pair));
  };
  uint64_t equal = report.equal_ns, different = report.guest_ns;
  std::vector<std::string> lines = report.differences;
  while (different - equal > 1) {
    const uint64_t middle = equal + (different - equal) / 2;
    Pair pair = TRY(make_pair());
    auto found = TRY(run_to(pair, middle));
    (found.empty() ? equal : different) = middle;
    if (!found.empty()) lines = std::move(found);
  }
  constexpr uint64_t kListed = 48;
  Pair pair = TRY(make_pair());
  const uint64_t first = different - std::min(different, kListed);
  (void)TRY(run_to(pair, first));
  lines.push_back(
      fmt::format("equal at guest time {} ns, different at {} ns; the reference executed:", equal, different));
  for (uint64_t at = first; at < different; ++at) {
    lines.push_back(instruction_at(*pair.reference));
    run_one(*pair.reference, at + 1, lines, "reference");
  }
  return lines;
}

}  // namespace bulkhead::lockstep
