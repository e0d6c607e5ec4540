#include "cli/json_text.h"

#include <cstdint>

#include <fmt/format.h>

namespace bulkhead::cli {
namespace {

// How many bytes the character has with which a text begins; 0: it is no UTF-8.
size_t character_size(std::string_view text) {
  const auto at = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0}; };
  const uint8_t first = at(0), second = at(1);
  if (first < 0x80) return 1;
  const size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4) return 0;
  for (size_t i = 1; i < size; ++i) {
    if (at(i) < 0x80 || at(i) > 0xBF) return 0;
  }
  const bool longer_than_needed = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
  const bool no_character = (first == 0xED && second > 0x9F) || (first == 0xF4 && second > 0x8F);
  return longer_than_needed || no_character ? 0 : size;
}

}  // namespace

std::string json_text(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const size_t size = character_size(text);
    const std::string_view character = text.substr(0, size == 0 ? 1 : size);
    const auto first = static_cast<uint8_t>(character[0]);
    if (size == 0) {
      out += "\uFFFD";
    } else if (first == '"' || first == '\\') {
      out += '\\';
      out += character;
    } else if (first < ' ' || first == 0x7F) {
      out += fmt::format("\\u{:04x}", first);
    } else if (first == 0xC2 && static_cast<uint8_t>(character[1]) < 0xA0) {
      out += fmt::format("\\u{:04x}", static_cast<uint8_t>(character[1]));
    } else {
      out += character;
    }
    text.remove_prefix(character.size());
  }
  return out + '"';
}

}  // namespace bulkhead::cli
