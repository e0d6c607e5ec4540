// The addresses that stand in frames: MAC (IEEE 802), IPv4 and IPv6, and prefixes of the latter two. Plain values that
// compare, hash and print; text from a user is parsed here and nowhere else.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "support/bytes.h"
#include "support/result.h"

namespace bulkhead::net::frame {

struct MacAddress {
  static constexpr size_t kSize = 6;
  std::array<uint8_t, kSize> bytes{};

  // bytes holds kSize of them at least.
  [[nodiscard]] static MacAddress from(ByteSpan bytes);
  // "52:54:00:12:34:56"; dashes instead of colons are allowed.
  static Result<MacAddress> parse(std::string_view text);
  [[nodiscard]] static constexpr MacAddress broadcast() { return {{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}}; }

  // Broadcast is a group too.
  [[nodiscard]] constexpr bool is_group() const { return (bytes[0] & 1) != 0; }
  [[nodiscard]] constexpr bool is_broadcast() const { return *this == broadcast(); }
  [[nodiscard]] constexpr bool is_zero() const { return *this == MacAddress{}; }
  [[nodiscard]] uint64_t number() const;
  [[nodiscard]] std::string to_string() const;
  friend constexpr auto operator<=>(const MacAddress&, const MacAddress&) = default;
};

enum class Family : uint8_t { kIpv4, kIpv6 };

struct IpAddress {
  Family family = Family::kIpv4;
  std::array<uint8_t, 16> bytes{};  // IPv4 in the first four, the rest zero

  // Of 4 and 16 bytes.
  [[nodiscard]] static IpAddress v4(ByteSpan bytes);
  [[nodiscard]] static IpAddress v6(ByteSpan bytes);
  static Result<IpAddress> parse(std::string_view text);

  [[nodiscard]] unsigned bit_count() const { return family == Family::kIpv4 ? 32 : 128; }
  [[nodiscard]] bool is_multicast() const { return family == Family::kIpv4 ? bytes[0] >> 4 == 14 : bytes[0] == 0xFF; }
  [[nodiscard]] bool is_unspecified() const { return bytes == std::array<uint8_t, 16>{}; }
  [[nodiscard]] std::string to_string() const;
  friend auto operator<=>(const IpAddress&, const IpAddress&) = default;
};

struct IpPrefix {
  IpAddress address;
  uint8_t length = 0;

  // "10.0.0.0/8", "fd00::/8", or an address alone. Bits beyond the length must be zero.
  static Result<IpPrefix> parse(std::string_view text);
  [[nodiscard]] bool contains(const IpAddress& candidate) const;
  [[nodiscard]] std::string to_string() const;
  friend auto operator<=>(const IpPrefix&, const IpPrefix&) = default;
};

}  // namespace bulkhead::net::frame

template <>
struct std::hash<bulkhead::net::frame::MacAddress> {
  size_t operator()(const bulkhead::net::frame::MacAddress& address) const {
    return std::hash<uint64_t>()(address.number());
  }
};
