#include "instructions/known_cases.h"

namespace bulkhead::instructions {
namespace {

std::string_view trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

}  // namespace

Result<KnownCases> parse_known_cases(std::string_view text, std::string_view file_name) {
  constexpr std::string_view kReason = "reason ", kNotRun = ", not run";
  KnownCases known;
  KnownCase group;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    const std::string_view line = trim(text.substr(0, end).substr(0, text.substr(0, end).find(';')));
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
    if (line.empty()) continue;
    if (line.starts_with(kReason)) {
      std::string_view reason = trim(line.substr(kReason.size()));
      group.runs = !reason.ends_with(kNotRun);
      if (!group.runs) reason.remove_suffix(kNotRun.size());
      group.reason = reason;
    } else if (group.reason.empty()) {
      return fail("{}:{}: '{}' stands before the first reason", file_name, number, line);
    } else if (!known.emplace(line, group).second) {
      return fail("{}:{}: '{}' is listed twice", file_name, number, line);
    }
  }
  return known;
}

}  // namespace bulkhead::instructions
