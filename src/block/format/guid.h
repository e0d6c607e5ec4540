// A GUID as 16 bytes in a file. VHD keeps the order in which it is written; VHDX turns the first three groups around.
#pragma once

#include <array>
#include <string>

#include <fmt/format.h>

#include "support/random.h"

namespace bulkhead::block {

using Guid = std::array<uint8_t, 16>;

enum class GuidOrder : uint8_t { kAsWritten, kMicrosoft };

inline Guid random_guid(GuidOrder order) {
  Guid guid;
  HostRandom random;
  random.fill(guid);
  uint8_t& version = guid[order == GuidOrder::kAsWritten ? 6 : 7];
  version = static_cast<uint8_t>((version & 0x0F) | 0x40);
  guid[8] = static_cast<uint8_t>((guid[8] & 0x3F) | 0x80);
  return guid;
}

inline std::string to_text(const Guid& guid, GuidOrder order) {
  constexpr std::array<uint8_t, 16> kMicrosoft{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
  std::string text;
  for (size_t i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", guid[order == GuidOrder::kMicrosoft ? kMicrosoft[i] : i]);
  }
  return text;
}

}  // namespace bulkhead::block
