// The list of cases that a processor under test is known not to meet, each under the reason why. It is kept honest: a
// listed case that passes is as much of a finding as one that fails unlisted.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "support/result.h"

namespace bulkhead::instructions {

struct KnownCase {
  std::string reason;
  bool runs = true;  // false: running it would end the machine that the processor lives in
};

// By the name of the case.
using KnownCases = std::map<std::string, KnownCase, std::less<>>;

// Text: "reason NAME" or "reason NAME, not run" begins a group, every other line is the name of a case in it; empty
// lines and what follows a semicolon are left out.
Result<KnownCases> parse_known_cases(std::string_view text, std::string_view file_name);

}  // namespace bulkhead::instructions
