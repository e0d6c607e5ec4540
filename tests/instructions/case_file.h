// Text cases: an instruction, the state it runs in and the state it must leave. tests/cases/README.md describes the
// format for those who write them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/result.h"

namespace bulkhead::instructions {

struct MemoryBytes {
  uint64_t address = 0;  // linear
  std::vector<uint8_t> bytes;
};

// The exception that a case must end in.
struct ExpectedFault {
  uint8_t vector = 0;
  std::optional<uint32_t> error_code;
};

struct Case {
  std::string name;
  std::string where;  // file:line
  std::string mode;   // "long64", "prot32 user", ...
  std::vector<uint8_t> code;
  std::vector<std::pair<std::string, std::string>> in, out;  // register, hexadecimal value
  std::vector<MemoryBytes> memory_in, memory_out;
  std::optional<ExpectedFault> fault;
  bool shuts_down = false;           // must end in a triple fault
  std::vector<std::string> ignored;  // registers that are not compared; "rflags.af" for one flag
  uint64_t ignored_flags = 0;
  std::vector<std::string> approximate;  // registers of 32-bit floating-point numbers whose last bits are not compared
};

Result<std::vector<Case>> parse_cases(std::string_view text, std::string_view file_name);

// "#GP" for 13, and back.
std::string_view exception_name(uint8_t vector);
std::optional<uint8_t> exception_vector(std::string_view name);

}  // namespace bulkhead::instructions
