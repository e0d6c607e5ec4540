// Reads plant.yaml into a Plant: spellings and single values here, what they mean together in check.cc.
#include <algorithm>
#include <optional>

#include "net/capture/pcapng.h"
#include "plant/cursor.h"
#include "plant/model.h"
#include "plant/values.h"
#include "support/os/fd.h"

namespace bulkhead::plant {
namespace {

using net::frame::IpAddress, net::frame::IpPrefix, net::frame::MacAddress;
using net::switching::Permission;

constexpr yaml::Limits kLimits;
constexpr std::string_view kAllowed = "kind, metadata and spec";

Cursor::Field text_field(std::string_view name, std::string& target) {
  return {name, [&target](const Cursor& at) -> Result<> {
            target = TRY(at.text());
            return {};
          }};
}

Cursor::Field flag_field(std::string_view name, bool& target) {
  return {name, [&target](const Cursor& at) -> Result<> {
            target = TRY(at.value(parse_flag));
            return {};
          }};
}

Cursor::Field reference_field(std::string_view name, Reference& target) {
  return {name, [&target](const Cursor& at) -> Result<> {
            target = {TRY(at.text()), at.line()};
            return {};
          }};
}

template <typename T>
Cursor::Field number_field(std::string_view name, T& target, uint64_t least, uint64_t most) {
  return {name, [&target, least, most](const Cursor& at) -> Result<> {
            target = static_cast<T>(
                TRY(at.value([least, most](std::string_view text) { return parse_number(text, least, most); })));
            return {};
          }};
}

// Any parser of a single value.
template <typename T, typename Parse>
Cursor::Field value_field(std::string_view name, T& target, Parse parse) {
  return {name, [&target, parse](const Cursor& at) -> Result<> {
            target = TRY(at.value(parse));
            return {};
          }};
}

Cursor::Field permission_field(std::string_view name, Permission& target) {
  return value_field(name, target, [](std::string_view text) -> Result<Permission> {
    if (text == "allow") return Permission::kAllow;
    if (text == "deny") return Permission::kDeny;
    return fail("allowed: allow or deny");
  });
}

Cursor::Field references_field(std::string_view name, std::vector<Reference>& target, size_t most) {
  return {name, [&target, most](const Cursor& at) {
            return at.list(most, [&target](const Cursor& item) -> Result<> {
              target.push_back({TRY(item.text()), item.line()});
              return {};
            });
          }};
}

Result<uint64_t> parse_capture_size(std::string_view text) {
  const uint64_t bytes = TRY(parse_byte_size(text));
  if (bytes >= net::capture::PcapngRing::kLeastBytes) return bytes;
  return fail("allowed: {}K and more", net::capture::PcapngRing::kLeastBytes / 1024);
}

// ---- What the network is ----

Result<> read_switch(Plant& plant, const std::string& name, const Cursor& at) {
  SwitchConfig made{.name = name, .line = at.line()};
  TRY(at.fields({value_field("network", made.network, IpPrefix::parse),
                 value_field("probe-address", made.probe_address, IpAddress::parse),
                 text_field("capture", made.capture), references_field("captured", made.captured, 64),
                 value_field("capture-size", made.capture_bytes, parse_capture_size)}));
  plant.switches.push_back(std::move(made));
  return {};
}

Result<> read_zone(Plant& plant, const std::string& name, const Cursor& at) {
  ZoneConfig made{.name = name, .line = at.line()};
  TRY(at.fields(
      {text_field("description", made.description), number_field("vlan", made.vlan, 1, net::frame::kMaximumVlan)}));
  plant.zones.push_back(std::move(made));
  return {};
}

Cursor::Field vlans_field(std::string_view name, net::switching::VlanSet& target) {
  return {name, [&target](const Cursor& at) {
            return at.list(256, [&target](const Cursor& item) -> Result<> {
              const auto [first, last] =
                  TRY(item.value([](std::string_view text) { return parse_range(text, 1, net::frame::kMaximumVlan); }));
              for (uint64_t vlan = first; vlan <= last; ++vlan) target.set(vlan);
              return {};
            });
          }};
}

Result<> read_group(Plant& plant, const std::string& name, const Cursor& at) {
  using net::switching::VlanMode;
  GroupConfig made{.line = at.line()};
  net::switching::GroupPolicy& policy = made.policy;
  policy.name = name;
  constexpr uint64_t kMostFrames = 100'000'000;
  const Cursor::Field mode = value_field("mode", policy.mode, [](std::string_view text) -> Result<VlanMode> {
    if (text == "access") return VlanMode::kAccess;
    if (text == "trunk") return VlanMode::kTrunk;
    if (text == "tunnel") return VlanMode::kTunnel;
    return fail("allowed: access, trunk or tunnel");
  });
  const Cursor::Field vlan{"vlan", [&made](const Cursor& value) -> Result<> {
                             made.vlan_given = true;
                             return number_field("", made.policy.vlan, 1, net::frame::kMaximumVlan).read(value);
                           }};
  const Cursor::Field tag_protocol =
      value_field("tag-protocol", policy.tag_protocol, [](std::string_view text) -> Result<uint16_t> {
        if (text == "0x8100" || text == "802.1q") return net::frame::kTypeVlan;
        if (text == "0x88a8" || text == "0x88A8" || text == "802.1ad") return net::frame::kTypeServiceVlan;
        return fail("allowed: 0x8100 (802.1q) or 0x88a8 (802.1ad)");
      });
  TRY(at.fields(
      {reference_field("zone", made.zone), mode, vlan, vlans_field("vlans", policy.allowed_vlans),
       number_field("native-vlan", policy.native_vlan, 1, net::frame::kMaximumVlan), tag_protocol,
       value_field("rate", policy.rate_bytes_a_second, parse_bit_rate),
       number_field("broadcasts", policy.broadcast_frames_a_second, 1, kMostFrames),
       number_field("multicasts", policy.multicast_frames_a_second, 1, kMostFrames),
       permission_field("forged-mac", policy.forged_mac), permission_field("forged-address", policy.forged_address),
       permission_field("network-services", policy.network_services),
       permission_field("promiscuous", policy.promiscuous), permission_field("within-group", policy.within_group)}));
  plant.groups.push_back(std::move(made));
  return {};
}

Result<> read_addresses(Plant& plant, const std::string& name, const Cursor& at) {
  AddressSetConfig made{.line = at.line(), .set = {.name = name, .prefixes = {}}};
  TRY(at.list(net::policy::Plan::kMaximumPrefixes, [&made](const Cursor& item) -> Result<> {
    made.set.prefixes.push_back(TRY(item.value(IpPrefix::parse)));
    return {};
  }));
  plant.addresses.push_back(std::move(made));
  return {};
}

Result<> read_service(Plant& plant, const std::string& name, const Cursor& at) {
  ServiceConfig made{.line = at.line(), .service = {.name = name, .ports = {}}};
  if (net::policy::find_service(name)) return fail("{}: a known service; take another name", at.place());
  TRY(at.list(64, [&made](const Cursor& item) -> Result<> {
    const auto found = TRY(item.value(net::policy::find_service));
    made.service.ports.insert(made.service.ports.end(), found.ports.begin(), found.ports.end());
    return {};
  }));
  plant.services.push_back(std::move(made));
  return {};
}

// ---- Conduits ----

Result<net::inspect::ModbusFunctions> parse_functions(std::string_view text) {
  net::inspect::ModbusFunctions functions;
  if (text == "read") return net::inspect::modbus_reads();
  if (text == "write") return net::inspect::modbus_writes();
  if (text == "all") return functions.set().reset(0);
  const auto range = parse_range(text, 1, 127);
  if (!range) return fail("allowed: read, write, all, a function code of 1 to 127 or FIRST-LAST");
  for (uint64_t code = range->first; code <= range->second; ++code) functions.set(code);
  return functions;
}

Result<> read_modbus_rule(net::inspect::ModbusPolicy& policy, const Cursor& at) {
  net::inspect::ModbusRule rule;
  const Cursor::Field functions{"functions", [&rule](const Cursor& value) {
                                  return value.list(64, [&rule](const Cursor& item) -> Result<> {
                                    rule.functions |= TRY(item.value(parse_functions));
                                    return {};
                                  });
                                }};
  const Cursor::Field units{"units", [&rule](const Cursor& value) -> Result<> {
                              const auto [first, last] =
                                  TRY(value.value([](std::string_view text) { return parse_range(text, 0, 255); }));
                              rule.first_unit = static_cast<uint8_t>(first);
                              rule.last_unit = static_cast<uint8_t>(last);
                              return {};
                            }};
  const Cursor::Field addresses{
      "addresses", [&rule](const Cursor& value) -> Result<> {
        const auto [first, last] = TRY(value.value([](std::string_view text) { return parse_range(text, 0, 65535); }));
        rule.addresses = {static_cast<uint16_t>(first), static_cast<uint16_t>(last)};
        return {};
      }};
  TRY(at.fields({functions, units, addresses}));
  if (rule.functions.none()) return fail("{}: functions is missing", at.place());
  policy.rules.push_back(rule);
  return {};
}

Result<> read_conduit(Plant& plant, const std::string& name, const Cursor& at) {
  ConduitConfig made{.line = at.line()};
  net::policy::Conduit& conduit = made.conduit;
  conduit.name = name;
  const Cursor::Field modbus{"modbus", [&conduit](const Cursor& value) {
                               auto& policy = conduit.modbus.emplace();
                               return value.list(net::inspect::ModbusPolicy::kMaximumRules,
                                                 [&](const Cursor& item) { return read_modbus_rule(policy, item); });
                             }};
  const Cursor::Field refuse =
      value_field("refuse", conduit.refuse, [](std::string_view text) -> Result<net::policy::Refuse> {
        if (text == "drop") return net::policy::Refuse::kDrop;
        if (text == "answer") return net::policy::Refuse::kAnswer;
        return fail("allowed: drop or answer");
      });
  const Cursor::Field direction =
      value_field("direction", conduit.direction, [](std::string_view text) -> Result<net::policy::Direction> {
        if (text == "answered") return net::policy::Direction::kAnswered;
        if (text == "one-way") return net::policy::Direction::kOneWay;
        return fail("allowed: answered or one-way");
      });
  TRY(at.fields({reference_field("from", made.from), reference_field("to", made.to),
                 references_field("services", made.services, 64),
                 reference_field("from-addresses", made.from_addresses),
                 reference_field("to-addresses", made.to_addresses), direction, modbus, refuse}));
  plant.conduits.push_back(std::move(made));
  return {};
}

// ---- Machines and links ----

std::vector<Cursor::Field> fault_fields(net::fault::FaultConfig& faults) {
  return {value_field("delay", faults.delay_ns, parse_duration_ns),
          value_field("jitter", faults.jitter_ns, parse_duration_ns),
          value_field("lost", faults.lost, parse_share),
          value_field("duplicated", faults.duplicated, parse_share),
          value_field("reordered", faults.reordered, parse_share),
          value_field("corrupted", faults.corrupted, parse_share),
          value_field("rate", faults.rate_bytes_a_second, parse_bit_rate),
          flag_field("cut", faults.is_cut)};
}

// Of both directions, and in "in" (what the card sends) and "out" what one of them has instead.
Cursor::Field faults_field(CardConfig& card) {
  return {"faults", [&card](const Cursor& at) -> Result<> {
            std::optional<Cursor> in, out;
            const auto later = [](std::optional<Cursor>& direction) {
              return [&direction](const Cursor& value) -> Result<> {
                direction = value;
                return {};
              };
            };
            std::vector<Cursor::Field> fields = fault_fields(card.faults);
            fields.push_back({"in", later(in)});
            fields.push_back({"out", later(out)});
            fields.push_back(number_field("seed", card.fault_seed, 0, UINT64_MAX));
            TRY(at.fields(fields));
            card.faults_out = card.faults;
            if (in) TRY(in->fields(fault_fields(card.faults)));
            if (out) TRY(out->fields(fault_fields(card.faults_out)));
            for (const net::fault::FaultConfig& faults : {card.faults, card.faults_out}) {
              if (auto checked = net::fault::check_faults(faults); !checked) {
                return fail("{}: {}", at.place(), checked.error().message);
              }
            }
            return {};
          }};
}

Result<std::string> parse_model(std::string_view text) {
  if (text != "virtio" && text != "e1000" && text != "e1000e") return fail("allowed: virtio, e1000 or e1000e");
  return std::string(text);
}

std::vector<Cursor::Field> card_fields(CardConfig& card) {
  return {reference_field("switch", card.on),
          reference_field("zone", card.zone),
          reference_field("group", card.group),
          value_field("address", card.address, IpAddress::parse),
          value_field("mac", card.mac,
                      [](std::string_view text) -> Result<MacAddress> {
                        const MacAddress mac = TRY(MacAddress::parse(text));
                        if (mac.is_group() || mac.is_zero()) return fail("no card's address");
                        return mac;
                      }),
          flag_field("promiscuous", card.promiscuous),
          faults_field(card)};
}

Result<> read_probe(ProbeConfig& probe, const Cursor& at) {
  using Kind = ProbeConfig::Kind;
  probe.line = at.line();
  const auto kind = [&probe](Kind wanted, uint16_t port) {
    return [&probe, wanted, port](const Cursor& value) -> Result<> {
      if (probe.kind != Kind::kNone) return fail("{}: a second question; allowed: one", value.place());
      probe.kind = wanted;
      probe.port = port;
      return {};
    };
  };
  const Cursor::Field tcp{"tcp", [&](const Cursor& value) -> Result<> {
                            TRY(kind(Kind::kTcp, 0)(value));
                            return number_field("", probe.port, 1, 65535).read(value);
                          }};
  const Cursor::Field modbus{
      "modbus", [&](const Cursor& value) -> Result<> {
        TRY(kind(Kind::kModbus, 502)(value));
        return value.fields({number_field("port", probe.port, 1, 65535), number_field("unit", probe.unit, 0, 255),
                             number_field("address", probe.address, 0, 65535)});
      }};
  const Cursor::Field http{
      "http", [&](const Cursor& value) -> Result<> {
        TRY(kind(Kind::kHttp, 80)(value));
        const auto check = [](std::string_view text) -> Result<std::string> {
          const bool plain = std::ranges::all_of(text, [](char c) { return c > ' ' && c < 0x7F; });
          if (!text.starts_with('/') || text.size() > 200 || !plain) {
            return fail("allowed: a path that begins with /, of 200 plain characters at most");
          }
          return std::string(text);
        };
        return value.fields({number_field("port", probe.port, 1, 65535), value_field("path", probe.path, check)});
      }};
  const Cursor::Field mqtt{"mqtt", [&](const Cursor& value) -> Result<> {
                             TRY(kind(Kind::kMqtt, 1883)(value));
                             return value.fields({number_field("port", probe.port, 1, 65535)});
                           }};
  const Cursor::Field log{"log", [&](const Cursor& value) -> Result<> {
                            TRY(kind(Kind::kLog, 0)(value));
                            probe.text = TRY(value.text());
                            if (probe.text.empty() || probe.text.size() > 200) {
                              return fail("{}: allowed: 1 to 200 characters", value.place());
                            }
                            return {};
                          }};
  const Cursor::Field exec{"exec", [&](const Cursor& value) -> Result<> {
                             TRY(kind(Kind::kExec, 0)(value));
                             probe.text = TRY(value.text());
                             if (probe.text.empty() || probe.text.size() > 200) {
                               return fail("{}: allowed: a command of 1 to 200 characters", value.place());
                             }
                             return {};
                           }};
  TRY(at.fields({tcp, modbus, http, mqtt, log, exec, value_field("within", probe.within_ns, parse_duration_ns)}));
  if (probe.kind == Kind::kNone)
    return fail("{}: asks nothing; allowed: tcp, modbus, http, mqtt, log or exec", at.place());
  return {};
}

// The path in a flag's value counts from directory: FILE, or of a disk also file=FILE among other properties. An NBD
// server's address is no path.
void count_from(const std::string& directory, std::string& text) {
  size_t at = 0;
  if (const size_t behind = text.find(",file="); text.starts_with("file=")) {
    at = 5;
  } else if (behind != std::string::npos) {
    at = behind + 6;
  }
  const std::string_view path = std::string_view(text).substr(at);
  if (directory.empty() || path.starts_with('/') || path.starts_with("nbd")) return;
  text.insert(at, directory + "/");
}

// A flag of "bulkhead run" by the same name; paths count from the plant's folder.
Cursor::Field run_field(std::string_view name, MachineConfig& machine, const std::string* directory) {
  return {name, [name, &machine, directory](const Cursor& at) -> Result<> {
            return at.list(16, [&](const Cursor& item) -> Result<> {
              std::string text = TRY(item.text());
              if (directory != nullptr) count_from(*directory, text);
              machine.arguments.push_back(fmt::format("--{}", name));
              machine.arguments.push_back(std::move(text));
              return {};
            });
          }};
}

Result<> read_machine(Plant& plant, const std::string& name, const Cursor& at) {
  MachineConfig made{.name = name, .line = at.line()};
  const Cursor::Field cards{"nics", [&made](const Cursor& value) {
                              return value.list(Plant::kMaximumCards, [&made](const Cursor& item) -> Result<> {
                                CardConfig card{.line = item.line()};
                                auto fields = card_fields(card);
                                fields.push_back(value_field("model", card.model, parse_model));
                                TRY(item.fields(fields));
                                made.cards.push_back(std::move(card));
                                return {};
                              });
                            }};
  const Cursor::Field file{"file", [&](const Cursor& value) -> Result<> {
                             made.file = TRY(value.text());
                             if (!plant.directory.empty() && !made.file.starts_with('/')) {
                               made.file = fmt::format("{}/{}", plant.directory, made.file);
                             }
                             return {};
                           }};
  const Cursor::Field ready{"ready", [&made](const Cursor& value) { return read_probe(made.ready, value); }};
  TRY(at.fields({file, run_field("cpus", made, nullptr), run_field("memory", made, nullptr),
                 run_field("engine", made, nullptr), run_field("cpu-model", made, nullptr),
                 run_field("kernel", made, &plant.directory), run_field("initrd", made, &plant.directory),
                 run_field("cmdline", made, nullptr), run_field("disk", made, &plant.directory), cards,
                 references_field("after", made.after, Plant::kMaximumMachines), ready,
                 flag_field("restart", made.restart)}));
  plant.machines.push_back(std::move(made));
  return {};
}

Result<net::tunnel::Segment> parse_segment(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return fail("allowed: VLAN:VNI");
  return net::tunnel::Segment{
      .vlan = static_cast<uint16_t>(TRY(parse_number(text.substr(0, colon), 1, net::frame::kMaximumVlan))),
      .vni = static_cast<uint32_t>(TRY(parse_number(text.substr(colon + 1), 0, net::tunnel::kMaximumVni)))};
}

Result<> read_tunnel(LinkToOutside& made, const std::string& directory, const Cursor& at) {
  net::tunnel::TunnelConfig& tunnel = made.tunnel;
  const auto peer = [&tunnel](const std::string& name, const Cursor& value) -> Result<> {
    net::tunnel::PeerConfig read{.name = name};
    bool has_key = false;
    TRY(value.fields({{"key",
                       [&](const Cursor& key) -> Result<> {
                         read.key = TRY(key.value(net::tunnel::parse_key));
                         has_key = true;
                         return {};
                       }},
                      value_field("address", read.endpoint, net::tunnel::Endpoint::parse)}));
    if (!has_key)
      return fail("{}.key: is missing; allowed: the public key that 'bulkhead network key' says", value.place());
    tunnel.peers.push_back(std::move(read));
    return {};
  };
  TRY(at.fields(
      {text_field("key", made.key_file),
       value_field("listen", made.listen, net::tunnel::Endpoint::parse),
       number_field("mtu", tunnel.path_mtu, net::tunnel::TunnelConfig::kLeastPathMtu, UINT16_MAX),
       {"vni",
        [&](const Cursor& value) -> Result<> {
          const auto vni =
              TRY(value.value([](std::string_view text) { return parse_number(text, 0, net::tunnel::kMaximumVni); }));
          tunnel.segments.push_back({.vlan = 0, .vni = static_cast<uint32_t>(vni)});
          return {};
        }},
       {"vnis",
        [&](const Cursor& list) {
          return list.list(net::tunnel::TunnelConfig::kMaximumSegments, [&](const Cursor& item) -> Result<> {
            tunnel.segments.push_back(TRY(item.value(parse_segment)));
            return {};
          });
        }},
       {"peers", [&](const Cursor& peers) { return peers.named(net::tunnel::TunnelConfig::kMaximumPeers, peer); }}}));
  if (made.key_file.empty())
    return fail("{}.key: is missing; allowed: a file of 'bulkhead network keygen'", at.place());
  if (!directory.empty() && !made.key_file.starts_with('/')) {
    made.key_file = fmt::format("{}/{}", directory, made.key_file);
  }
  return {};
}

Result<> read_link(Plant& plant, const std::string& name, const Cursor& at) {
  LinkToOutside made{.name = name, .line = at.line()};
  made.card.line = at.line();
  unsigned kinds = 0;
  std::vector<Cursor::Field> fields = card_fields(made.card);
  fields.push_back({"nat", [&](const Cursor& value) -> Result<> {
                      kinds += 1;
                      made.kind = LinkToOutside::Kind::kNat;
                      return value.fields({{"forward",
                                            [&made](const Cursor& forwards) {
                                              return forwards.list(32, [&made](const Cursor& item) -> Result<> {
                                                made.forwards.push_back(TRY(item.text()));
                                                return {};
                                              });
                                            }},
                                           flag_field("host", made.reach_host)});
                    }});
  fields.push_back({"tap", [&](const Cursor& value) -> Result<> {
                      kinds += 1;
                      made.kind = LinkToOutside::Kind::kTap;
                      made.tap = TRY(value.text());
                      return {};
                    }});
  fields.push_back({"tunnel", [&](const Cursor& value) -> Result<> {
                      kinds += 1;
                      made.kind = LinkToOutside::Kind::kTunnel;
                      return read_tunnel(made, plant.directory, value);
                    }});
  TRY(at.fields(fields));
  if (kinds == 0) return fail("{}: leads nowhere; allowed: nat, tap or tunnel", at.place());
  if (kinds > 1) return fail("{}: leads to several places; allowed: one of nat, tap and tunnel", at.place());
  plant.links.push_back(std::move(made));
  return {};
}

Result<> read_mirror(Plant& plant, const std::string& name, const Cursor& at) {
  MirrorConfig made{.name = name, .line = at.line()};
  TRY(at.fields({reference_field("switch", made.on), references_field("from", made.from, 64),
                 reference_field("to", made.to), text_field("pcapng", made.capture),
                 value_field("size", made.capture_bytes, parse_capture_size)}));
  plant.mirrors.push_back(std::move(made));
  return {};
}

// Calls read with the plant for each name under a section.
Cursor::Field section(std::string_view name, Plant& plant, size_t most,
                      Result<> (*read)(Plant&, const std::string&, const Cursor&)) {
  return {name, [&plant, most, read](const Cursor& at) {
            return at.named(most, [&plant, read](const std::string& each, const Cursor& value) {
              return read(plant, each, value);
            });
          }};
}

Result<> read_plant(Plant& plant, const Cursor& root) {
  if (!root.is_map()) return fail("{}:{}: not a map; allowed: {}", plant.file, root.line(), kAllowed);
  bool kind_seen = false, name_seen = false;
  const Cursor::Field kind{"kind", [&](const Cursor& at) -> Result<> {
                             kind_seen = true;
                             if (TRY(at.text()) == "Plant") return {};
                             return fail("{} '{}': allowed: Plant", at.place(), TRY(at.text()));
                           }};
  const Cursor::Field metadata{"metadata", [&](const Cursor& at) {
                                 return at.fields({{"name", [&](const Cursor& value) -> Result<> {
                                                      name_seen = true;
                                                      TRY(value.value(check_name));
                                                      plant.name = TRY(value.text());
                                                      return {};
                                                    }}});
                               }};
  const Cursor::Field spec{
      "spec", [&](const Cursor& at) {
        return at.fields({section("switches", plant, Plant::kMaximumSwitches, read_switch),
                          section("zones", plant, net::policy::Plan::kMaximumZones, read_zone),
                          section("groups", plant, Plant::kMaximumGroups, read_group),
                          section("addresses", plant, 256, read_addresses),
                          section("services", plant, 256, read_service),
                          section("conduits", plant, net::policy::Plan::kMaximumConduits, read_conduit),
                          section("machines", plant, Plant::kMaximumMachines, read_machine),
                          section("links", plant, Plant::kMaximumLinks, read_link),
                          section("mirrors", plant, Plant::kMaximumMirrors, read_mirror)});
      }};
  TRY(root.fields({kind, metadata, spec}));
  if (!kind_seen) return fail("{}:1: kind is missing; allowed: kind: Plant", plant.file);
  if (!name_seen) return fail("{}:1: metadata.name is missing", plant.file);
  return {};
}

}  // namespace

Result<Plant> parse_plant(std::string_view text, const std::string& name, const std::string& directory) {
  Plant plant{.file = name, .directory = directory};
  TRY(yaml::read(text, name, kLimits, kAllowed,
                 [&plant](const YAML::Node& root) { return read_plant(plant, Cursor(plant.file, root, "")); }));
  TRY(check_plant(plant));
  return plant;
}

Result<Plant> load_plant(const std::string& path) {
  const std::string text = TRY(read_file(path, kLimits.bytes));
  const size_t slash = path.rfind('/');
  return parse_plant(text, path, slash == std::string::npos ? std::string() : path.substr(0, slash));
}

}  // namespace bulkhead::plant
