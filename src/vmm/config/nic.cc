#include "vmm/config/nic.h"

#include <set>

#include "net/frame/protocol.h"
#include "vmm/config/values.h"

namespace bulkhead::vmm {
namespace {

using net::link::LinkConfig;

constexpr std::string_view kAllowed =
    "allowed: nat, tap=NAME, switch=NAME, switch=/DIRECTORY, isolated or none; then model=virtio, e1000 or e1000e, "
    "mac=ADDRESS, "
    "mtu=BYTES, for model=virtio queues=NUMBER and offloads=on or off, for nat, tap and switch rate=BITS and "
    "burst=BYTES, for nat "
    "forward=tcp:ADDRESS:PORT:PORT and host=on, for a switch vlan=NUMBER, for one in a directory port=NAME or "
    "group=NAME";

Result<> set_link(NicConfig& nic, std::string_view name, std::string_view value, bool has_value) {
  if (name == "nat" && !has_value) {
    nic.link.kind = LinkConfig::Kind::kNat;
  } else if (name == "isolated" && !has_value) {
    nic.link.kind = LinkConfig::Kind::kIsolated;
  } else if (name == "none" && !has_value) {
    nic.link.kind = LinkConfig::Kind::kNone;
  } else if (name == "switch" && value.find('/') != std::string_view::npos) {
    nic.link.kind = LinkConfig::Kind::kPort;
    nic.link.socket = value;
  } else if (name == "switch" && !value.empty() && value.size() <= 63) {
    nic.link.kind = LinkConfig::Kind::kSwitch;
    nic.link.fabric = value;
  } else if (name == "tap" && !value.empty()) {
    nic.link.kind = LinkConfig::Kind::kTap;
    nic.link.tap = value;
  } else {
    return fail("{}", kAllowed);
  }
  return {};
}

Result<> set_option(NicConfig& nic, std::string_view name, std::string_view value) {
  const bool is_nat = nic.link.kind == LinkConfig::Kind::kNat;
  const bool goes_somewhere = nic.link.kind != LinkConfig::Kind::kNone && nic.link.kind != LinkConfig::Kind::kIsolated;
  if (name == "mac") {
    nic.mac = TRY_IN("mac", net::frame::MacAddress::parse(value));
    if (nic.mac->is_group() || nic.mac->is_zero()) return fail("mac: {} is no card's address", value);
  } else if (name == "model") {
    if (value == "virtio") {
      nic.model = machine::NicModel::kVirtio;
    } else if (value == "e1000") {
      nic.model = machine::NicModel::kE1000;
    } else if (value == "e1000e") {
      nic.model = machine::NicModel::kE1000e;
    } else {
      return fail("model '{}': allowed: virtio, e1000 or e1000e", value);
    }
  } else if (name == "mtu") {
    nic.mtu = static_cast<uint16_t>(TRY_IN("mtu", parse_number(value, NicConfig::kLeastMtu, NicConfig::kMostMtu)));
    // libslirp's own is fixed.
    if (is_nat && nic.mtu > NicConfig{}.mtu) return fail("mtu: nat carries at most {} bytes", NicConfig{}.mtu);
  } else if (name == "queues") {
    nic.queue_pairs = static_cast<uint16_t>(TRY_IN("queues", parse_number(value, 1, NicConfig::kMostQueuePairs)));
  } else if (name == "offloads") {
    nic.offloads = TRY_IN("offloads", parse_flag(value));
  } else if (name == "rate" && goes_somewhere) {
    nic.rate.bytes_a_second = TRY_IN("rate", parse_bit_rate(value));
  } else if (name == "burst" && goes_somewhere) {
    nic.rate.burst_bytes = TRY_IN("burst", parse_size(value));
    if (nic.rate.burst_bytes == 0 || nic.rate.burst_bytes > NicConfig::kMostBurst) {
      return fail("burst: allowed: 1 to {}", format_size(NicConfig::kMostBurst));
    }
  } else if (name == "forward" && is_nat) {
    if (nic.link.forwards.size() >= LinkConfig::kMaximumForwards) {
      return fail("more than the {} forwards allowed", LinkConfig::kMaximumForwards);
    }
    nic.link.forwards.push_back(TRY_IN("forward", net::link::parse_forward(value)));
  } else if (name == "vlan" && nic.link.kind == LinkConfig::Kind::kSwitch) {
    nic.link.vlan = static_cast<uint16_t>(TRY_IN("vlan", parse_number(value, 1, net::frame::kMaximumVlan)));
  } else if ((name == "port" || name == "group") && nic.link.kind == LinkConfig::Kind::kPort) {
    if (nic.link.socket.ends_with(".sock"))
      return fail("{}: the switch is a socket already, or port and group at once", name);
    if (value.empty() || value.find('/') != std::string_view::npos) return fail("{} '{}': no name", name, value);
    nic.link.socket += fmt::format("/{}{}.sock", name == "group" ? "group-" : "", value);
  } else if (name == "port" || name == "group") {
    return fail(
        "{}: a plant's switch has these: switch=/DIRECTORY,{}=NAME (docs/plants.md); a switch inside the machine has "
        "no "
        "policy, but vlan=NUMBER keeps cards apart",
        name, name);
  } else if (name == "vlan" && nic.link.kind == LinkConfig::Kind::kPort) {
    return fail("vlan: of a port of a plant's switch its group says it (docs/plants.md)");
  } else if (name == "host" && is_nat) {
    nic.link.reach_host = TRY_IN("host", parse_flag(value));
  } else {
    return fail("'{}': {}", name, kAllowed);
  }
  return {};
}

}  // namespace

Result<NicConfig> parse_nic(std::string_view text) {
  NicConfig nic{.link = {}, .mac = {}, .text = std::string(text)};
  std::set<std::string_view> seen;
  bool is_first = true;
  for (std::string_view rest = text;; is_first = false) {
    const std::string_view item = rest.substr(0, rest.find(','));
    const size_t equals = item.find('=');
    const bool has_value = equals != std::string_view::npos;
    const std::string_view name = item.substr(0, equals);
    const std::string_view value = has_value ? item.substr(equals + 1) : std::string_view();
    if (is_first) {
      TRY(set_link(nic, name, value, has_value));
    } else {
      if (name != "forward" && !seen.insert(name).second) return fail("'{}' stands twice", name);
      TRY(set_option(nic, name, value));
    }
    if (item.size() == rest.size()) break;
    rest.remove_prefix(item.size() + 1);
  }
  if (nic.link.kind == LinkConfig::Kind::kPort && !nic.link.socket.ends_with(".sock")) {
    return fail("which port? add port=NAME or group=NAME, or name a socket that ends in .sock");
  }
  if (nic.rate.burst_bytes != 0 && nic.rate.bytes_a_second == 0) return fail("burst without rate");
  for (const std::string_view name : {"queues", "offloads"}) {
    if (nic.model != machine::NicModel::kVirtio && seen.contains(name)) {
      return fail("{}: model=virtio alone has it", name);
    }
  }
  return nic;
}

}  // namespace bulkhead::vmm
