#include "instructions/case_file.h"

#include <algorithm>
#include <array>
#include <charconv>

#include <fmt/format.h>

namespace bulkhead::instructions {
namespace {

struct Exception {
  std::string_view name;
  uint8_t vector;
};
constexpr std::array<Exception, 18> kExceptions = {{{"#DE", 0},
                                                    {"#DB", 1},
                                                    {"#NMI", 2},
                                                    {"#BP", 3},
                                                    {"#OF", 4},
                                                    {"#BR", 5},
                                                    {"#UD", 6},
                                                    {"#NM", 7},
                                                    {"#DF", 8},
                                                    {"#TS", 10},
                                                    {"#NP", 11},
                                                    {"#SS", 12},
                                                    {"#GP", 13},
                                                    {"#PF", 14},
                                                    {"#MF", 16},
                                                    {"#AC", 17},
                                                    {"#MC", 18},
                                                    {"#XM", 19}}};

struct Flag {
  std::string_view name;
  uint64_t bit;
};
constexpr std::array<Flag, 7> kFlags = {
    {{"cf", 1}, {"pf", 4}, {"af", 16}, {"zf", 64}, {"sf", 128}, {"of", 0x800}, {"rf", 0x10000}}};

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> words;
  while (true) {
    const size_t begin = text.find_first_not_of(" \t\r");
    if (begin == std::string_view::npos) return words;
    const size_t end = std::min(text.find_first_of(" \t\r", begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    text.remove_prefix(end);
  }
}

template <typename T>
std::optional<T> hex_number(std::string_view text) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

using Words = std::vector<std::string_view>;

Result<> parse_bytes(const Words& words, size_t first, std::vector<uint8_t>& bytes) {
  for (size_t i = first; i < words.size(); ++i) {
    const auto byte = hex_number<uint8_t>(words[i]);
    if (!byte) return fail("'{}': not a byte in hexadecimal", words[i]);
    bytes.push_back(*byte);
  }
  return {};
}

Result<> parse_registers(const Words& words, std::vector<std::pair<std::string, std::string>>& registers) {
  for (size_t i = 1; i < words.size(); ++i) {
    const size_t equals = words[i].find('=');
    if (equals == std::string_view::npos) return fail("'{}': expected register=value", words[i]);
    registers.emplace_back(words[i].substr(0, equals), words[i].substr(equals + 1));
  }
  return {};
}

// mem 20000: 01 02 03
Result<> parse_memory(const Words& words, std::vector<MemoryBytes>& memory) {
  if (words.size() < 3 || !words[1].ends_with(':')) return fail("expected 'address: bytes'");
  const auto address = hex_number<uint64_t>(words[1].substr(0, words[1].size() - 1));
  if (!address) return fail("'{}': not an address in hexadecimal", words[1]);
  memory.push_back({.address = *address, .bytes = {}});
  return parse_bytes(words, 2, memory.back().bytes);
}

// #GP(18), #UD, shutdown, or int 80
Result<> parse_fault(const Words& words, Case& result) {
  if (words.size() < 2) return fail("expected an exception");
  if (words[1] == "shutdown") {
    result.shuts_down = true;
    return {};
  }
  if (words[1] == "int" && words.size() == 3) {
    const auto vector = hex_number<uint8_t>(words[2]);
    if (!vector) return fail("'{}': not a vector in hexadecimal", words[2]);
    result.fault = ExpectedFault{.vector = *vector, .error_code = std::nullopt};
    return {};
  }
  const size_t bracket = std::min(words[1].find('('), words[1].size());
  const auto vector = exception_vector(words[1].substr(0, bracket));
  if (!vector) return fail("'{}': not an exception", words[1]);
  result.fault = ExpectedFault{.vector = *vector, .error_code = std::nullopt};
  if (bracket == words[1].size()) return {};
  if (!words[1].ends_with(')')) return fail("'{}': ')' is missing", words[1]);
  result.fault->error_code = hex_number<uint32_t>(words[1].substr(bracket + 1, words[1].size() - bracket - 2));
  if (!result.fault->error_code) return fail("'{}': not an error code in hexadecimal", words[1]);
  return {};
}

Result<> parse_ignored(const Words& words, Case& result) {
  for (size_t i = 1; i < words.size(); ++i) {
    if (!words[i].starts_with("rflags.")) {
      result.ignored.emplace_back(words[i]);
      continue;
    }
    const std::string_view name = words[i].substr(7);
    const auto flag = std::find_if(kFlags.begin(), kFlags.end(), [&](const Flag& known) { return known.name == name; });
    if (flag == kFlags.end()) return fail("'{}': not a flag", words[i]);
    result.ignored_flags |= flag->bit;
  }
  return {};
}

Result<> parse_line(const Words& words, Case& result) {
  const std::string_view key = words[0];
  if (key == "mode") {
    for (size_t i = 1; i < words.size(); ++i) result.mode += fmt::format("{}{}", i == 1 ? "" : " ", words[i]);
    return {};
  }
  if (key == "code") return parse_bytes(words, 1, result.code);
  if (key == "in") return parse_registers(words, result.in);
  if (key == "out") return parse_registers(words, result.out);
  if (key == "mem") return parse_memory(words, result.memory_in);
  if (key == "out-mem") return parse_memory(words, result.memory_out);
  if (key == "fault") return parse_fault(words, result);
  if (key == "ignore") return parse_ignored(words, result);
  if (key == "approximate") {
    result.approximate.insert(result.approximate.end(), words.begin() + 1, words.end());
    return {};
  }
  return fail("'{}': expected mode, code, in, out, mem, out-mem, fault, ignore or approximate", key);
}

}  // namespace

std::string_view exception_name(uint8_t vector) {
  for (const Exception& exception : kExceptions) {
    if (exception.vector == vector) return exception.name;
  }
  return "interrupt";
}

std::optional<uint8_t> exception_vector(std::string_view name) {
  for (const Exception& exception : kExceptions) {
    if (exception.name == name) return exception.vector;
  }
  return std::nullopt;
}

Result<std::vector<Case>> parse_cases(std::string_view text, std::string_view file_name) {
  std::vector<Case> cases;
  for (unsigned line_number = 1; !text.empty(); ++line_number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    line = line.substr(0, std::min(line.find(';'), line.size()));
    const Words words = split(line);
    if (words.empty()) continue;
    const std::string where = fmt::format("{}:{}", file_name, line_number);
    if (words[0] == "case") {
      if (words.size() != 2) return fail("{}: expected 'case NAME'", where);
      cases.push_back({.name = std::string(words[1]), .where = where});
    } else if (cases.empty()) {
      return fail("{}: expected 'case NAME' first", where);
    } else {
      TRY_IN(where, parse_line(words, cases.back()));
    }
  }
  return cases;
}

}  // namespace bulkhead::instructions
