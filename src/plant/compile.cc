#include "plant/compile.h"

#include <algorithm>

#include "support/random.h"

namespace bulkhead::plant {
namespace {

PortPlan port_of(const Plant& plant, const CardConfig& card, std::string name, const std::string& owner) {
  PortPlan made{.name = std::move(name), .owner = owner};
  made.group = card.group.name;
  made.zone = plant.group_of(card).zone.name;
  made.port.name = made.name;
  made.port.mac = mac_of(plant, card, made.name);
  if (card.address) made.port.ip_addresses.push_back(*card.address);
  made.port.promiscuous = card.promiscuous;
  made.faults = card.faults;
  made.faults_out = card.faults_out;
  made.fault_seed = card.fault_seed;
  return made;
}

}  // namespace

std::string path_from(const Plant& plant, const std::string& path) {
  return path.starts_with('/') || plant.directory.empty() ? path : fmt::format("{}/{}", plant.directory, path);
}

void add_mirrored(const Plant& plant, const std::vector<PortPlan>& ports, std::string_view name, MirrorPlan& made) {
  for (const PortPlan& port : ports) {
    if (port.name == name || port.owner == name) made.ports.push_back(port.name);
  }
  for (const GroupConfig& group : plant.groups) {
    if (group.policy.name == name || group.zone.name == name) made.groups.push_back(group.policy.name);
  }
}

std::vector<MirrorPlan> mirrors_of(const Plant& plant, std::string_view switch_name) {
  std::vector<MirrorPlan> mirrors;
  const std::vector<PortPlan> ports = ports_of(plant, switch_name);
  const auto add = [&](MirrorPlan made, const std::vector<Reference>& from) {
    for (const Reference& source : from) add_mirrored(plant, ports, source.name, made);
    if (from.empty()) {
      for (const GroupConfig& group : plant.groups) made.groups.push_back(group.policy.name);
    }
    mirrors.push_back(std::move(made));
  };
  if (const SwitchConfig* const on = plant.find_switch(switch_name); on != nullptr && !on->capture.empty()) {
    add({.name = "capture", .capture = path_from(plant, on->capture), .capture_bytes = on->capture_bytes},
        on->captured);
  }
  for (const MirrorConfig& mirror : plant.mirrors) {
    if (mirror.on.name != switch_name) continue;
    MirrorPlan made{.name = mirror.name, .target = mirror.to.name};
    if (!mirror.capture.empty()) {
      made.capture = path_from(plant, mirror.capture);
      made.capture_bytes = mirror.capture_bytes;
    }
    add(std::move(made), mirror.from);
  }
  return mirrors;
}

net::policy::Plan policy_of(const Plant& plant) {
  net::policy::Plan plan;
  for (const ZoneConfig& zone : plant.zones) plan.zones.push_back(zone.name);
  for (const AddressSetConfig& set : plant.addresses) plan.address_sets.push_back(set.set);
  for (const ServiceConfig& service : plant.services) plan.services.push_back(service.service);
  for (const ConduitConfig& conduit : plant.conduits) plan.conduits.push_back(conduit.conduit);
  return plan;
}

Result<net::link::LinkConfig> link_config_of(const Plant& plant, const LinkToOutside& link) {
  net::link::LinkConfig config{.reach_host = link.reach_host, .tap = link.tap};
  if (link.kind == LinkToOutside::Kind::kTap) {
    config.kind = net::link::LinkConfig::Kind::kTap;
    return config;
  }
  config.kind = net::link::LinkConfig::Kind::kNat;
  config.network = plant.switch_of(link.card).network;
  config.gateway = link.card.address.value_or(net::frame::IpAddress{});
  config.names = link.names.value_or(net::frame::IpAddress{});
  for (const std::string& text : link.forwards) {
    // A machine of the plant may stand for its address.
    std::string words = text;
    for (const MachineConfig& machine : plant.machines) {
      const size_t at = text.find(":" + machine.name + ":");
      const auto card = std::ranges::find_if(machine.cards, [&](const CardConfig& each) {
        return each.address && each.address->family == net::frame::Family::kIpv4 && each.on.name == link.card.on.name;
      });
      if (at == std::string::npos || card == machine.cards.end()) continue;
      words.replace(at + 1, machine.name.size(), card->address->to_string());
    }
    config.forwards.push_back(TRY(net::link::parse_forward(words)));
    const net::link::Forward& made = config.forwards.back();
    const auto guest = net::frame::IpAddress::parse(made.guest);
    if (!guest || !config.network->contains(*guest)) {
      return fail("forward '{}': allowed: a machine of the plant, or an address in {}, like tcp:127.0.0.1:8080:NAME:80",
                  text, config.network->to_string());
    }
  }
  return config;
}

std::string tunnel_socket(std::string_view switch_directory, const LinkToOutside& link) {
  // No port has a dot and a word in its name.
  return fmt::format("{}/{}.tunnel.sock", switch_directory, link.name);
}

const GroupConfig* probe_group_of(const Plant& plant, const CardConfig& card) {
  const net::switching::GroupPolicy& policy = plant.group_of(card).policy;
  const bool is_trunk = policy.mode == net::switching::VlanMode::kTrunk;
  const uint16_t vlan = is_trunk ? policy.native_vlan : policy.vlan;
  const GroupConfig* const zone = plant.find_group(card.zone.name);
  const bool is_of_zone = zone == &plant.group_of(card);
  if (zone->policy.vlan == vlan && !is_of_zone) return zone;
  return !is_trunk && policy.within_group == net::switching::Permission::kAllow ? &plant.group_of(card) : nullptr;
}

std::string port_name(const MachineConfig& machine, size_t card) {
  return fmt::format("{}.{}", machine.name, card);
}

net::frame::MacAddress mac_of(const Plant& plant, const CardConfig& card, std::string_view port) {
  if (card.mac) return *card.mac;
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : fmt::format("{}/{}", plant.name, port)) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  }
  net::frame::MacAddress address;
  SeededRandom(hash).fill(address.bytes);
  address.bytes[0] = static_cast<uint8_t>((address.bytes[0] & 0xFC) | 2);
  return address;
}

std::vector<PortPlan> ports_of(const Plant& plant, std::string_view switch_name) {
  std::vector<PortPlan> ports;
  for (const MachineConfig& machine : plant.machines) {
    for (size_t i = 0; i < machine.cards.size(); ++i) {
      if (machine.cards[i].on.name != switch_name) continue;
      ports.push_back(port_of(plant, machine.cards[i], port_name(machine, i), machine.name));
    }
  }
  for (const LinkToOutside& link : plant.links) {
    if (link.card.on.name != switch_name) continue;
    PortPlan port = port_of(plant, link.card, link.name, link.name);
    // Behind a link are many.
    port.port.mac.reset();
    port.port.ip_addresses.clear();
    ports.push_back(std::move(port));
  }
  return ports;
}

}  // namespace bulkhead::plant
