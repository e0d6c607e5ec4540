#include "net/link/link.h"

#include <charconv>

#include "net/frame/address.h"
#include "net/link/fabric.h"
#include "net/link/nat.h"
#include "net/link/tap.h"

namespace bulkhead::net::link {
namespace {

// A card with a cable that ends nowhere.
class NoLink final : public Link {
 public:
  Sent send(ByteSpan /*frame*/) override { return Sent::kDone; }
  size_t receive(MutableByteSpan /*out*/) override { return 0; }
  [[nodiscard]] bool link_up() const override { return false; }
  void set_listener(std::function<void()> /*on_ready*/) override {}
  [[nodiscard]] LinkCounters counters() const override { return {}; }
};

Result<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0) return fail("a port is 1 to 65535");
  return port;
}

}  // namespace

Result<Forward> parse_forward(std::string_view text) {
  Forward forward;
  std::vector<std::string_view> parts;
  for (std::string_view rest = text;;) {
    const size_t colon = rest.find(':');
    parts.push_back(rest.substr(0, colon));
    if (colon == std::string_view::npos) break;
    rest.remove_prefix(colon + 1);
  }
  if (parts.size() != 4 || (parts[0] != "tcp" && parts[0] != "udp")) {
    return fail(
        "'{}' is no forward; allowed: tcp or udp, the host's IPv4 address and port, the guest's port, like "
        "tcp:127.0.0.1:8080:80",
        text);
  }
  forward.udp = parts[0] == "udp";
  const auto address = frame::IpAddress::parse(parts[1]);
  if (!address || address->family != frame::Family::kIpv4) return fail("'{}' is no IPv4 address of the host", parts[1]);
  forward.address = parts[1];
  forward.host_port = TRY_IN(fmt::format("'{}'", parts[2]), parse_port(parts[2]));
  forward.guest_port = TRY_IN(fmt::format("'{}'", parts[3]), parse_port(parts[3]));
  return forward;
}

Result<std::unique_ptr<Link>> open_link(const LinkConfig& config, const frame::MacAddress& mac, Fabrics& fabrics) {
  switch (config.kind) {
    case LinkConfig::Kind::kNat:
      return NatLink::create(config);
    case LinkConfig::Kind::kTap:
      return TapLink::create(config.tap);
    case LinkConfig::Kind::kSwitch:
      return fabrics.find_or_make(config.fabric)->attach(config.vlan, mac);
    case LinkConfig::Kind::kNone:
      break;
  }
  return std::make_unique<NoLink>();
}

}  // namespace bulkhead::net::link
