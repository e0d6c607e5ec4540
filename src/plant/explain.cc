#include "plant/explain.h"

#include <algorithm>
#include <set>

#include "net/policy/firewall.h"
#include "plant/compile.h"
#include "plant/values.h"

namespace bulkhead::plant {
namespace {

using net::policy::CompiledPlan, net::policy::Rule, net::policy::ServicePorts, net::policy::Transport;
using net::policy::ZoneId;

// A card, a link's far side, or any card of a zone; of the latter two nobody knows the address.
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
  const std::string text = fmt::format("{}/{}", ports.transport == Transport::kTcp ? "tcp" : "udp", ports.first);
  return ports.first == ports.last ? text : fmt::format("{}-{}", text, ports.last);
}

bool names(const Rule& rule, const ServicePorts& asked) {
  return std::ranges::any_of(rule.service.ports, [&](const ServicePorts& ports) {
    return ports.transport == asked.transport && ports.first <= asked.first && asked.last <= ports.last;
  });
}

enum class Fit : uint8_t { kNever, kSometimes, kAlways };

Fit fit(const std::vector<net::frame::IpPrefix>& prefixes, const End& end) {
  if (prefixes.empty()) return Fit::kAlways;
  if (!end.address) return Fit::kSometimes;
  const bool contained = std::ranges::any_of(prefixes, [&](const auto& each) { return each.contains(*end.address); });
  return contained ? Fit::kAlways : Fit::kNever;
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
  Explainer(const Plant& plant, const ExplainQuestion& question, CompiledPlan plan)
      : plant_(plant), question_(question), plan_(std::move(plan)) {}

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
    const ZoneId from = TRY(plan_.zone(source.zone)), to = TRY(plan_.zone(target.zone));
    const auto what = [&](const ServicePorts& of) {
      return fmt::format("{} ({}{}) -> {} ({}{}) {}", source.label, source.zone, address_text(source), target.label,
                         target.zone, address_text(target), ports_text(of));
    };
    const bool apart = !source.on.empty() && !target.on.empty() &&
                       (source.on != target.on || (source.vlan != 0 && target.vlan != 0 && source.vlan != target.vlan));
    if (apart) {
      add(false, fmt::format("{}: dropped: {}", what(ports),
                             source.on != target.on ? "on different switches" : "in different VLANs"));
    } else if (from == to) {
      const bool passes = !is_group_apart(source, target);
      add(passes, fmt::format("{}: {}", what(ports),
                              passes ? "passes: within a zone" : "dropped: their port group keeps its ports apart"));
    } else {
      for (const ServicePorts& part : parts_of(ports, plan_.between(from, to))) {
        between_zones(source, target, part, what(part), plan_.between(from, to));
      }
    }
    return {};
  }

  // Ports about which the same rules decide.
  [[nodiscard]] std::vector<ServicePorts> parts_of(const ServicePorts& ports,
                                                   const std::vector<uint32_t>& rules) const {
    std::set<uint32_t> begins{ports.first};
    for (const uint32_t rule : rules) {
      for (const ServicePorts& named : plan_.rules()[rule].service.ports) {
        if (named.transport != ports.transport) continue;
        for (const uint32_t begin : {uint32_t{named.first}, named.last + 1u}) {
          if (begin > ports.first && begin <= ports.last) begins.insert(begin);
        }
      }
    }
    std::vector<ServicePorts> parts;
    for (const uint32_t begin : begins) {
      if (!parts.empty()) parts.back().last = static_cast<uint16_t>(begin - 1);
      ServicePorts part = ports;
      part.first = static_cast<uint16_t>(begin);
      parts.push_back(part);
    }
    return parts;
  }

  void between_zones(const End& source, const End& target, const ServicePorts& ports, const std::string& what,
                     const std::vector<uint32_t>& rules) {
    bool any = false;
    for (const uint32_t index : rules) {
      const Rule& rule = plan_.rules()[index];
      if (!names(rule, ports)) continue;
      const Fit from = fit(rule.from, source), to = fit(rule.to, target);
      if (from == Fit::kNever || to == Fit::kNever) continue;
      // A frame that is not IP has no addresses that a set could hold.
      if (ports.transport == Transport::kEthernet && !(rule.from.empty() && rule.to.empty())) continue;
      const ConduitConfig& conduit = plant_.conduits[rule.conduit];
      std::string addresses;
      if (from == Fit::kSometimes) addresses += fmt::format(" from addresses '{}'", conduit.from_addresses.name);
      if (to == Fit::kSometimes) addresses += fmt::format(" to addresses '{}'", conduit.to_addresses.name);
      explanation_.lines.push_back(fmt::format("{}: passes{}: {}, {}:{}{}", what, addresses, rule.name, plant_.file,
                                               conduit.line,
                                               rule.direction == net::policy::Direction::kOneWay ? " (one way)" : ""));
      count(judge_request(rule));
      if (from == Fit::kAlways && to == Fit::kAlways) return;
      any = true;
    }
    add(false, fmt::format("{}: dropped{}: {}", what, any ? " with other addresses" : "",
                           to_string(net::policy::Reason::kNoRule)));
  }

  void add(bool passes, std::string line) {
    explanation_.lines.push_back(std::move(line));
    count(passes);
  }

  void count(bool passes) {
    (passes ? passes_ : is_dropped_) = true;
    using Passes = Explanation::Passes;
    explanation_.passes = !passes_ ? Passes::kNothing : is_dropped_ ? Passes::kSome : Passes::kEverything;
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
  const CompiledPlan plan_;
  std::optional<net::inspect::ModbusRequest> request_;
  bool passes_ = false, is_dropped_ = false;  // something is
  Explanation explanation_;
};

}  // namespace

Result<Explanation> explain(const Plant& plant, const ExplainQuestion& question) {
  return Explainer(plant, question, TRY(CompiledPlan::compile(policy_of(plant)))).explain();
}

}  // namespace bulkhead::plant
