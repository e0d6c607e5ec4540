#include "plant/explain.h"

#include <algorithm>

#include "net/policy/firewall.h"
#include "plant/compile.h"
#include "plant/values.h"

namespace bulkhead::plant {
namespace {

using net::policy::Firewall, net::policy::Rule, net::policy::ServicePorts, net::policy::Transport;

// A card, a link's far side, or any card of a zone.
struct End {
  std::string label;
  std::string zone;
  std::string on;  // the switch; empty: any
  uint16_t vlan = 0;
  std::optional<net::frame::IpAddress> address;
};

std::string address_text(const End& end) {
  return end.address ? fmt::format(", {}", end.address->to_string()) : std::string();
}

End end_of(const Plant& plant, const CardConfig& card, std::string label) {
  const GroupConfig& group = plant.group_of(card);
  const bool is_trunk = group.policy.mode == net::switching::VlanMode::kTrunk;
  return {.label = std::move(label),
          .zone = group.zone.name,
          .on = card.on.name,
          .vlan = is_trunk ? uint16_t{0} : group.policy.vlan,
          .address = card.address};
}

Result<std::vector<End>> ends_of(const Plant& plant, const std::string& name, std::string_view option) {
  std::vector<End> ends;
  if (const MachineConfig* const machine = plant.find_machine(name)) {
    for (size_t i = 0; i < machine->cards.size(); ++i) {
      ends.push_back(end_of(plant, machine->cards[i], port_name(*machine, i)));
    }
    if (ends.empty()) return fail("{} '{}': has no network card", option, name);
    return ends;
  }
  const auto link = std::ranges::find(plant.links, name, &LinkToOutside::name);
  if (link != plant.links.end()) {
    ends.push_back(end_of(plant, link->card, name));
    ends.back().address.reset();
    return ends;
  }
  if (plant.find_zone(name) != nullptr) return std::vector{End{.label = name, .zone = name}};
  std::vector<std::string_view> known;
  for (const MachineConfig& each : plant.machines) known.push_back(each.name);
  for (const LinkToOutside& each : plant.links) known.push_back(each.name);
  for (const ZoneConfig& each : plant.zones) known.push_back(each.name);
  return fail("{} '{}': no machine, link or zone; allowed: {}", option, name, fmt::join(known, ", "));
}

std::string ports_text(const ServicePorts& ports) {
  switch (ports.transport) {
    case Transport::kPing:
      return "ping";
    case Transport::kEthernet:
      return fmt::format("frames of type {:#06x}", ports.first);
    case Transport::kTcp:
    case Transport::kUdp:
      break;
  }
  return fmt::format("{}/{}", ports.transport == Transport::kTcp ? "tcp" : "udp", ports.first);
}

Result<net::inspect::ModbusRequest> request_of(const ExplainQuestion& question) {
  net::inspect::ModbusRequest request{.unit = question.unit};
  if (question.modbus == "read") {
    request.function = 3;
  } else if (question.modbus == "write") {
    request.function = 16;
  } else {
    const auto code = parse_number(question.modbus, 1, 127);
    if (!code) return fail("--modbus '{}': allowed: read, write or a function code of 1 to 127", question.modbus);
    request.function = static_cast<uint8_t>(*code);
  }
  const bool has_addresses = (net::inspect::modbus_reads() | net::inspect::modbus_writes()).test(request.function);
  if (has_addresses) request.ranges[request.range_count++] = {question.first_address, question.last_address};
  return request;
}

class Explainer {
 public:
  Explainer(const Plant& plant, const ExplainQuestion& question, net::policy::CompiledPlan plan)
      : plant_(plant), question_(question), firewall_(std::move(plan), {}, 0) {}

  Result<Explanation> explain() {
    const auto from = TRY(ends_of(plant_, question_.from, "--from"));
    const auto to = TRY(ends_of(plant_, question_.to, "--to"));
    const auto own = std::ranges::find(plant_.services, question_.service,
                                       [](const ServiceConfig& each) { return each.service.name; });
    const net::policy::Service service =
        own != plant_.services.end() ? own->service : TRY(net::policy::find_service(question_.service));
    if (!question_.modbus.empty()) request_ = TRY(request_of(question_));
    for (const End& source : from) {
      for (const End& target : to) {
        for (const ServicePorts& ports : service.ports) TRY(pair(source, target, ports));
      }
    }
    return std::move(explanation_);
  }

