#include "support/units.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

namespace bulkhead {
namespace {

std::optional<uint64_t> whole_number(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

}  // namespace

Result<uint64_t> parse_duration_ns(std::string_view text) {
  constexpr std::pair<std::string_view, uint64_t> kUnits[] = {
      {"us", 1'000}, {"ms", 1'000'000}, {"s", 1'000'000'000}, {"m", 60'000'000'000}};
  constexpr uint64_t kMost = 3'600'000'000'000;
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto number = whole_number(text.substr(0, digits));
  const auto unit = std::ranges::find(kUnits, text.substr(digits), &std::pair<std::string_view, uint64_t>::first);
  if (!number || unit == std::end(kUnits) || *number > kMost / unit->second) {
    return fail("allowed: a whole number and us, ms, s or m, at most an hour");
  }
  return *number * unit->second;
}

Result<uint32_t> parse_share(std::string_view text) {
  constexpr std::string_view kAllowed = "allowed: 0% to 100%, with at most four decimals";
  if (!text.ends_with('%')) return fail("{}", kAllowed);
  text.remove_suffix(1);
  const size_t dot = text.find('.');
  const std::string_view decimals = dot == std::string_view::npos ? std::string_view("0") : text.substr(dot + 1);
  const auto whole = whole_number(text.substr(0, dot));
  auto part = whole_number(decimals);
  if (!whole || !part || decimals.size() > 4 || *whole > 100) return fail("{}", kAllowed);
  for (size_t digits = decimals.size(); digits < 4; ++digits) *part *= 10;
  const uint64_t share = *whole * 10'000 + *part;
  if (share > 1'000'000) return fail("{}", kAllowed);
  return static_cast<uint32_t>(share);
}

}  // namespace bulkhead
