#include "net/tunnel/cookies.h"

#include <algorithm>
#include <charconv>

namespace bulkhead::net::tunnel {
namespace {

constexpr std::string_view kMac1Label = "mac1----", kCookieLabel = "cookie--";

ByteSpan bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

Result<Endpoint> Endpoint::parse(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return fail("allowed: ADDRESS:PORT");
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  const bool bracketed = host.starts_with('[') && host.ends_with(']');
  if (bracketed) host = host.substr(1, host.size() - 2);
  Endpoint made{.address = TRY(frame::IpAddress::parse(host))};
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), made.port);
  if (error != std::errc() || end != port.data() + port.size() || made.port == 0) {
    return fail("port '{}': allowed: 1 to 65535", port);
  }
  if (bracketed != (made.address.family == frame::Family::kIpv6)) return fail("allowed: brackets around IPv6 only");
  return made;
}

std::string Endpoint::to_string() const {
  return address.family == frame::Family::kIpv4 ? fmt::format("{}:{}", address.to_string(), port)
                                                : fmt::format("[{}]:{}", address.to_string(), port);
}

MacKeys::MacKeys(const Bytes32& public_key)
    : mac1(hash({bytes_of(kMac1Label), public_key})), cookie(hash({bytes_of(kCookieLabel), public_key})) {}

void put_macs(MutableByteSpan message, const MacKeys& receiver, const std::optional<Mac>& cookie) {
  const size_t body = message.size() - 2 * kMacSize;
  std::ranges::copy(keyed_hash(receiver.mac1, {message.first(body)}), message.subspan(body).begin());
  const Mac second = cookie ? keyed_hash(*cookie, {message.first(body + kMacSize)}) : Mac{};
  std::ranges::copy(second, message.subspan(body + kMacSize).begin());
}

Mac mac1_of(ByteSpan message) {
  Mac mac;
  std::ranges::copy(message.subspan(message.size() - 2 * kMacSize, kMacSize), mac.begin());
  return mac;
}

bool is_mac1_right(ByteSpan message, const MacKeys& own) {
  return is_equal(keyed_hash(own.mac1, {message.first(message.size() - 2 * kMacSize)}), mac1_of(message));
}

Mac CookieGiver::cookie_of(const Endpoint& from, uint64_t now_ns) {
  if (!made_ns_ || now_ns - *made_ns_ > kCookieLife_ns) {
    random_.fill(secret_.bytes);
    made_ns_ = now_ns;
  }
  const auto family = static_cast<uint8_t>(from.address.family);
  return keyed_hash(secret_.bytes, {as_bytes(family), from.address.bytes, as_bytes(from.port)});
}

bool CookieGiver::is_mac2_right(ByteSpan message, const Endpoint& from, uint64_t now_ns) {
  const Mac cookie = cookie_of(from, now_ns);
  return is_equal(keyed_hash(cookie, {message.first(message.size() - kMacSize)}),
                  message.subspan(message.size() - kMacSize));
}

CookieReplyMessage CookieGiver::reply(ByteSpan message, uint32_t receiver, const Endpoint& from, const MacKeys& own,
                                      uint64_t now_ns) {
  CookieReplyMessage made{};
  made.kind = kCookieReply;
  made.receiver = receiver;
  LongNonce nonce;
  random_.fill(nonce);
  std::ranges::copy(nonce, made.nonce);
  seal_with_long_nonce(Secret(own.cookie), nonce, cookie_of(from, now_ns), mac1_of(message), made.sealed_cookie);
  return made;
}

std::optional<Mac> open_cookie(const CookieReplyMessage& reply, const MacKeys& sender, const Mac& mac1) {
  LongNonce nonce;
  std::copy_n(reply.nonce, nonce.size(), nonce.begin());
  Mac cookie;
  if (!open_with_long_nonce(Secret(sender.cookie), nonce, reply.sealed_cookie, mac1, cookie)) return std::nullopt;
  return cookie;
}

}  // namespace bulkhead::net::tunnel
