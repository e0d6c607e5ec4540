#include "net/policy/plan.h"

#include <algorithm>

namespace bulkhead::net::policy {
namespace {

Result<std::vector<frame::IpPrefix>> find_set(const Plan& plan, const std::string& name) {
  if (name.empty()) return std::vector<frame::IpPrefix>();
  const auto found = std::ranges::find(plan.address_sets, name, &AddressSet::name);
  if (found == plan.address_sets.end()) return fail("no address set '{}'", name);
  // An empty list would stand for any address.
  if (found->prefixes.empty()) return fail("address set '{}' is empty", name);
  if (found->prefixes.size() > Plan::kMaximumPrefixes) {
    return fail("address set '{}': more than the {} prefixes allowed", name, Plan::kMaximumPrefixes);
  }
  return found->prefixes;
}

Result<Service> find_service_of(const Plan& plan, const std::string& name) {
  const auto own = std::ranges::find(plan.services, name, &Service::name);
  if (own != plan.services.end()) return *own;
  return find_service(name);
}

Result<> check_one_way(const Service& service) {
  const bool all_udp =
      std::ranges::all_of(service.ports, [](const ServicePorts& ports) { return ports.transport == Transport::kUdp; });
  if (!all_udp) return fail("service '{}' needs answers; a one-way conduit carries UDP alone", service.name);
  return {};
}

Result<> check_inspected(const Conduit& conduit, const Service& service) {
  const bool all_tcp =
      std::ranges::all_of(service.ports, [](const ServicePorts& ports) { return ports.transport == Transport::kTcp; });
  if (!all_tcp) return fail("service '{}' is not TCP alone, so it cannot be inspected as Modbus/TCP", service.name);
  if (conduit.modbus->rules.size() > inspect::ModbusPolicy::kMaximumRules) {
    return fail("more than the {} Modbus rules allowed", inspect::ModbusPolicy::kMaximumRules);
  }
  return {};
}

}  // namespace

Result<CompiledPlan> CompiledPlan::compile(const Plan& plan) {
  CompiledPlan compiled;
  if (plan.zones.size() > Plan::kMaximumZones) return fail("more than the {} zones allowed", Plan::kMaximumZones);
  if (plan.conduits.size() > Plan::kMaximumConduits) {
    return fail("more than the {} conduits allowed", Plan::kMaximumConduits);
  }
  for (const std::string& zone : plan.zones) {
    if (std::ranges::find(compiled.zones_, zone) != compiled.zones_.end()) return fail("zone '{}' stands twice", zone);
    compiled.zones_.push_back(zone);
  }
  for (uint32_t index = 0; index < plan.conduits.size(); ++index) {
    const Conduit& conduit = plan.conduits[index];
    const std::string label = fmt::format("conduit '{}'", conduit.name);
    const ZoneId from = TRY_IN(label, compiled.zone(conduit.from));
    const ZoneId to = TRY_IN(label, compiled.zone(conduit.to));
    if (from == to) return fail("{}: zone '{}' on both ends; within a zone everything passes", label, conduit.from);
    if (conduit.services.empty()) return fail("{}: names no service", label);
    std::shared_ptr<const inspect::ModbusPolicy> modbus;
    if (conduit.modbus) modbus = std::make_shared<const inspect::ModbusPolicy>(*conduit.modbus);
    for (const std::string& name : conduit.services) {
      Rule rule{.name = fmt::format("{}: {}", label, name),
                .service = TRY_IN(label, find_service_of(plan, name)),
                .from = TRY_IN(label, find_set(plan, conduit.from_addresses)),
                .to = TRY_IN(label, find_set(plan, conduit.to_addresses)),
                .direction = conduit.direction,
                .conduit = index,
                .modbus = modbus,
                .refuse = conduit.refuse};
      if (conduit.direction == Direction::kOneWay) TRY_IN(label, check_one_way(rule.service));
      if (modbus) TRY_IN(label, check_inspected(conduit, rule.service));
      compiled.between_[{from, to}].push_back(static_cast<uint32_t>(compiled.rules_.size()));
      compiled.rules_.push_back(std::move(rule));
    }
  }
  return compiled;
}

Result<ZoneId> CompiledPlan::zone(std::string_view name) const {
  const auto found = std::ranges::find(zones_, name);
  if (found == zones_.end()) return fail("no zone '{}'; allowed: {}", name, fmt::join(zones_, ", "));
  return static_cast<ZoneId>(found - zones_.begin());
}

const std::vector<uint32_t>& CompiledPlan::between(ZoneId from, ZoneId to) const {
  static const std::vector<uint32_t> kNone;
  const auto found = between_.find({from, to});
  return found == between_.end() ? kNone : found->second;
}

bool CompiledPlan::are_joined(ZoneId one, ZoneId other) const {
  const auto answered = [this](uint32_t rule) { return rules_[rule].direction == Direction::kAnswered; };
  return std::ranges::any_of(between(one, other), answered) || std::ranges::any_of(between(other, one), answered);
}

}  // namespace bulkhead::net::policy
