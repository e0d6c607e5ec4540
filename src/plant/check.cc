// What a plant's values mean together: that references lead somewhere, that addresses are there once and lie in their
// network, that a conduit's two ends can meet at all, and that machines can be started in some order.
#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "net/capture/pcapng.h"
#include "plant/compile.h"
#include "plant/model.h"

namespace bulkhead::plant {
namespace {

template <typename Range, typename Projection>
auto* find_named(Range& range, std::string_view name, Projection projection) {
  const auto found = std::ranges::find(range, name, projection);
  return found == range.end() ? nullptr : &*found;
}

template <typename Range, typename Projection>
std::string names_of(const Range& range, Projection projection) {
  std::vector<std::string_view> names;
  for (const auto& each : range) names.push_back(std::invoke(projection, each));
  return names.empty() ? std::string("there are none") : fmt::format("allowed: {}", fmt::join(names, ", "));
}

class Checker {
 public:
  explicit Checker(Plant& plant) : plant_(plant) {}

  Result<> check() {
    TRY(check_groups());
    for (ConduitConfig& conduit : plant_.conduits) TRY(check_conduit(conduit));
    for (MachineConfig& machine : plant_.machines) TRY(check_machine(machine));
    for (LinkToOutside& link : plant_.links) TRY(check_link(link));
    for (SwitchConfig& each : plant_.switches) TRY(check_switch(each));
    for (MirrorConfig& mirror : plant_.mirrors) TRY(check_mirror(mirror));
    TRY(check_captures());
    TRY(check_order());
    for (const ConduitConfig& conduit : plant_.conduits) TRY(check_meeting(conduit));
    if (auto compiled = net::policy::CompiledPlan::compile(policy_of(plant_)); !compiled) {
      return fail("{}: {}", plant_.file, compiled.error().message);
    }
    return {};
  }

 private:
  [[nodiscard]] std::string at(uint32_t line) const { return fmt::format("{}:{}", plant_.file, line); }

  Result<> check_zone(const Reference& zone, uint32_t line, std::string_view what) {
    if (!zone.given()) return fail("{}: {}: zone is missing", at(line), what);
    if (plant_.find_zone(zone.name) != nullptr) return {};
    return fail("{}: {}: no zone '{}'; {}", at(zone.line), what, zone.name, names_of(plant_.zones, &ZoneConfig::name));
  }

  Result<> check_groups() {
    for (GroupConfig& group : plant_.groups) {
      const std::string what = fmt::format("spec.groups.{}", group.policy.name);
      TRY(check_zone(group.zone, group.line, what));
      if (plant_.find_zone(group.policy.name) != nullptr) {
        return fail("{}: {}: a zone has this name and so has its group", at(group.line), what);
      }
      TRY(check_vlans(group, what));
      if (!group.vlan_given) group.policy.vlan = plant_.find_zone(group.zone.name)->vlan;
    }
    // Each zone's own group.
    for (const ZoneConfig& zone : plant_.zones) {
      plant_.groups.push_back({.line = zone.line,
                               .zone = {zone.name, zone.line},
                               .policy = {.name = zone.name,
                                          .vlan = zone.vlan,
                                          .broadcast_frames_a_second = GroupConfig::kZoneBroadcasts,
                                          .multicast_frames_a_second = GroupConfig::kZoneMulticasts},
                               .vlan_given = true});
    }
    return {};
  }

  // What a group's mode makes nothing of would be taken for something.
  Result<> check_vlans(const GroupConfig& group, const std::string& what) {
    const net::switching::GroupPolicy& policy = group.policy;
    const bool has_trunk_words = policy.allowed_vlans.any() || policy.native_vlan != 0;
    if (policy.mode != net::switching::VlanMode::kTrunk) {
      if (!has_trunk_words) return {};
      return fail("{}: {}: vlans and native-vlan are a trunk's; allowed: mode: trunk, or vlan", at(group.line), what);
    }
    if (group.vlan_given) {
      return fail("{}: {}.vlan: a trunk has several; allowed: vlans and native-vlan", at(group.line), what);
    }
    if (has_trunk_words) return {};
    return fail("{}: {}: a trunk that carries nothing; allowed: vlans, native-vlan or both", at(group.line), what);
  }

