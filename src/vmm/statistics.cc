#include "vmm/statistics.h"

#include <algorithm>

#include <fmt/format.h>

namespace bulkhead::vmm {
namespace {

constexpr int kNameWidth = 32;
constexpr int kValueWidth = 16;

// 1234567 as "1 234 567".
std::string group(uint64_t value) {
  std::string digits = std::to_string(value);
  for (auto position = static_cast<ptrdiff_t>(digits.size()) - 3; position > 0; position -= 3) {
    digits.insert(static_cast<size_t>(position), 1, ' ');
  }
  return digits;
}

uint64_t value_of(const cpu::Statistics& statistics, const std::string& name) {
  const auto found = std::ranges::find(statistics, name, &std::pair<std::string, uint64_t>::first);
  return found == statistics.end() ? 0 : found->second;
}

}  // namespace

std::string format_statistics(const std::vector<cpu::Statistics>& vcpus, const std::vector<StatisticsSection>& others) {
  // The names of all vCPUs in the order in which they first occur.
  std::vector<std::string> names;
  for (const auto& vcpu : vcpus) {
    for (const auto& [name, value] : vcpu) {
      if (std::ranges::find(names, name) == names.end()) names.push_back(name);
    }
  }
  std::string out;
  if (!names.empty()) {
    out += fmt::format("{:<{}}", "vCPU", kNameWidth);
    for (size_t i = 0; i < vcpus.size(); ++i) out += fmt::format("{:>{}}", i, kValueWidth);
    if (vcpus.size() > 1) out += fmt::format("{:>{}}", "all", kValueWidth);
    out += '\n';
  }
  for (const std::string& name : names) {
    out += fmt::format("  {:<{}}", name, kNameWidth - 2);
    uint64_t sum = 0;
    for (const auto& vcpu : vcpus) {
      const uint64_t value = value_of(vcpu, name);
      sum += value;
      out += fmt::format("{:>{}}", group(value), kValueWidth);
    }
    if (vcpus.size() > 1) out += fmt::format("{:>{}}", group(sum), kValueWidth);
    out += '\n';
  }
  for (const StatisticsSection& section : others) {
    out += section.title + '\n';
    for (const auto& [name, value] : section.values) {
      out += fmt::format("  {:<{}}{:>{}}\n", name, kNameWidth - 2, group(value), kValueWidth);
    }
  }
  return out;
}

}  // namespace bulkhead::vmm
