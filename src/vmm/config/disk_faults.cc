#include "vmm/config/disk_faults.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "support/units.h"
#include "vmm/config/values.h"

namespace bulkhead::vmm {
namespace {

struct Share {
  std::string_view name;
  uint32_t block::DiskFaults::* value;
};
constexpr Share kShares[] = {{"read-error", &block::DiskFaults::read_error},
                             {"write-error", &block::DiskFaults::write_error},
                             {"flush-error", &block::DiskFaults::flush_error},
                             {"no-space", &block::DiskFaults::no_space},
                             {"torn", &block::DiskFaults::torn},
                             {"torn-silent", &block::DiskFaults::torn_silent},
                             {"misdirected", &block::DiskFaults::misdirected}};
constexpr std::string_view kNames =
    "seed, delay, jitter, read-error, write-error, flush-error, no-space, torn, torn-silent, misdirected, bad, full";

// "1M+64K".
Result<block::DiskFaults::Range> parse_range(std::string_view text) {
  const size_t plus = text.find('+');
  if (plus == std::string_view::npos) return fail("allowed: OFFSET+SIZE, like 1M+64K");
  return block::DiskFaults::Range{TRY(parse_size(text.substr(0, plus))), TRY(parse_size(text.substr(plus + 1)))};
}

Result<> set_fault(block::DiskFaults& faults, std::string_view name, std::string_view value) {
  if (const auto share = std::ranges::find(kShares, name, &Share::name); share != std::end(kShares)) {
    faults.*share->value = TRY(parse_share(value));
  } else if (name == "seed") {
    faults.seed = TRY(parse_number(value, 0, UINT64_MAX));
  } else if (name == "delay") {
    faults.delay_ns = TRY(parse_duration_ns(value));
  } else if (name == "jitter") {
    faults.jitter_ns = TRY(parse_duration_ns(value));
  } else if (name == "bad") {
    faults.bad.push_back(TRY(parse_range(value)));
  } else if (name == "full") {
    faults.full.push_back(TRY(parse_range(value)));
  } else {
    return fail("unknown; allowed: {}", kNames);
  }
  return {};
}

}  // namespace

Result<block::DiskFaults> parse_disk_faults(std::string_view text) {
  block::DiskFaults faults;
  std::set<std::string_view> seen;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(';'));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    const size_t colon = word.find(':');
    const std::string_view name = word.substr(0, colon);
    if (name != "bad" && name != "full" && !seen.insert(name).second) return fail("{} stands twice", name);
    TRY_IN(std::string(word), set_fault(faults, name, colon == std::string_view::npos ? "" : word.substr(colon + 1)));
  }
  if (!faults.any()) return fail("no fault; allowed: NAME:VALUE with ; between, of {}", kNames);
  TRY(block::check_faults(faults));
  return faults;
}

std::string describe(const block::DiskFaults& faults) {
  std::string text = fmt::format("seed {}", faults.seed);
  const auto add_time = [&text](std::string_view name, uint64_t ns) {
    if (ns != 0) text += fmt::format(", {} {} us", name, ns / 1000);
  };
  add_time("delay", faults.delay_ns);
  add_time("jitter", faults.jitter_ns);
  for (const Share& share : kShares) {
    if (faults.*share.value != 0) text += fmt::format(", {} {}%", share.name, faults.*share.value / 10'000.0);
  }
  for (const auto& [name, ranges] : {std::pair("bad", &faults.bad), std::pair("full", &faults.full)}) {
    for (const block::DiskFaults::Range& range : *ranges)
      text += fmt::format(", {} {}+{}", name, range.offset, range.size);
  }
  return text;
}

}  // namespace bulkhead::vmm
