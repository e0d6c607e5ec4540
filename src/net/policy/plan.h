// A plant's segmentation as IEC 62443-3-2 puts it: zones, and conduits between them that let through what they name and
// nothing else. Plain values by name; compile() checks them and makes rules that are looked up by zone.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/frame/address.h"
#include "net/inspect/modbus.h"
#include "net/policy/service.h"
#include "support/result.h"

namespace bulkhead::net::policy {

struct AddressSet {
  std::string name;
  std::vector<frame::IpPrefix> prefixes;
};

enum class Direction : uint8_t {
  kAnswered,  // answers come back
  kOneWay,    // UDP forward, and nothing ever back (a data diode)
};

// What becomes of a request that inspection refuses.
enum class Refuse : uint8_t {
  kDrop,    // nothing: the client waits in vain
  kAnswer,  // a Modbus exception to the client, and the end of the connection to both
};

struct Conduit {
  std::string name;
  std::string from;  // zones
  std::string to;
  std::vector<std::string> services;
  // Names of address sets; empty: any address.
  std::string from_addresses;
  std::string to_addresses;
  Direction direction = Direction::kAnswered;
  // Looks into the conduit's connections, which are Modbus/TCP all of them; none: they say what they like.
  std::optional<inspect::ModbusPolicy> modbus;
  Refuse refuse = Refuse::kDrop;
};

struct Plan {
  std::vector<std::string> zones;
  std::vector<AddressSet> address_sets;
  std::vector<Service> services;  // besides those that find_service() knows
  std::vector<Conduit> conduits;

  static constexpr size_t kMaximumZones = 256;
  static constexpr size_t kMaximumConduits = 1024;
  static constexpr size_t kMaximumPrefixes = 4096;  // of one set
};

using ZoneId = uint16_t;

struct Rule {
  std::string name;  // "conduit 'historian': modbus"
  Service service;
  std::vector<frame::IpPrefix> from;  // empty: any
  std::vector<frame::IpPrefix> to;
  Direction direction = Direction::kAnswered;
  uint32_t conduit = 0;  // its index in the plan
  std::shared_ptr<const inspect::ModbusPolicy> modbus;
  Refuse refuse = Refuse::kDrop;
};

class CompiledPlan {
 public:
  static Result<CompiledPlan> compile(const Plan& plan);

  [[nodiscard]] Result<ZoneId> zone(std::string_view name) const;
  [[nodiscard]] const std::string& zone_name(ZoneId zone) const { return zones_[zone]; }
  [[nodiscard]] size_t zone_count() const { return zones_.size(); }
  [[nodiscard]] const std::vector<Rule>& rules() const { return rules_; }
  // Indices of rules from one zone to another, in the order of the plan.
  [[nodiscard]] const std::vector<uint32_t>& between(ZoneId from, ZoneId to) const;
  // Whether something is answered between them, so that each must find the other (ARP, neighbour discovery).
  [[nodiscard]] bool are_joined(ZoneId one, ZoneId other) const;

 private:
  std::vector<std::string> zones_;
  std::vector<Rule> rules_;
  std::map<std::pair<ZoneId, ZoneId>, std::vector<uint32_t>> between_;
};

}  // namespace bulkhead::net::policy
