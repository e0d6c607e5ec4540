#include "vmm/config/values.h"

#include <array>
#include <charconv>

#include "support/bytes.h"

namespace bulkhead::vmm {
namespace {

constexpr std::string_view kUnits = "KMGT";

// Decimal digits at the start of text, which moves past them.
std::optional<uint64_t> take_digits(std::string_view& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

}  // namespace

Result<uint64_t> parse_size(std::string_view text) {
  constexpr std::string_view kAllowed = "not a size; allowed: a whole number and K, M, G or T, like 512M or 2G";
  const std::optional<uint64_t> number = take_digits(text);
  if (!number) return fail("{}", kAllowed);
  uint64_t unit = 1;
  if (!text.empty()) {
    const size_t index = kUnits.find(text.front());
    if (index != std::string_view::npos) {
      unit = 1ull << (10 * (index + 1));
      text.remove_prefix(1);
      if (text.starts_with('i')) text.remove_prefix(1);
    }
    if (text.starts_with('B')) text.remove_prefix(1);
    if (!text.empty()) return fail("{}", kAllowed);
  }
  const std::optional<uint64_t> size = checked_multiply(*number, unit);
  if (!size) return fail("larger than 64 bits hold");
  return *size;
}

Result<uint64_t> parse_number(std::string_view text, uint64_t least, uint64_t most) {
  const std::optional<uint64_t> number = take_digits(text);
  if (!number || !text.empty() || *number < least || *number > most) {
    return fail("allowed: a whole number from {} to {}", least, most);
  }
  return *number;
}

Result<uint64_t> parse_bit_rate(std::string_view text) {
  constexpr uint64_t kMost = 1'000'000'000'000;
  const std::optional<uint64_t> number = take_digits(text);
  uint64_t unit = 1;
  if (text.size() == 1 && kUnits.find(text.front()) < 3) {
    for (size_t i = 0; i <= kUnits.find(text.front()); ++i) unit *= 1000;
    text = {};
  }
  const std::optional<uint64_t> rate = number ? checked_multiply(*number, unit) : std::nullopt;
  if (!rate || !text.empty() || *rate < 8 || *rate > kMost) {
    return fail("allowed: bits a second with K, M or G, from 8 to 1000G");
  }
  return *rate / 8;
}

Result<bool> parse_flag(std::string_view text) {
  for (const std::string_view yes : {"true", "yes", "on"}) {
    if (text == yes) return true;
  }
  for (const std::string_view no : {"false", "no", "off"}) {
    if (text == no) return false;
  }
  return fail("allowed: true or false");
}

std::string format_size(uint64_t bytes) {
  constexpr std::array<std::string_view, 5> kSuffix = {"", "K", "M", "G", "T"};
  size_t unit = 0;
  while (unit + 1 < kSuffix.size() && bytes != 0 && bytes % 1024 == 0) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{}{}", bytes, kSuffix[unit]);
}

}  // namespace bulkhead::vmm
