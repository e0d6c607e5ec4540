// Spellings of amounts that several kinds of files and flags share. Each error says what is allowed.
#pragma once

#include <cstdint>
#include <string_view>

#include "support/result.h"

namespace bulkhead {

// "250ms", "10us", "2s", "5m": at most an hour. In nanoseconds.
Result<uint64_t> parse_duration_ns(std::string_view text);
// "0.1%": in millionths, exactly.
Result<uint32_t> parse_share(std::string_view text);

}  // namespace bulkhead
