// The names of other files as VHD and VHDX keep them: UTF-16, in Windows' notation.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "support/bytes.h"

namespace bulkhead::block {

enum class ByteOrder : uint8_t { kLittle, kBig };

// Up to the first zero or the end; what is no UTF-16 becomes U+FFFD.
[[nodiscard]] std::string from_utf16(ByteSpan bytes, ByteOrder order);
[[nodiscard]] std::vector<uint8_t> to_utf16(std::string_view text, ByteOrder order);

// "images/base.vhd" and ".\images\base.vhd" to one another. Of an absolute name, only the last part is of use here.
[[nodiscard]] std::string from_windows_name(std::string name);
[[nodiscard]] std::string to_windows_name(std::string name);

}  // namespace bulkhead::block
