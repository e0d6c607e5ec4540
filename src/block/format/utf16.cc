#include "block/format/utf16.h"

#include <algorithm>

namespace bulkhead::block {
namespace {

constexpr uint32_t kReplacement = 0xFFFD;

void append_utf8(std::string& out, uint32_t point) {
  const auto tail = [&](unsigned shift) { out += static_cast<char>(0x80 | ((point >> shift) & 0x3F)); };
  if (point < 0x80) {
    out += static_cast<char>(point);
  } else if (point < 0x800) {
    out += static_cast<char>(0xC0 | (point >> 6));
    tail(0);
  } else if (point < 0x10000) {
    out += static_cast<char>(0xE0 | (point >> 12));
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0 | (point >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

// The code point that begins at text[at], which moves behind it.
uint32_t next_point(std::string_view text, size_t& at) {
  const auto lead = static_cast<uint8_t>(text[at++]);
  if (lead < 0x80) return lead;
  const unsigned more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
  if (lead < 0xC0 || lead > 0xF7) return kReplacement;
  uint32_t point = lead & (0x3Fu >> more);
  for (unsigned i = 0; i < more; ++i, ++at) {
    if (at == text.size() || (static_cast<uint8_t>(text[at]) & 0xC0) != 0x80) return kReplacement;
    point = point << 6 | (static_cast<uint8_t>(text[at]) & 0x3F);
  }
  return point > 0x10FFFF ? kReplacement : point;
}

}  // namespace

std::string from_utf16(ByteSpan bytes, ByteOrder order) {
  std::string out;
  const auto unit_at = [&](size_t at) -> uint32_t {
    return order == ByteOrder::kBig ? uint32_t{bytes[at]} << 8 | bytes[at + 1]
                                    : uint32_t{bytes[at + 1]} << 8 | bytes[at];
  };
  for (size_t at = 0; at + 2 <= bytes.size(); at += 2) {
    uint32_t point = unit_at(at);
    if (point == 0) break;
    if (point >= 0xD800 && point < 0xE000) {
      const uint32_t low = point < 0xDC00 && at + 4 <= bytes.size() ? unit_at(at + 2) : 0;
      if (low >= 0xDC00 && low < 0xE000) {
        point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
        at += 2;
      } else {
        point = kReplacement;
      }
    }
    append_utf8(out, point);
  }
  return out;
}

std::vector<uint8_t> to_utf16(std::string_view text, ByteOrder order) {
  std::vector<uint8_t> out;
  const auto put = [&](uint32_t unit) {
    const auto high = static_cast<uint8_t>(unit >> 8), low = static_cast<uint8_t>(unit);
    out.push_back(order == ByteOrder::kBig ? high : low);
    out.push_back(order == ByteOrder::kBig ? low : high);
  };
  for (size_t at = 0; at < text.size();) {
    const uint32_t point = next_point(text, at);
    if (point < 0x10000) {
      put(point);
    } else {
      put(0xD800 + ((point - 0x10000) >> 10));
      put(0xDC00 + ((point - 0x10000) & 0x3FF));
    }
  }
  return out;
}

std::string from_windows_name(std::string name) {
  std::ranges::replace(name, '\\', '/');
  const bool absolute = name.starts_with('/') || (name.size() > 1 && name[1] == ':');
  if (absolute) return name.substr(name.rfind('/') + 1);
  while (name.starts_with("./")) name.erase(0, 2);
  return name;
}

std::string to_windows_name(std::string name) {
  std::ranges::replace(name, '/', '\\');
  return ".\\" + name;
}

}  // namespace bulkhead::block
