#include "net/frame/address.h"

#include <algorithm>
#include <charconv>

#include <arpa/inet.h>

namespace bulkhead::net::frame {

MacAddress MacAddress::from(ByteSpan bytes) {
  MacAddress address;
  std::copy_n(bytes.begin(), kSize, address.bytes.begin());
  return address;
}

Result<MacAddress> MacAddress::parse(std::string_view text) {
  constexpr std::string_view kAllowed = "not a MAC address; allowed: six bytes like 52:54:00:12:34:56";
  MacAddress address;
  if (text.size() != 3 * kSize - 1) return fail("{}", kAllowed);
  for (size_t i = 0; i < kSize; ++i) {
    const char* digits = text.data() + 3 * i;
    const auto [end, error] = std::from_chars(digits, digits + 2, address.bytes[i], 16);
    if (error != std::errc() || end != digits + 2) return fail("{}", kAllowed);
    if (i + 1 < kSize && digits[2] != text[2]) return fail("{}", kAllowed);
  }
  if (text[2] != ':' && text[2] != '-') return fail("{}", kAllowed);
  return address;
}

uint64_t MacAddress::number() const {
  uint64_t value = 0;
  for (const uint8_t byte : bytes) value = value << 8 | byte;
  return value;
}

std::string MacAddress::to_string() const {
  return fmt::format("{:02x}", fmt::join(bytes, ":"));
}

IpAddress IpAddress::v4(ByteSpan bytes) {
  IpAddress address;
  std::copy_n(bytes.begin(), 4, address.bytes.begin());
  return address;
}

IpAddress IpAddress::v6(ByteSpan bytes) {
  IpAddress address{.family = Family::kIpv6};
  std::copy_n(bytes.begin(), 16, address.bytes.begin());
  return address;
}

Result<IpAddress> IpAddress::parse(std::string_view text) {
  const std::string copy(text);
  IpAddress address;
  if (::inet_pton(AF_INET, copy.c_str(), address.bytes.data()) == 1) return address;
  address = {.family = Family::kIpv6};
  if (copy.size() == text.size() && ::inet_pton(AF_INET6, copy.c_str(), address.bytes.data()) == 1) return address;
  return fail("not an address; allowed: IPv4 like 10.1.2.3 or IPv6 like fd00::1");
}

std::string IpAddress::to_string() const {
  char text[INET6_ADDRSTRLEN] = {};
  ::inet_ntop(family == Family::kIpv4 ? AF_INET : AF_INET6, bytes.data(), text, sizeof text);
  return text;
}

Result<IpPrefix> IpPrefix::parse(std::string_view text) {
  const size_t slash = text.find('/');
  IpPrefix prefix{.address = TRY(IpAddress::parse(text.substr(0, slash)))};
  const unsigned bits = prefix.address.bit_count();
  prefix.length = static_cast<uint8_t>(bits);
  if (slash == std::string_view::npos) return prefix;
  const std::string_view digits = text.substr(slash + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), prefix.length);
  if (error != std::errc() || end != digits.data() + digits.size() || prefix.length > bits) {
    return fail("not a prefix length; allowed: 0 to {}", bits);
  }
  for (unsigned bit = prefix.length; bit < bits; ++bit) {
    if ((prefix.address.bytes[bit / 8] >> (7 - bit % 8) & 1) != 0) {
      return fail("bits are set beyond the first {}", prefix.length);
    }
  }
  return prefix;
}

bool IpPrefix::contains(const IpAddress& candidate) const {
  if (candidate.family != address.family) return false;
  const size_t whole = length / 8;
  if (!std::equal(address.bytes.begin(), address.bytes.begin() + static_cast<ptrdiff_t>(whole),
                  candidate.bytes.begin()))
    return false;
  const unsigned rest = length % 8;
  return rest == 0 || (address.bytes[whole] ^ candidate.bytes[whole]) >> (8 - rest) == 0;
}

std::string IpPrefix::to_string() const {
  return length == address.bit_count() ? address.to_string() : fmt::format("{}/{}", address.to_string(), length);
}

}  // namespace bulkhead::net::frame
