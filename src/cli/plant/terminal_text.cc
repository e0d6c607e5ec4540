#include "cli/plant/terminal_text.h"

#include <cstdint>

namespace bulkhead::cli {
namespace {

// Of the character that begins with this byte; 0: none does.
unsigned size_of(uint8_t first) {
  if (first >= 0xC2 && first <= 0xDF) return 2;
  if (first >= 0xE0 && first <= 0xEF) return 3;
  return first >= 0xF0 && first <= 0xF4 ? 4 : 0;
}

// Whether it may stand for itself: no longer form of a shorter one, and no control character. All of it is there.
bool is_text(std::string_view character) {
  const auto first = static_cast<uint8_t>(character[0]), second = static_cast<uint8_t>(character[1]);
  if (first == 0xC2) return second >= 0xA0;
  return !(first == 0xE0 && second < 0xA0) && !(first == 0xED && second > 0x9F) &&  // surrogates
         !(first == 0xF0 && second < 0x90) && !(first == 0xF4 && second > 0x8F);    // beyond U+10FFFF
}

}  // namespace

std::string TerminalText::filter(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    if (size_ != 0) {
      if (byte >= 0x80 && byte <= 0xBF) {
        character_ += c;
        if (character_.size() < size_) continue;
        text += is_text(character_) ? character_ : "?";
        character_.clear();
        size_ = 0;
        continue;
      }
      text += '?';
      character_.clear();
    }
    size_ = size_of(byte);
    if (size_ != 0) {
      character_ = c;
    } else if (c == '\n' || c == '\t' || (byte >= ' ' && byte < 0x7F)) {
      text += c;
    } else if (c != '\r') {
      text += '?';
    }
  }
  return text;
}

}  // namespace bulkhead::cli
