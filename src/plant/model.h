// A plant as its operator describes it: switches, zones, conduits, port groups, machines with their cards, and links to
// the world outside. Plain values by name; each knows its line, so that what is wrong with it can be shown.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "net/fault/faults.h"
#include "net/frame/address.h"
#include "net/inspect/modbus.h"
#include "net/policy/plan.h"
#include "net/switch/port_group.h"
#include "net/tunnel/tunnel.h"

namespace bulkhead::plant {

// A word with the line it stands on, for references that are resolved later.
struct Reference {
  std::string name;
  uint32_t line = 0;
  [[nodiscard]] bool given() const { return !name.empty(); }
};

struct SwitchConfig {
  std::string name;
  uint32_t line = 0;
  std::optional<net::frame::IpPrefix> network;  // what its cards' addresses lie in
  // Where readiness is asked from; without it the last address of the network.
  std::optional<net::frame::IpAddress> probe_address;
  std::string capture;                 // a pcapng file of what passes; empty: none
  std::vector<Reference> captured;     // zones; empty: all of them
  uint64_t capture_bytes = 64u << 20;  // of two files that take turns
};

struct ZoneConfig {
  std::string name;
  uint32_t line = 0;
  std::string description;
  uint16_t vlan = 1;
};

// Ports of one zone with a policy of their own. Each zone has one of its own name that nobody needs to write.
struct GroupConfig {
  // Frames a second of a port in a zone's own group: more than machines send, and little beside what a switch carries.
  static constexpr uint64_t kZoneBroadcasts = 1'000, kZoneMulticasts = 10'000;

  uint32_t line = 0;
  Reference zone;
  net::switching::GroupPolicy policy;  // with the group's name and VLAN
  bool vlan_given = false;             // else that of the zone
};

struct AddressSetConfig {
  uint32_t line = 0;
  net::policy::AddressSet set;
};

struct ServiceConfig {
  uint32_t line = 0;
  net::policy::Service service;
};

struct ConduitConfig {
  uint32_t line = 0;
  net::policy::Conduit conduit;
  Reference from, to, from_addresses, to_addresses;
  std::vector<Reference> services;
};

struct CardConfig {
  uint32_t line = 0;
  Reference on;    // a switch; empty: the plant's only one
  Reference zone;  // or
  Reference group;
  std::optional<net::frame::IpAddress> address;
  std::optional<net::frame::MacAddress> mac;
  net::fault::FaultConfig faults, faults_out;  // of what it sends and of what it gets
  uint64_t fault_seed = 0;
  bool promiscuous = false;
  std::string model;  // of a machine's card, as for --nic; empty: virtio
};

struct ProbeConfig {
  enum class Kind : uint8_t { kNone, kTcp, kModbus, kHttp, kMqtt, kLog, kExec };
  Kind kind = Kind::kNone;
  uint32_t line = 0;
  uint16_t port = 0;
  uint8_t unit = 1;        // of kModbus
  uint16_t address = 0;    // of kModbus: a holding register
  std::string path = "/";  // of kHttp
  // Of kLog: what the machine writes to its console. Of kExec: a command that its agent runs, and that ends with 0.
  std::string text;
  uint64_t within_ns = 120'000'000'000;
  // Over the network, from a card of the supervisor's own.
  [[nodiscard]] bool asks_a_card() const { return kind != Kind::kNone && kind != Kind::kLog && kind != Kind::kExec; }
};

struct MachineConfig {
  std::string name;
  uint32_t line = 0;
  std::string file;  // vm.yaml, or
  // flags of "bulkhead run", in order
  std::vector<std::string> arguments;
  std::vector<CardConfig> cards;
  std::vector<Reference> after;
  ProbeConfig ready;
  bool restart = false;  // again when it ends by itself
};

struct LinkToOutside {
  enum class Kind : uint8_t { kNat, kTap, kTunnel };
  std::string name;
  uint32_t line = 0;
  Kind kind = Kind::kNat;
  CardConfig card;                    // where it is plugged in
  std::vector<std::string> forwards;  // of kNat
  bool reach_host = false;            // of kNat
  // Of kNat: where guests ask for names, behind the card's address, which is their gateway.
  std::optional<net::frame::IpAddress> names;
  std::string tap;  // of kTap
  // Of kTunnel: all but its key, which is a file; where it listens; the hosts at its other ends.
  net::tunnel::TunnelConfig tunnel;
  std::string key_file;
  net::tunnel::Endpoint listen{.address = {.family = net::frame::Family::kIpv6}, .port = 51820};
};

// Copies of what passes some ports of a switch, for one more port or a file.
struct MirrorConfig {
  std::string name;
  uint32_t line = 0;
  Reference on;                 // as of a card
  std::vector<Reference> from;  // zones, groups, machines, their cards, links; empty: all there is
  Reference to;                 // a machine's card or a link; or
  std::string capture;          // a pcapng file
  uint64_t capture_bytes = 64u << 20;
};

struct Plant {
  static constexpr size_t kMaximumSwitches = 16;
  static constexpr size_t kMaximumMirrors = 15;
  static constexpr size_t kMaximumMachines = 64;
  static constexpr size_t kMaximumCards = 8;
  static constexpr size_t kMaximumLinks = 16;
  static constexpr size_t kMaximumGroups = 128;
  static constexpr size_t kMaximumName = 32;

  std::string file;       // as errors name it
  std::string directory;  // relative paths count from it
  std::string name;
  std::vector<SwitchConfig> switches;
  std::vector<ZoneConfig> zones;
  std::vector<GroupConfig> groups;
  std::vector<AddressSetConfig> addresses;
  std::vector<ServiceConfig> services;
  std::vector<ConduitConfig> conduits;
  std::vector<MachineConfig> machines;
  std::vector<LinkToOutside> links;
  std::vector<MirrorConfig> mirrors;

  [[nodiscard]] const ZoneConfig* find_zone(std::string_view wanted) const;
  [[nodiscard]] const GroupConfig* find_group(std::string_view wanted) const;
  [[nodiscard]] const SwitchConfig* find_switch(std::string_view wanted) const;
  [[nodiscard]] const MachineConfig* find_machine(std::string_view wanted) const;
  // What a card has when all its references have been checked.
  [[nodiscard]] const SwitchConfig& switch_of(const CardConfig& card) const;
  [[nodiscard]] const GroupConfig& group_of(const CardConfig& card) const;
};

// Reads and checks plant.yaml.
Result<Plant> load_plant(const std::string& path);
// The same from text; name stands in errors, directory before relative paths.
Result<Plant> parse_plant(std::string_view text, const std::string& name, const std::string& directory);
// That every reference leads somewhere, and what no single value shows; fills in what was left out.
Result<> check_plant(Plant& plant);

}  // namespace bulkhead::plant
