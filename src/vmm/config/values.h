// Spellings of single values in vm.yaml and on the command line. Each error says what is allowed.
#pragma once

#include <cstdint>
#include <string_view>

#include "support/result.h"

namespace bulkhead::vmm {

// "512M", "2G", "1048576K" or bytes: a number and one of K M G T (powers of 1024; an added "iB" or "B" is allowed).
Result<uint64_t> parse_size(std::string_view text);
Result<uint64_t> parse_number(std::string_view text, uint64_t least, uint64_t most);
// "10M": bits a second and one of K M G (powers of 1000). In bytes a second.
Result<uint64_t> parse_bit_rate(std::string_view text);
// YAML 1.2's true and false, and yes/no/on/off.
Result<bool> parse_flag(std::string_view text);
// The size as parse_size reads it, in the largest unit that keeps it whole.
std::string format_size(uint64_t bytes);

}  // namespace bulkhead::vmm
