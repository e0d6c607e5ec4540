// Builds ACPI Machine Language (ACPI 6.5, chapter 20): each function gives the bytes of one term, so nesting calls
// reads like ASL. It only builds; nothing here reads AML.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "support/bytes.h"

namespace bulkhead::machine::acpi::aml {

using Code = std::vector<uint8_t>;

// Terms one after the other.
Code join(const std::vector<Code>& terms);

// "\\_SB.PCI0", "_CRS": segments of up to four characters, padded with '_'.
Code path(std::string_view text);
Code integer(uint64_t value);
Code string(std::string_view text);
Code buffer(ByteSpan bytes);
Code package(const std::vector<Code>& elements);
// "PNP0A03" as the 32-bit number that _HID wants (20.3.4).
Code eisa_id(std::string_view text);
Code argument(unsigned number);  // 0 to 6

Code name(std::string_view object, const Code& value);
Code scope(std::string_view object, const std::vector<Code>& terms);
Code device(std::string_view object, const std::vector<Code>& terms);
enum class Serialized : bool { kNo, kYes };
Code method(std::string_view object, unsigned argument_count, Serialized serialized, const std::vector<Code>& terms);

Code store_to(const Code& value, const Code& target);
Code if_then(const Code& condition, const std::vector<Code>& terms);
Code return_value(const Code& value);

}  // namespace bulkhead::machine::acpi::aml