  Result<> check_conduit(ConduitConfig& made) {
    const std::string what = fmt::format("spec.conduits.{}", made.conduit.name);
    for (const auto& [name, end] : {std::pair("from", &made.from), std::pair("to", &made.to)}) {
      if (!end->given()) return fail("{}: {}: {} is missing", at(made.line), what, name);
      TRY(check_zone(*end, made.line, fmt::format("{}.{}", what, name)));
    }
    if (made.from.name == made.to.name) {
      return fail("{}: {}: zone '{}' on both ends; within a zone everything passes", at(made.line), what,
                  made.from.name);
    }
    if (made.services.empty()) return fail("{}: {}: services is missing", at(made.line), what);
    for (const Reference& service : made.services) TRY(check_service(made, service, what));
    for (const auto& [name, set] :
         {std::pair("from-addresses", &made.from_addresses), std::pair("to-addresses", &made.to_addresses)}) {
      if (!set->given()) continue;
      const auto name_of = [](const AddressSetConfig& each) -> std::string_view { return each.set.name; };
      if (find_named(plant_.addresses, set->name, name_of) == nullptr) {
        return fail("{}: {}.{}: no address set '{}'; {}", at(set->line), what, name, set->name,
                    names_of(plant_.addresses, name_of));
      }
    }
    made.conduit.from = made.from.name;
    made.conduit.to = made.to.name;
    made.conduit.from_addresses = made.from_addresses.name;
    made.conduit.to_addresses = made.to_addresses.name;
    for (const Reference& service : made.services) made.conduit.services.push_back(service.name);
    if (!made.conduit.modbus && made.conduit.refuse == net::policy::Refuse::kAnswer) {
      return fail("{}: {}: refuse without modbus: nothing is inspected", at(made.line), what);
    }
    return {};
  }

  // The whole conduit is compiled with one service, so that the complaint names its line.
  Result<> check_service(const ConduitConfig& made, const Reference& service, const std::string& what) {
    net::policy::Plan plan{.zones = {"a", "b"}, .address_sets = {}, .services = {}, .conduits = {made.conduit}};
    for (const ServiceConfig& own : plant_.services) plan.services.push_back(own.service);
    plan.conduits[0].from = "a";
    plan.conduits[0].to = "b";
    plan.conduits[0].services = {service.name};
    if (const auto compiled = net::policy::CompiledPlan::compile(plan); !compiled) {
      std::string_view message = compiled.error().message;
      const std::string label = fmt::format("conduit '{}': ", made.conduit.name);
      if (message.starts_with(label)) message.remove_prefix(label.size());
      return fail("{}: {}.services: {}", at(service.line), what, message);
    }
    return {};
  }

  // The plant's only switch where none is named.
  Result<const SwitchConfig*> check_on(Reference& on, uint32_t line, const std::string& what) {
    const std::string allowed = names_of(plant_.switches, &SwitchConfig::name);
    if (!on.given()) {
      if (plant_.switches.size() != 1) return fail("{}: {}: switch is missing; {}", at(line), what, allowed);
      on = {plant_.switches[0].name, line};
    }
    const SwitchConfig* const found = plant_.find_switch(on.name);
    if (found == nullptr) return fail("{}: {}.switch: no switch '{}'; {}", at(on.line), what, on.name, allowed);
    return found;
  }

  Result<> check_card(CardConfig& card, const std::string& what) {
    const SwitchConfig* const on = TRY(check_on(card.on, card.line, what));
    if (card.zone.given() == card.group.given()) {
      return fail("{}: {}: allowed: either zone or group", at(card.line), what);
    }
    if (card.zone.given()) {
      TRY(check_zone(card.zone, card.line, what + ".zone"));
      card.group = card.zone;
    }
    const GroupConfig* const group = plant_.find_group(card.group.name);
    if (group == nullptr) {
      const auto name_of = [](const GroupConfig& each) -> std::string_view { return each.policy.name; };
      return fail("{}: {}.group: no port group '{}'; {}", at(card.group.line), what, card.group.name,
                  names_of(plant_.groups, name_of));
    }
    card.zone = group->zone;
    if (card.address) TRY(check_address(*on, card, what));
    if (card.mac && !macs_.insert(*card.mac).second) {
      return fail("{}: {}.mac: {} stands twice", at(card.line), what, card.mac->to_string());
    }
    return {};
  }

