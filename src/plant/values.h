// Spellings of single values in plant.yaml, beside those of support/units.h. Each error says what is allowed.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>

#include "support/result.h"
#include "support/units.h"

namespace bulkhead::plant {

Result<uint64_t> parse_number(std::string_view text, uint64_t least, uint64_t most);
// "7" or "1-9".
Result<std::pair<uint64_t, uint64_t>> parse_range(std::string_view text, uint64_t least, uint64_t most);
Result<bool> parse_flag(std::string_view text);
// "10M": bits a second, powers of 1000. In bytes a second.
Result<uint64_t> parse_bit_rate(std::string_view text);
// "64M": bytes, powers of 1024.
Result<uint64_t> parse_byte_size(std::string_view text);
// 1 to 32 of a-z, 0-9 and dashes, with a letter or a digit at both ends: a name is part of paths.
Result<> check_name(std::string_view text);

}  // namespace bulkhead::plant
