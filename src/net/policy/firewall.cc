#include "net/policy/firewall.h"

#include <algorithm>

#include "net/frame/frame_builder.h"

namespace bulkhead::net::policy {
namespace {

using frame::Family, frame::Headers;
using switching::Passage;

// RFC 4861: neighbours find each other with these, and the hop limit says that no router passed them on.
bool is_neighbour_discovery(const Headers& headers) {
  return headers.icmp && headers.ip->source.family == Family::kIpv6 && headers.ip->hop_limit == 255 &&
         (headers.icmp->type == 135 || headers.icmp->type == 136);
}

bool contains(const std::vector<frame::IpPrefix>& prefixes, const frame::IpAddress& address) {
  return prefixes.empty() ||
         std::ranges::any_of(prefixes, [&](const auto& prefix) { return prefix.contains(address); });
}

std::optional<Transport> transport_of(const Headers& headers) {
  if (headers.tcp) return Transport::kTcp;
  if (headers.udp) return Transport::kUdp;
  if (headers.icmp) return Transport::kPing;
  return std::nullopt;
}

}  // namespace

bool is_pass(Reason reason) {
  return reason <= Reason::kFragment;
}

std::string_view to_string(Reason reason) {
  switch (reason) {
    case Reason::kWithinZone:
      return "within a zone";
    case Reason::kRule:
      return "named by a conduit";
    case Reason::kConnection:
      return "part of a connection";
    case Reason::kErrorMessage:
      return "an error message about a connection";
    case Reason::kNeighbours:
      return "neighbours of joined zones find each other";
    case Reason::kFragment:
      return "a fragment of a packet that passed";
    case Reason::kNoZone:
      return "a port without a zone";
    case Reason::kNoRule:
      return "no conduit names it";
    case Reason::kMalformed:
      return "malformed headers";
    case Reason::kWrongState:
      return "not what the connection's state allows";
    case Reason::kNoStart:
      return "no connection, and not the beginning of one";
    case Reason::kFull:
      return "too many connections";
    case Reason::kLateFragment:
      return "a fragment without a first one, or over its bytes";
    case Reason::kStrangeHeaders:
      return "IP options, routing headers, or fragments and urgent bytes of an inspected connection";
    case Reason::kInspection:
      return "what the connection says is not allowed";
    case Reason::kRepeat:
      return "out of order in an inspected connection";
  }
  return "";
}

Firewall::Firewall(CompiledPlan plan, const ConnectionLimits& limits, uint64_t secret)
    : plan_(std::move(plan)), connections_(limits, secret), fragments_(secret), rule_counts_(plan_.rules().size()) {}

void Firewall::set_plan(CompiledPlan plan) {
  connections_.clear();
  plan_ = std::move(plan);
  fragments_.clear();
  rule_counts_.assign(plan_.rules().size(), 0);
}

void Firewall::remove_port(switching::PortId port) {
  zones_.erase(port);
  connections_.forget_port(port);
  fragments_.forget_port(port);
}

bool Firewall::lets_through(const Passage& passage) {
  return judge(passage).passes();
}

Verdict Firewall::judge(const Passage& passage) {
  const auto from = zones_.find(passage.from), to = zones_.find(passage.to);
  Verdict verdict{.reason = Reason::kNoZone, .rule = std::nullopt};
  if (from != zones_.end() && to != zones_.end() && from->second < plan_.zone_count() &&
      to->second < plan_.zone_count()) {
    verdict = judge_between(passage, from->second, to->second);
  }
  ++reason_counts_[static_cast<size_t>(verdict.reason)];
  if (verdict.rule) ++rule_counts_[*verdict.rule];
  // What inspection refuses it remembers itself, once a connection. What is for everybody is no attempt at anything,
  // but a question for an address is the beginning of one.
  const bool is_attempt = !passage.headers.destination.is_group() || passage.headers.arp;
  if (!verdict.passes() && is_attempt && verdict.reason != Reason::kInspection && verdict.reason != Reason::kRepeat) {
    remember({.time_ns = passage.now_ns,
              .from = passage.from,
              .to = passage.to,
              .reason = verdict.reason,
              .type = passage.headers.type,
              .flow = passage.headers.arp
                          ? Flow{.source = passage.headers.arp->sender, .destination = passage.headers.arp->target}
                          : Flow::of(passage.headers)});
  }
  return verdict;
}

bool Firewall::inspects(switching::PortId port) const {
  const auto from = zones_.find(port);
  if (from == zones_.end() || from->second >= plan_.zone_count()) return false;
  for (ZoneId to = 0; to < plan_.zone_count(); ++to) {
    for (const uint32_t rule : plan_.between(from->second, to)) {
      if (plan_.rules()[rule].modbus) return true;
    }
  }
  return false;
}

void Firewall::remember(Refusal refusal) {
  ++refused_count_;
  if (refusals_.size() == kRememberedRefusals) refusals_.pop_front();
  refusals_.push_back(std::move(refusal));
}

Verdict Firewall::judge_between(const Passage& passage, ZoneId from, ZoneId to) {
  if (from == to) return {.reason = Reason::kWithinZone};
  if (passage.headers.fault != frame::Fault::kNone) return {.reason = Reason::kMalformed};
  if (const auto verdict = judge_link(passage, from, to)) return *verdict;
  return judge_ip(passage, from, to);
}

// What is not IP.
std::optional<Verdict> Firewall::judge_link(const Passage& passage, ZoneId from, ZoneId to) const {
  const Headers& headers = passage.headers;
  if (headers.arp || (headers.ip && is_neighbour_discovery(headers))) {
    return Verdict{.reason = plan_.are_joined(from, to) ? Reason::kNeighbours : Reason::kNoRule};
  }
  if (headers.ip) return std::nullopt;
  // There is no state to tell answers by, so a conduit for a frame type is open in both directions.
  for (const auto& [one, other] : {std::pair(from, to), std::pair(to, from)}) {
    const auto rule = find_rule({.from = one, .to = other, .transport = Transport::kEthernet, .port = headers.type});
    if (rule) return Verdict{.reason = Reason::kRule, .rule = rule};
  }
  return Verdict{.reason = Reason::kNoRule};
}

Verdict Firewall::judge_ip(const Passage& passage, ZoneId from, ZoneId to) {
  const frame::Ip& ip = *passage.headers.ip;
  // Source routes lead around a filter, and no service here needs the rest.
  const bool options = ip.has_options && !(ip.source.family == Family::kIpv6 && ip.fragment);
  if (options || ip.has_routing_header) return {.reason = Reason::kStrangeHeaders};
  if (!ip.fragment) return judge_flow(passage, from, to);
  if (ip.fragment->offset != 0) {
    const bool known = fragments_.continues(ip, passage.vlan, passage.from, passage.to, passage.now_ns);
    return {.reason = known ? Reason::kFragment : Reason::kLateFragment};
  }
  const Verdict verdict = judge_flow(passage, from, to);
  if (!verdict.passes()) return verdict;
  if (!fragments_.begin(ip, passage.vlan, passage.from, passage.to, passage.now_ns)) return {.reason = Reason::kFull};
  return verdict;
}

Verdict Firewall::judge_flow(const Passage& passage, ZoneId from, ZoneId to) {
  const Headers& headers = passage.headers;
  if (headers.icmp && frame::is_icmp_error(*headers.ip, *headers.icmp)) {
    const auto quoted =
        frame::read_quoted(headers.ip->source.family,
                           passage.frame.subspan(headers.transport_payload_offset, headers.transport_payload_size));
    // The quoted packet was sent by whoever gets the error.
    const bool about = quoted && quoted->source == headers.ip->destination &&
                       connections_.is_open(Flow::of(*quoted), passage.vlan, passage.to, passage.from, passage.now_ns);
    return {.reason = about ? Reason::kErrorMessage : Reason::kNoStart};
  }
  const std::optional<Flow> flow = Flow::of(headers);
  if (!flow) return {.reason = Reason::kNoRule};
  switch (connections_.follow(*flow, headers, passage.vlan, passage.from, passage.to, passage.now_ns)) {
    case ConnectionTable::Match::kPart:
      return inspect(passage, {.reason = Reason::kConnection, .rule = connections_.last_rule()});
    case ConnectionTable::Match::kWrong:
      return {.reason = Reason::kWrongState};
    case ConnectionTable::Match::kNone:
      return begin(passage, *flow, from, to);
  }
  return {.reason = Reason::kNoRule};
}

Verdict Firewall::begin(const Passage& passage, const Flow& flow, ZoneId from, ZoneId to) {
  const auto transport = transport_of(passage.headers);
  if (!transport) return {.reason = Reason::kNoRule};
  const auto rule = find_rule({.from = from,
                               .to = to,
                               .source = flow.source,
                               .destination = flow.destination,
                               .transport = *transport,
                               .port = flow.destination_port});
  if (!rule) return {.reason = Reason::kNoRule};
  const Rule& decided = plan_.rules()[*rule];
  // Bytes that come with SYN, or in pieces, would get past inspection.
  if (decided.modbus && (passage.headers.ip->fragment || passage.headers.transport_payload_size != 0)) {
    return {.reason = Reason::kStrangeHeaders};
  }
  // No state: nothing that comes back is ever an answer.
  if (decided.direction == Direction::kOneWay) return {.reason = Reason::kRule, .rule = rule};
  switch (connections_.open(flow, passage.headers, passage.vlan, passage.from, passage.to, *rule, passage.now_ns,
                            decided.modbus.get())) {
    case ConnectionTable::Opened::kOpened:
      return {.reason = Reason::kRule, .rule = rule};
    case ConnectionTable::Opened::kNoStart:
      return {.reason = Reason::kNoStart};
    case ConnectionTable::Opened::kFull:
      return {.reason = Reason::kFull};
  }
  return {.reason = Reason::kNoRule};
}

// ---- What a connection says ----

Verdict Firewall::inspect(const Passage& passage, Verdict verdict) {
  using Outcome = inspect::ModbusInspector::Outcome;
  ConnectionTable::Inspection* const inspection = connections_.last_inspection();
  if (inspection == nullptr) return verdict;
  const Headers& headers = passage.headers;
  const frame::Tcp& tcp = *headers.tcp;
  if (headers.ip->fragment) return {.reason = Reason::kStrangeHeaders};
  if (!connections_.last_from_start()) {
    if ((tcp.flags & frame::kTcpAcknowledge) != 0) inspection->modbus.on_server(tcp.acknowledgement);
    return verdict;
  }
  // A receiver may take an urgent byte out of the stream, and then read another one than was looked at.
  if ((tcp.flags & frame::kTcpUrgent) != 0) return {.reason = Reason::kStrangeHeaders};
  const ByteSpan payload = passage.frame.subspan(headers.transport_payload_offset, headers.transport_payload_size);
  if ((tcp.flags & frame::kTcpSyn) != 0) {
    const bool same = payload.empty() && tcp.sequence + 1 == inspection->first_sequence;
    return same ? verdict : Verdict{.reason = Reason::kWrongState};
  }
  if (payload.empty()) return verdict;
  const auto inspected = inspection->modbus.on_client(tcp.sequence, payload);
  if (inspected.outcome == Outcome::kPass) return verdict;
  if (inspected.outcome == Outcome::kDrop) return {.reason = Reason::kRepeat, .rule = verdict.rule};
  if (!std::exchange(inspection->reported, true)) refuse_request(passage, inspected, *verdict.rule);
  return {.reason = Reason::kInspection, .rule = verdict.rule};
}

void Firewall::refuse_request(const Passage& passage, const inspect::ModbusInspector::Inspected& inspected,
                              uint32_t rule) {
  const Headers& headers = passage.headers;
  remember({.time_ns = passage.now_ns,
            .from = passage.from,
            .to = passage.to,
            .reason = Reason::kInspection,
            .type = headers.type,
            .flow = Flow::of(headers),
            .modbus = inspected.verdict,
            .request = inspected.request,
            .rule = rule});
  if (plan_.rules()[rule].refuse != Refuse::kAnswer || answers_.size() + 2 > kWaitingAnswers) return;
  const frame::Tcp& tcp = *headers.tcp;
  const auto between = [&](const frame::IpAddress& source, const frame::IpAddress& destination) {
    frame::FrameBuilder builder;
    return source.family == Family::kIpv4 ? builder.ipv4(source.to_string(), destination.to_string())
                                          : builder.ipv6(source.to_string(), destination.to_string());
  };
  // The exception is the server's last word; without a request to answer, it hangs up.
  const bool can_answer = inspected.verdict != inspect::ModbusVerdict::kMalformed;
  const auto refusal =
      can_answer ? inspect::modbus_refusal(inspected.request, inspected.verdict) : std::vector<uint8_t>();
  const auto end = static_cast<uint32_t>(tcp.sequence + headers.transport_payload_size);
  const uint8_t last = can_answer ? frame::kTcpFin | frame::kTcpPush : frame::kTcpReset;
  answers_.push_back({.to = passage.from,
                      .vlan = passage.vlan,
                      .frame = between(headers.ip->destination, headers.ip->source)
                                   .ethernet(headers.destination, headers.source)
                                   .tcp(tcp.destination_port, tcp.source_port,
                                        static_cast<uint8_t>(last | frame::kTcpAcknowledge), tcp.acknowledgement, end)
                                   .payload(ByteSpan(refusal))
                                   .build()});
  answers_.push_back({.to = passage.to,
                      .vlan = passage.vlan,
                      .frame = between(headers.ip->source, headers.ip->destination)
                                   .ethernet(headers.source, headers.destination)
                                   .tcp(tcp.source_port, tcp.destination_port,
                                        frame::kTcpReset | frame::kTcpAcknowledge, tcp.sequence, tcp.acknowledgement)
                                   .build()});
}

std::optional<uint32_t> Firewall::find_rule(const Question& question) const {
  for (const uint32_t index : plan_.between(question.from, question.to)) {
    const Rule& rule = plan_.rules()[index];
    const bool named = std::ranges::any_of(rule.service.ports, [&](const ServicePorts& ports) {
      if (ports.transport != question.transport) return false;
      return ports.transport == Transport::kPing || (question.port >= ports.first && question.port <= ports.last);
    });
    if (!named) continue;
    // A frame that is not IP has no addresses that a set could hold.
    const bool any = rule.from.empty() && rule.to.empty();
    if (question.transport == Transport::kEthernet
            ? any
            : contains(rule.from, question.source) && contains(rule.to, question.destination)) {
      return index;
    }
  }
  return std::nullopt;
}

Verdict Firewall::decide(const Question& question) const {
  if (question.from >= plan_.zone_count() || question.to >= plan_.zone_count()) return {.reason = Reason::kNoZone};
  if (question.from == question.to) return {.reason = Reason::kWithinZone};
  const auto rule = find_rule(question);
  if (!rule) return {.reason = Reason::kNoRule};
  return {.reason = Reason::kRule, .rule = rule};
}

std::string Firewall::explain(const Question& question) const {
  const Verdict verdict = decide(question);
  const auto zone = [this](ZoneId id) { return id < plan_.zone_count() ? plan_.zone_name(id) : std::string("none"); };
  const std::string what = fmt::format("{} -> {}", zone(question.from), zone(question.to));
  if (!verdict.rule) {
    return fmt::format("{}: {}: {}", what, verdict.passes() ? "passes" : "dropped", to_string(verdict.reason));
  }
  const Rule& rule = plan_.rules()[*verdict.rule];
  return fmt::format("{}: passes: {}{}", what, rule.name, rule.direction == Direction::kOneWay ? " (one way)" : "");
}

}  // namespace bulkhead::net::policy