  Result<> check_address(const SwitchConfig& on, const CardConfig& card, const std::string& what) {
    if (on.network && !on.network->contains(*card.address)) {
      return fail("{}: {}.address: {} lies outside {}, the network of switch '{}'", at(card.line), what,
                  card.address->to_string(), on.network->to_string(), on.name);
    }
    const auto [other, is_new] = addresses_.emplace(std::pair(on.name, *card.address), card.line);
    if (is_new) return {};
    return fail("{}: {}.address: {} stands in line {} too", at(card.line), what, card.address->to_string(),
                other->second);
  }

  Result<> check_machine(MachineConfig& machine) {
    const std::string what = fmt::format("spec.machines.{}", machine.name);
    const bool has_kernel = std::ranges::find(machine.arguments, "--kernel") != machine.arguments.end();
    if (machine.file.empty() && !has_kernel) {
      return fail("{}: {}: says not what runs; allowed: file or kernel", at(machine.line), what);
    }
    for (size_t i = 0; i < machine.cards.size(); ++i) {
      TRY(check_card(machine.cards[i], fmt::format("{}.nics[{}]", what, i)));
    }
    for (const Reference& other : machine.after) {
      if (other.name == machine.name) return fail("{}: {}.after: itself", at(other.line), what);
      if (plant_.find_machine(other.name) != nullptr) continue;
      return fail("{}: {}.after: no machine '{}'; {}", at(other.line), what, other.name,
                  names_of(plant_.machines, &MachineConfig::name));
    }
    const ProbeConfig& ready = machine.ready;
    if (!ready.asks_a_card()) return {};
    const auto has_address = [](const CardConfig& card) {
      return card.address && card.address->family == net::frame::Family::kIpv4;
    };
    const auto asked = std::ranges::find_if(machine.cards, has_address);
    if (asked == machine.cards.end()) {
      return fail("{}: {}.ready: none of its cards has an IPv4 address to ask", at(ready.line), what);
    }
    if (probe_group_of(plant_, *asked) == nullptr) {
      return fail(
          "{}: {}.ready: cannot be asked at {}: its group '{}' lets nobody to it without a tag; allowed: log, "
          "exec or a card before it with an address",
          at(ready.line), what, asked->address->to_string(), asked->group.name);
    }
    return {};
  }

  Result<> check_link(LinkToOutside& link) {
    const std::string what = fmt::format("spec.links.{}", link.name);
    if (const MachineConfig* const machine = plant_.find_machine(link.name)) {
      return fail("{}: {}: the machine in line {} has this name too", at(link.line), what, machine->line);
    }
    // Sockets of these names are the switch's own.
    if (link.name == "control" || link.name.starts_with("group-")) {
      return fail("{}: {}: allowed: another name than control or group-...", at(link.line), what);
    }
    TRY(check_card(link.card, what));
    // Behind a link are many.
    if (link.card.mac) return fail("{}: {}.mac: a link has none; allowed: a machine's card", at(link.line), what);
    if (link.card.address && link.kind != LinkToOutside::Kind::kNat) {
      return fail("{}: {}.address: only a NAT has one, the guests' gateway", at(link.line), what);
    }
    if (link.kind == LinkToOutside::Kind::kTap && (link.tap.empty() || link.tap.size() > 15)) {
      return fail("{}: {}.tap: '{}': allowed: a device's name of 1 to 15 characters", at(link.line), what, link.tap);
    }
    if (link.kind == LinkToOutside::Kind::kTunnel) {
      if (const auto checked = net::tunnel::check_tunnel(link.tunnel); !checked) {
        return fail("{}: {}.tunnel: {}", at(link.line), what, checked.error().message);
      }
    }
    return link.kind == LinkToOutside::Kind::kNat ? check_nat(link, what) : Result<>();
  }

  // Guests find a gateway and a name server in their own network; they are the first two addresses where none is given.
  Result<> check_nat(LinkToOutside& link, const std::string& what) {
    const SwitchConfig& on = plant_.switch_of(link.card);
    if (!on.network || on.network->address.family != net::frame::Family::kIpv4 || on.network->length > 29) {
      return fail("{}: {}.nat: needs the IPv4 network of switch '{}', of /29 or larger", at(link.line), what, on.name);
    }
    if (!link.card.address) {
      link.card.address = on.network->address;
      link.card.address->bytes[3] |= 1;
      TRY(check_address(on, link.card, what));
    }
    CardConfig names = link.card;
    names.address->bytes[3] = static_cast<uint8_t>(names.address->bytes[3] + 1);
    TRY(check_address(on, names, what));
    link.names = names.address;
    if (const auto config = link_config_of(plant_, link); !config) {
      return fail("{}: {}.nat: {}", at(link.line), what, config.error().message);
    }
    return {};
  }

