#include "machine/acpi/aml.h"

#include <algorithm>

#include "support/check.h"

namespace bulkhead::machine::acpi::aml {
namespace {

// 20.2.1 to 20.2.5
enum Opcode : uint8_t {
  kZero = 0x00,
  kOne = 0x01,
  kName = 0x08,
  kByte = 0x0A,
  kWord = 0x0B,
  kDword = 0x0C,
  kString = 0x0D,
  kQword = 0x0E,
  kScope = 0x10,
  kBuffer = 0x11,
  kPackage = 0x12,
  kMethod = 0x14,
  kDualName = 0x2E,
  kMultiName = 0x2F,
  kExtended = 0x5B,
  kRoot = 0x5C,
  kArgument0 = 0x68,
  kStore = 0x70,
  kIf = 0xA0,
  kReturn = 0xA4,
  kExtendedDevice = 0x82,
};

void append(Code& to, const Code& code) {
  to.insert(to.end(), code.begin(), code.end());
}

template <typename T>
void append_number(Code& to, T value) {
  const ByteSpan bytes = as_bytes(value);
  to.insert(to.end(), bytes.begin(), bytes.end());
}

// PkgLength (20.2.4) counts itself: one byte up to 63, else 4 bits in the first and 8 in each of one to three more.
Code with_length(const Code& content) {
  size_t extra = 0;
  if (content.size() + 1 > 0x3F) {
    extra = 1;
    while (content.size() + 1 + extra >= size_t{1} << (4 + 8 * extra)) ++extra;
  }
  CHECK(extra <= 3, "an AML package above 256 MiB");
  const size_t length = content.size() + 1 + extra;
  Code code;
  if (extra == 0) {
    code.push_back(static_cast<uint8_t>(length));
  } else {
    code.push_back(static_cast<uint8_t>(extra << 6 | (length & 0xF)));
    for (size_t i = 0; i < extra; ++i) code.push_back(static_cast<uint8_t>(length >> (4 + 8 * i)));
  }
  append(code, content);
  return code;
}

Code term(std::initializer_list<uint8_t> opcode, const Code& head, const std::vector<Code>& terms) {
  Code content = head;
  append(content, join(terms));
  Code code(opcode);
  append(code, with_length(content));
  return code;
}

}  // namespace

Code join(const std::vector<Code>& terms) {
  Code code;
  for (const Code& each : terms) append(code, each);
  return code;
}

Code path(std::string_view text) {
  Code code;
  if (text.starts_with('\\')) {
    code.push_back(kRoot);
    text.remove_prefix(1);
  }
  Code segments;
  size_t count = 0;
  while (!text.empty()) {
    const size_t dot = std::min(text.find('.'), text.size());
    CHECK(dot >= 1 && dot <= 4, "an AML name segment has one to four characters");
    for (size_t i = 0; i < 4; ++i) segments.push_back(static_cast<uint8_t>(i < dot ? text[i] : '_'));
    ++count;
    text.remove_prefix(std::min(dot + 1, text.size()));
  }
  if (count == 0) {
    code.push_back(kZero);
  } else if (count == 2) {
    code.push_back(kDualName);
  } else if (count > 2) {
    code.push_back(kMultiName);
    code.push_back(static_cast<uint8_t>(count));
  }
  append(code, segments);
  return code;
}

Code integer(uint64_t value) {
  Code code;
  if (value <= 1) return {value == 0 ? kZero : kOne};
  if (value <= UINT8_MAX) {
    code.push_back(kByte);
    append_number(code, static_cast<uint8_t>(value));
  } else if (value <= UINT16_MAX) {
    code.push_back(kWord);
    append_number(code, static_cast<uint16_t>(value));
  } else if (value <= UINT32_MAX) {
    code.push_back(kDword);
    append_number(code, static_cast<uint32_t>(value));
  } else {
    code.push_back(kQword);
    append_number(code, value);
  }
  return code;
}

Code string(std::string_view text) {
  Code code{kString};
  code.insert(code.end(), text.begin(), text.end());
  code.push_back(0);
  return code;
}

Code buffer(ByteSpan bytes) {
  return term({kBuffer}, integer(bytes.size()), {Code(bytes.begin(), bytes.end())});
}

Code package(const std::vector<Code>& elements) {
  CHECK(elements.size() <= UINT8_MAX, "an AML package has at most 255 elements");
  return term({kPackage}, {static_cast<uint8_t>(elements.size())}, elements);
}

Code eisa_id(std::string_view text) {
  CHECK(text.size() == 7, "an EISA identifier has three letters and four hexadecimal digits");
  uint32_t id = 0;
  for (size_t i = 0; i < 3; ++i) id = id << 5 | (static_cast<uint32_t>(text[i] - 'A' + 1) & 0x1F);
  for (size_t i = 3; i < 7; ++i) {
    const char c = text[i];
    id = id << 4 | static_cast<uint32_t>(c <= '9' ? c - '0' : c - 'A' + 10);
  }
  Code code{kDword};
  append_number(code, std::byteswap(id));
  return code;
}

Code argument(unsigned number) {
  return {static_cast<uint8_t>(kArgument0 + number)};
}

Code name(std::string_view object, const Code& value) {
  return join({{kName}, path(object), value});
}

Code scope(std::string_view object, const std::vector<Code>& terms) {
  return term({kScope}, path(object), terms);
}

Code device(std::string_view object, const std::vector<Code>& terms) {
  return term({kExtended, kExtendedDevice}, path(object), terms);
}

Code method(std::string_view object, unsigned argument_count, Serialized serialized, const std::vector<Code>& terms) {
  const auto flags = static_cast<uint8_t>(argument_count | (serialized == Serialized::kYes ? 8 : 0));
  return term({kMethod}, join({path(object), {flags}}), terms);
}

Code store_to(const Code& value, const Code& target) {
  return join({{kStore}, value, target});
}

Code if_then(const Code& condition, const std::vector<Code>& terms) {
  return term({kIf}, condition, terms);
}

Code return_value(const Code& value) {
  return join({{kReturn}, value});
}

}  // namespace bulkhead::machine::acpi::aml
