#include "vmm/config/throttle.h"

#include <algorithm>
#include <set>

#include "vmm/config/values.h"

namespace bulkhead::vmm {
namespace {

struct Limit {
  std::string_view name;
  uint64_t block::ThrottleLimits::* value;
};
constexpr Limit kLimits[] = {{"iops", &block::ThrottleLimits::requests_a_second},
                             {"iops-burst", &block::ThrottleLimits::request_burst},
                             {"bps", &block::ThrottleLimits::bytes_a_second},
                             {"bps-burst", &block::ThrottleLimits::byte_burst}};
constexpr uint64_t kMost = uint64_t{1} << 40;

}  // namespace

bool is_limit(std::string_view name) {
  return std::ranges::find(kLimits, name, &Limit::name) != std::end(kLimits);
}

Result<> set_limit(block::ThrottleLimits& limits, std::string_view name, std::string_view value) {
  const auto found = std::ranges::find(kLimits, name, &Limit::name);
  if (found == std::end(kLimits)) return fail("unknown; allowed: iops, iops-burst, bps, bps-burst");
  const uint64_t number = name.starts_with("bps") ? TRY(parse_size(value)) : TRY(parse_number(value, 1, kMost));
  if (number == 0 || number > kMost) return fail("allowed: 1 to {}", format_size(kMost));
  limits.*found->value = number;
  return {};
}

Result<std::string> parse_group_name(std::string_view text) {
  const bool good = std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
  if (text.empty() || text.size() > 32 || !good) return fail("allowed: 1 to 32 letters, digits, '-' and '_'");
  return std::string(text);
}

Result<> check_limits(const block::ThrottleLimits& limits) {
  if (limits.request_burst != 0 && limits.requests_a_second == 0) return fail("iops-burst without iops");
  if (limits.byte_burst != 0 && limits.bytes_a_second == 0) return fail("bps-burst without bps");
  return {};
}

Result<DiskGroupConfig> parse_disk_group(std::string_view text) {
  DiskGroupConfig group;
  group.name = TRY(parse_group_name(text.substr(0, text.find(','))));
  text.remove_prefix(group.name.size());
  std::set<std::string_view> seen;
  while (!text.empty()) {
    text.remove_prefix(1);
    const std::string_view word = text.substr(0, text.find(','));
    text.remove_prefix(word.size());
    const size_t equals = word.find('=');
    const std::string_view name = word.substr(0, equals);
    if (!seen.insert(name).second) return fail("{} stands twice", name);
    TRY_IN(std::string(word),
           set_limit(group.limits, name, equals == std::string_view::npos ? "" : word.substr(equals + 1)));
  }
  if (!group.limits.any()) return fail("limits nothing; allowed: NAME,iops=NUMBER,bps=SIZE,...");
  TRY(check_limits(group.limits));
  return group;
}

}  // namespace bulkhead::vmm