 private:
  Result<> pair(const End& source, const End& target, const ServicePorts& ports) {
    const std::string what = fmt::format("{} ({}{}) -> {} ({}{}) {}", source.label, source.zone, address_text(source),
                                         target.label, target.zone, address_text(target), ports_text(ports));
    const bool apart = !source.on.empty() && !target.on.empty() &&
                       (source.on != target.on || (source.vlan != 0 && target.vlan != 0 && source.vlan != target.vlan));
    if (apart) {
      explanation_.lines.push_back(fmt::format(
          "{}: dropped: {}", what, source.on != target.on ? "on different switches" : "in different VLANs"));
      return {};
    }
    const Firewall::Question asked{.from = TRY(firewall_.plan().zone(source.zone)),
                                   .to = TRY(firewall_.plan().zone(target.zone)),
                                   .source = source.address.value_or(net::frame::IpAddress{}),
                                   .destination = target.address.value_or(net::frame::IpAddress{}),
                                   .transport = ports.transport,
                                   .port = ports.first};
    const net::policy::Verdict verdict = firewall_.decide(asked);
    if (!verdict.rule) {
      const bool within = asked.from == asked.to;
      const bool passes = verdict.passes() && !is_group_apart(source, target);
      explanation_.passes |= passes;
      explanation_.lines.push_back(
          fmt::format("{}: {}: {}", what, passes ? "passes" : "dropped",
                      within && !passes ? "their port group keeps its ports apart" : to_string(verdict.reason)));
      return {};
    }
    const Rule& rule = firewall_.plan().rules()[*verdict.rule];
    const ConduitConfig& conduit = plant_.conduits[rule.conduit];
    const std::string place = fmt::format("{}, {}:{}", rule.name, plant_.file, conduit.line);
    explanation_.lines.push_back(fmt::format("{}: passes: {}{}", what, place,
                                             rule.direction == net::policy::Direction::kOneWay ? " (one way)" : ""));
    explanation_.passes |= judge_request(rule);
    return {};
  }

  // Ends that are whole zones stand for any of their groups.
  [[nodiscard]] bool is_group_apart(const End& source, const End& target) const {
    if (source.on.empty() || target.on.empty() || source.zone != target.zone) return false;
    const auto group = [this](const End& end) -> const GroupConfig* {
      for (const MachineConfig& machine : plant_.machines) {
        for (size_t i = 0; i < machine.cards.size(); ++i) {
          if (port_name(machine, i) == end.label) return &plant_.group_of(machine.cards[i]);
        }
      }
      return nullptr;
    };
    const GroupConfig* const one = group(source);
    return one != nullptr && one == group(target) && one->policy.within_group == net::switching::Permission::kDeny;
  }

  bool judge_request(const Rule& rule) {
    if (!request_) return true;
    if (!rule.modbus) {
      explanation_.lines.emplace_back("  Modbus requests are not inspected by this conduit: all of them pass");
      return true;
    }
    const auto verdict = net::inspect::judge(*rule.modbus, *request_);
    const bool allowed = verdict == net::inspect::ModbusVerdict::kAllowed;
    std::string asked = fmt::format("function {} to unit {}", request_->function, request_->unit);
    if (request_->range_count != 0) {
      asked += fmt::format(", addresses {} to {}", request_->ranges[0].first, request_->ranges[0].last);
    }
    explanation_.lines.push_back(
        fmt::format("  Modbus {}: {}{}", asked, allowed ? "passes" : fmt::format("refused: {}", to_string(verdict)),
                    allowed                                       ? ""
                    : rule.refuse == net::policy::Refuse::kAnswer ? "; answered by an exception"
                                                                  : "; dropped"));
    return allowed;
  }

  const Plant& plant_;
  const ExplainQuestion& question_;
  const Firewall firewall_;
  std::optional<net::inspect::ModbusRequest> request_;
  Explanation explanation_;
};

}  // namespace

Result<Explanation> explain(const Plant& plant, const ExplainQuestion& question) {
  return Explainer(plant, question, TRY(net::policy::CompiledPlan::compile(policy_of(plant)))).explain();
}

}  // namespace bulkhead::plant