  Result<> check_switch(SwitchConfig& each) {
    const std::string what = fmt::format("spec.switches.{}", each.name);
    for (const Reference& zone : each.captured) TRY(check_zone(zone, each.line, what + ".captured"));
    if (each.probe_address && each.network && !each.network->contains(*each.probe_address)) {
      return fail("{}: {}.probe-address: {} lies outside {}", at(each.line), what, each.probe_address->to_string(),
                  each.network->to_string());
    }
    if (!each.probe_address && each.network && each.network->address.family == net::frame::Family::kIpv4) {
      each.probe_address = last_address(*each.network);
    }
    if (each.probe_address) {
      const auto taken = addresses_.find({each.name, *each.probe_address});
      if (taken != addresses_.end()) {
        return fail("{}: {}: {} asks for readiness, but stands in line {} too; set probe-address", at(each.line), what,
                    each.probe_address->to_string(), taken->second);
      }
    }
    for (const MachineConfig& machine : plant_.machines) {
      const bool asked = machine.ready.asks_a_card();
      const bool here = std::ranges::any_of(machine.cards, [&](const auto& card) { return card.on.name == each.name; });
      if (asked && here && !each.probe_address) {
        return fail("{}: {}: network is missing, which tells where machine '{}' is asked from", at(each.line), what,
                    machine.name);
      }
    }
    return {};
  }

  Result<> check_mirror(MirrorConfig& mirror) {
    const std::string what = fmt::format("spec.mirrors.{}", mirror.name);
    TRY(check_on(mirror.on, mirror.line, what));
    if (mirror.to.given() != mirror.capture.empty()) {
      return fail("{}: {}: allowed: either to or pcapng", at(mirror.line), what);
    }
    const std::vector<PortPlan> ports = ports_of(plant_, mirror.on.name);
    if (mirror.to.given()) TRY(check_mirror_target(mirror, ports, what));
    for (const Reference& source : mirror.from) {
      MirrorPlan named;
      add_mirrored(plant_, ports, source.name, named);
      if (named.ports.empty() && named.groups.empty()) {
        return fail(
            "{}: {}.from: nothing on switch '{}' is called '{}'; allowed: zones, groups, machines, their cards "
            "like plc1.0, links",
            at(source.line), what, mirror.on.name, source.name);
      }
      if (std::ranges::find(named.ports, mirror.to.name) != named.ports.end()) {
        return fail("{}: {}.from: '{}' is where it goes to", at(source.line), what, source.name);
      }
    }
    return {};
  }

  // Two that wrote one file would spoil it.
  Result<> check_captures() {
    std::map<std::string, uint32_t> files;  // with the line of their capture
    const auto check = [&](const std::string& capture, uint32_t line, const std::string& what) -> Result<> {
      if (capture.empty()) return {};
      const std::filesystem::path path(path_from(plant_, capture));
      for (const std::string& file : net::capture::PcapngRing::files_of(path.lexically_normal().string())) {
        const auto [other, is_new] = files.emplace(file, line);
        if (is_new) continue;
        return fail("{}: {} '{}': '{}' is a file of the capture in line {} too", at(line), what, capture, file,
                    other->second);
      }
      return {};
    };
    for (const SwitchConfig& each : plant_.switches) {
      TRY(check(each.capture, each.line, fmt::format("spec.switches.{}.capture", each.name)));
    }
    for (const MirrorConfig& each : plant_.mirrors) {
      TRY(check(each.capture, each.line, fmt::format("spec.mirrors.{}.pcapng", each.name)));
    }
    return {};
  }

