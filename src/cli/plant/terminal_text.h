// What a guest writes, for a terminal: text without the terminal's commands.
#pragma once

#include <string>
#include <string_view>

namespace bulkhead::cli {

// UTF-8 comes through, in pieces cut anywhere. Carriage returns are left out; other control characters but newline and
// tab, C1 (U+0080 to U+009F) and bytes that are no UTF-8 become '?'.
class TerminalText {
 public:
  [[nodiscard]] std::string filter(std::string_view bytes);

 private:
  std::string character_;  // the bytes that have come of one
  unsigned size_ = 0;      // how many it will have
};

}  // namespace bulkhead::cli
