#include "net/link/link.h"

#include <charconv>

#include "net/frame/address.h"
#include "net/link/fabric.h"
#include "net/link/nat.h"
#include "net/link/tap.h"
#include "net/vhost/front_end.h"

namespace bulkhead::net::link {
namespace {

// A card without a cable, or with one whose far end is a network without anybody else.
class NobodyLink final : public Link {
 public:
  explicit NobodyLink(bool up) : up_(up) {}
  Sent send(ByteSpan /*frame*/, const frame::Offload& /*offload*/) override { return Sent::kDone; }
  size_t receive(MutableByteSpan /*out*/, frame::Offload& /*offload*/) override { return 0; }
  [[nodiscard]] bool link_up() const override { return up_; }
  void set_listener(std::function<void()> /*on_ready*/) override {}
  [[nodiscard]] LinkCounters counters() const override { return {}; }

 private:
  const bool up_;
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
  if ((parts.size() != 4 && parts.size() != 5) || (parts[0] != "tcp" && parts[0] != "udp")) {
    return fail(
        "'{}' is no forward; allowed: tcp or udp, the host's IPv4 address and port, a guest's address or nothing, its "
        "port, like tcp:127.0.0.1:8080:80 or tcp:127.0.0.1:8080:10.77.0.10:80",
        text);
  }
  forward.udp = parts[0] == "udp";
  const auto address = frame::IpAddress::parse(parts[1]);
  if (!address || address->family != frame::Family::kIpv4) return fail("'{}' is no IPv4 address of the host", parts[1]);
  forward.address = parts[1];
  forward.host_port = TRY_IN(fmt::format("'{}'", parts[2]), parse_port(parts[2]));
  forward.guest_port = TRY_IN(fmt::format("'{}'", parts.back()), parse_port(parts.back()));
  if (parts.size() == 4) return forward;
  const auto guest = frame::IpAddress::parse(parts[3]);
  if (!guest || guest->family != frame::Family::kIpv4) return fail("'{}' is no IPv4 address of a guest", parts[3]);
  forward.guest = parts[3];
  return forward;
}

Result<std::unique_ptr<Link>> open_link(const LinkConfig& config, const frame::MacAddress& mac, Fabrics& fabrics) {
  switch (config.kind) {
    case LinkConfig::Kind::kNat:
      return NatLink::create(config, NatLink::Confined::kThread);
    case LinkConfig::Kind::kTap:
      return TapLink::create(config.tap);
    case LinkConfig::Kind::kSwitch:
      return fabrics.find_or_make(config.fabric)->attach(config.vlan, mac);
    case LinkConfig::Kind::kPort:
      return vhost::FrontEnd::create(config.socket);
    case LinkConfig::Kind::kIsolated:
    case LinkConfig::Kind::kNone:
      break;
  }
  return std::make_unique<NobodyLink>(config.kind == LinkConfig::Kind::kIsolated);
}

}  // namespace bulkhead::net::link