  Result<> check_mirror_target(MirrorConfig& mirror, const std::vector<PortPlan>& ports, const std::string& what) {
    std::vector<std::string_view> found;
    for (const PortPlan& port : ports) {
      if (port.name == mirror.to.name || port.owner == mirror.to.name) found.push_back(port.name);
    }
    if (found.size() != 1) {
      return fail("{}: {}.to: '{}': allowed: a card on switch '{}', like plc1.0, or a link there", at(mirror.to.line),
                  what, mirror.to.name, mirror.on.name);
    }
    mirror.to.name = found[0];
    const auto [other, is_new] = mirror_targets_.emplace(mirror.to.name, mirror.line);
    if (!is_new) {
      return fail("{}: {}.to: '{}' is that of the mirror in line {} too", at(mirror.to.line), what, mirror.to.name,
                  other->second);
    }
    for (const MachineConfig& machine : plant_.machines) {
      if (!machine.ready.asks_a_card()) continue;
      const auto asked = std::ranges::find_if(machine.cards, [](const CardConfig& card) {
        return card.address && card.address->family == net::frame::Family::kIpv4;
      });
      if (asked != machine.cards.end() &&
          port_name(machine, static_cast<size_t>(asked - machine.cards.begin())) == mirror.to.name) {
        return fail(
            "{}: spec.machines.{}.ready: it is asked at a mirror's card, which never answers; allowed: log, "
            "exec or a card before it with an address",
            at(machine.ready.line), machine.name);
      }
    }
    return {};
  }

  // The one before the broadcast address.
  static net::frame::IpAddress last_address(const net::frame::IpPrefix& network) {
    net::frame::IpAddress address = network.address;
    for (unsigned bit = network.length; bit < 32; ++bit) {
      address.bytes[bit / 8] = static_cast<uint8_t>(address.bytes[bit / 8] | 0x80 >> bit % 8);
    }
    if (network.length < 31) address.bytes[3] ^= 1;
    return address;
  }

  // Takes away machines that wait for none that is left, until none is; what stays waits in a circle.
  Result<> check_order() {
    std::set<std::string_view> left;
    for (const MachineConfig& machine : plant_.machines) left.insert(machine.name);
    for (bool moved = true; moved;) {
      moved = false;
      for (const MachineConfig& machine : plant_.machines) {
        const bool waits =
            std::ranges::any_of(machine.after, [&](const auto& other) { return left.contains(other.name); });
        if (!waits) moved |= left.erase(machine.name) != 0;
      }
    }
    if (left.empty()) return {};
    const MachineConfig& first = *plant_.find_machine(*left.begin());
    return fail("{}: spec.machines: {} wait for each other", at(first.line), fmt::join(left, ", "));
  }

  // Two zones whose ports share no VLAN of a switch never meet, whatever a conduit says: nothing here routes.
  Result<> check_meeting(const ConduitConfig& made) {
    const auto carries = [](const net::switching::GroupPolicy& policy, uint16_t vlan) {
      if (policy.mode != net::switching::VlanMode::kTrunk) return policy.vlan == vlan;
      return policy.native_vlan == vlan || policy.allowed_vlans.test(vlan);
    };
    for (const GroupConfig& from : plant_.groups) {
      for (const GroupConfig& to : plant_.groups) {
        if (from.zone.name != made.conduit.from || to.zone.name != made.conduit.to) continue;
        for (uint16_t vlan = 1; vlan <= net::frame::kMaximumVlan; ++vlan) {
          if (carries(from.policy, vlan) && carries(to.policy, vlan)) return {};
        }
      }
    }
    return fail("{}: spec.conduits.{}: zones '{}' and '{}' share no VLAN, so nothing can pass", at(made.line),
                made.conduit.name, made.conduit.from, made.conduit.to);
  }

  Plant& plant_;
  std::map<std::pair<std::string, net::frame::IpAddress>, uint32_t> addresses_;
  std::map<std::string, uint32_t, std::less<>> mirror_targets_;
  std::set<net::frame::MacAddress> macs_;
};

}  // namespace

const ZoneConfig* Plant::find_zone(std::string_view wanted) const {
  return find_named(zones, wanted, &ZoneConfig::name);
}
const GroupConfig* Plant::find_group(std::string_view wanted) const {
  return find_named(groups, wanted, [](const GroupConfig& each) -> std::string_view { return each.policy.name; });
}
const SwitchConfig* Plant::find_switch(std::string_view wanted) const {
  return find_named(switches, wanted, &SwitchConfig::name);
}
const MachineConfig* Plant::find_machine(std::string_view wanted) const {
  return find_named(machines, wanted, &MachineConfig::name);
}
const SwitchConfig& Plant::switch_of(const CardConfig& card) const {
  return *find_switch(card.on.name);
}
const GroupConfig& Plant::group_of(const CardConfig& card) const {
  return *find_group(card.group.name);
}

Result<> check_plant(Plant& plant) {
  return Checker(plant).check();
}

}  // namespace bulkhead::plant
