// Text as a JSON string, quotes and all.
#pragma once

#include <string>
#include <string_view>

namespace bulkhead::cli {

// UTF-8 stands for itself; bytes that are none become U+FFFD, and control characters, those of U+0080 to U+009F among
// them, \uXXXX (RFC 8259).
[[nodiscard]] std::string json_text(std::string_view text);

}  // namespace bulkhead::cli
