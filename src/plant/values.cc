#include "plant/values.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "plant/model.h"

namespace bulkhead::plant {
namespace {

struct Unit {
  std::string_view name;
  uint64_t factor;
};

std::optional<uint64_t> whole_number(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// A whole number and a unit; nothing when it is none, or more than most.
std::optional<uint64_t> with_unit(std::string_view text, std::initializer_list<Unit> units, uint64_t most) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto number = whole_number(text.substr(0, digits));
  const auto unit = std::ranges::find(units, text.substr(digits), &Unit::name);
  if (!number || unit == units.end() || *number > most / unit->factor) return std::nullopt;
  return *number * unit->factor;
}

}  // namespace

Result<uint64_t> parse_number(std::string_view text, uint64_t least, uint64_t most) {
  const auto number = whole_number(text);
  if (!number || *number < least || *number > most) return fail("allowed: {} to {}", least, most);
  return *number;
}

Result<std::pair<uint64_t, uint64_t>> parse_range(std::string_view text, uint64_t least, uint64_t most) {
  const size_t dash = text.find('-');
  const auto first = whole_number(text.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : whole_number(text.substr(dash + 1));
  if (!first || !last || *first < least || *last > most || *first > *last) {
    return fail("allowed: a number or FIRST-LAST, from {} to {}", least, most);
  }
  return std::pair(*first, *last);
}

Result<bool> parse_flag(std::string_view text) {
  if (text == "true" || text == "yes" || text == "on") return true;
  if (text == "false" || text == "no" || text == "off") return false;
  return fail("allowed: true or false");
}

Result<uint64_t> parse_bit_rate(std::string_view text) {
  const auto found =
      with_unit(text, {{"", 1}, {"K", 1'000}, {"M", 1'000'000}, {"G", 1'000'000'000}}, 1'000'000'000'000);
  if (!found || *found < 8) return fail("allowed: bits a second with K, M or G, from 8 to 1000G");
  return *found / 8;
}

Result<uint64_t> parse_byte_size(std::string_view text) {
  const auto found = with_unit(text, {{"", 1}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}}, uint64_t{1} << 40);
  if (!found) return fail("allowed: a whole number of bytes with K, M or G, at most 1024G");
  return *found;
}

Result<> check_name(std::string_view text) {
  const auto inner = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; };
  if (text.empty() || text.size() > Plant::kMaximumName || !std::ranges::all_of(text, inner) || text.front() == '-' ||
      text.back() == '-') {
    return fail("no name; allowed: 1 to {} of a-z, 0-9 and dashes within", Plant::kMaximumName);
  }
  return {};
}

}  // namespace bulkhead::plant
