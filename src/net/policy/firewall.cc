#include "net/policy/firewall.h"

#include <algorithm>

#include "net/frame/big_endian.h"
#include "net/policy/segments.h"

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

Firewall::Firewall(CompiledPlan plan, const ConnectionLimits& limits, uint64_t secret)
    : plan_(std::move(plan)), connections_(limits, secret), fragments_(secret), rule_counts_(plan_.rules().size()) {}

void Firewall::set_plan(CompiledPlan plan) {
  connections_.clear();
  questions_.clear();
  plan_ = std::move(plan);
  fragments_.clear();
  rule_counts_.assign(plan_.rules().size(), 0);
}

void Firewall::remove_port(switching::PortId port, const std::string& name) {
  const auto zone = zones_.find(port);
  refusals_.remove_port(port, zone == zones_.end() ? ZoneId{0} : zone->second, name);
  zones_.erase(port);
  connections_.forget_port(port);
  questions_.forget_port(port);
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
  if (verdict.rule && verdict.passes()) ++rule_counts_[*verdict.rule];
  if (!verdict.passes()) note_refusal(passage, verdict.reason);
  return verdict;
}

// What inspection refuses it notes itself, once a connection. What others get too is no attempt at anything, and is
// counted; but a question for a card's address may be the beginning of one.
void Firewall::note_refusal(const Passage& passage, Reason reason) {
  const Headers& headers = passage.headers;
  if (reason == Reason::kInspection || reason == Reason::kRepeat || passage.is_flooded) return;
  const bool is_to_group = headers.destination.is_group();
  if (is_to_group && !passage.is_asked_for) return;
  refusals_.add(is_to_group ? RefusalLog::Kind::kQuestion : RefusalLog::Kind::kPacket,
                {.time_ns = passage.now_ns,
                 .from = passage.from,
                 .to = passage.to,
                 .reason = reason,
                 .type = headers.type,
                 .flow = headers.arp ? Flow{.source = headers.arp->sender, .destination = headers.arp->target}
                                     : Flow::of(headers)});
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
  const ByteSpan payload = passage.frame.subspan(headers.network_offset);
  const uint16_t id = payload.size() < sizeof(uint16_t) ? uint16_t{0} : frame::load_big16(payload.data());
  for (const auto& [one, other] : {std::pair(from, to), std::pair(to, from)}) {
    const auto rule =
        find_rule({.from = one, .to = other, .transport = Transport::kEthernet, .port = headers.type, .id = id});
    if (rule) return Verdict{.reason = Reason::kRule, .rule = rule};
  }
  return Verdict{.reason = Reason::kNoRule};
}

Verdict Firewall::judge_ip(const Passage& passage, ZoneId from, ZoneId to) {
  const frame::Ip& ip = *passage.headers.ip;
  // Source routes lead around a filter, and no service here needs the rest.
  if (ip.has_options || ip.has_routing_header) return {.reason = Reason::kStrangeHeaders};
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
                       connections_.is_open(Flow::of(*quoted), path_of(passage, from, to).reversed(), passage.now_ns);
    return {.reason = about ? Reason::kErrorMessage : Reason::kNoStart};
  }
  const std::optional<Flow> flow = Flow::of(headers);
  if (!flow) return {.reason = Reason::kNoRule};
  switch (connections_.follow(*flow, headers, path_of(passage, from, to), passage.now_ns)) {
    case ConnectionTable::Match::kPart:
      return inspect(passage, {.reason = Reason::kConnection, .rule = connections_.last_rule()});
    case ConnectionTable::Match::kWrong: {
      // What a one-way conduit lets through has no state that it could be at odds with: the flow may have begun a
      // connection elsewhere, where its first packet was flooded too.
      const auto rule = rule_for(headers, *flow, from, to);
      if (rule && is_one_way(*rule)) return {.reason = Reason::kRule, .rule = rule};
      return {.reason = Reason::kWrongState};
    }
    case ConnectionTable::Match::kNone:
      return begin(passage, *flow, from, to);
  }
  return {.reason = Reason::kNoRule};
}

Path Firewall::path_of(const Passage& passage, ZoneId from, ZoneId to) {
  return {.vlan = passage.vlan,
          .from = passage.from,
          .to = passage.to,
          .from_zone = from,
          .to_zone = to,
          .is_flooded = passage.is_flooded};
}

Verdict Firewall::begin(const Passage& passage, const Flow& flow, ZoneId from, ZoneId to) {
  const Headers& headers = passage.headers;
  const Path path = path_of(passage, from, to);
  const bool is_to_group = headers.destination.is_group();
  if (headers.udp) {
    const auto may_be_asked = [&](uint32_t rule) { return contains(plan_.rules()[rule].to, flow.source); };
    if (const auto asked_by = questions_.answer(flow, path, is_to_group, passage.now_ns, may_be_asked)) {
      return {.reason = Reason::kConnection, .rule = asked_by};
    }
  }
  const bool is_middle =
      headers.tcp &&
      (headers.tcp->flags & (frame::kTcpAcknowledge | frame::kTcpSyn | frame::kTcpReset)) == frame::kTcpAcknowledge;
  const auto rule = rule_for(headers, flow, from, to);
  if (is_middle) {
    // Which end began it nobody knows. What would be inspected one way is not taken for a connection of the other.
    const auto back = rule_for(headers, flow.reversed(), to, from);
    const auto is_inspected = [&](std::optional<uint32_t> one) { return one && plan_.rules()[*one].modbus != nullptr; };
    if (back && !is_one_way(*back) && (!rule || is_inspected(back))) {
      return go_on(passage, flow.reversed(), path.reversed(), *back);
    }
    if (rule && !is_one_way(*rule)) return go_on(passage, flow, path, *rule);
  }
  if (!rule) return {.reason = Reason::kNoRule};
  const Rule& decided = plan_.rules()[*rule];
  // Bytes that come with SYN, or in pieces, would get past inspection.
  if (decided.modbus && (headers.ip->fragment || headers.transport_payload_size != 0)) {
    return {.reason = Reason::kStrangeHeaders};
  }
  // No state: nothing that comes back is ever an answer.
  if (is_one_way(*rule)) return {.reason = Reason::kRule, .rule = rule};
  if (is_to_group) {
    // TCP has no groups (RFC 9293 3.10.7.2), and what echoes come back nobody could tell.
    const bool is_request = headers.icmp && (headers.icmp->type == 8 || headers.icmp->type == 128);
    if (headers.tcp || (headers.icmp && !is_request)) return {.reason = Reason::kNoStart};
    const bool has_room = !headers.udp || questions_.ask(flow, path, *rule, passage.now_ns);
    return {.reason = has_room ? Reason::kRule : Reason::kFull, .rule = rule};
  }
  switch (connections_.open(flow, headers, path, *rule, passage.now_ns, decided.modbus.get())) {
    case ConnectionTable::Opened::kOpened:
      return {.reason = Reason::kRule, .rule = rule};
    case ConnectionTable::Opened::kNoStart:
      return {.reason = Reason::kNoStart};
    case ConnectionTable::Opened::kFull:
      return {.reason = Reason::kFull};
  }
  return {.reason = Reason::kNoRule};
}

// A segment in the middle of a connection that a rule would let begin, and that nobody knows here.
Verdict Firewall::go_on(const Passage& passage, const Flow& start, const Path& path, uint32_t rule) {
  // Where several ports get it none of them is known to be its end.
  if (passage.is_flooded || passage.headers.destination.is_group()) return {.reason = Reason::kNoStart};
  const bool is_inspected = plan_.rules()[rule].modbus != nullptr;
  const bool may = passage.now_ns < pick_up_until_ns_ && !is_inspected;
  if (may &&
      connections_.pick_up(start, path, passage.from, rule, passage.now_ns) == ConnectionTable::Opened::kOpened) {
    return {.reason = Reason::kRule, .rule = rule};
  }
  // The other end gets what its peer wrote into the segment: only as long as there may be a connection that is cut off.
  reset_both(passage, is_inspected && passage.now_ns < pick_up_until_ns_);
  return {.reason = Reason::kNoStart};
}

void Firewall::reset_both(const Passage& passage, bool far_end) {
  const Headers& headers = passage.headers;
  constexpr uint8_t kReset = frame::kTcpReset | frame::kTcpAcknowledge;
  answer(passage.from, passage.vlan,
         segment_back(headers, passage.frame,
                      {.sequence = headers.tcp->acknowledgement, .acknowledgement = end_of(headers), .flags = kReset}));
  if (!far_end) return;
  answer(passage.to, passage.vlan,
         segment_on(
             headers,
             {.sequence = headers.tcp->sequence, .acknowledgement = headers.tcp->acknowledgement, .flags = kReset}));
}

void Firewall::answer(switching::PortId to, uint16_t vlan, std::vector<uint8_t> frame) {
  if (answers_.size() < kWaitingAnswers) answers_.push_back({.to = to, .vlan = vlan, .frame = std::move(frame)});
}

bool Firewall::is_one_way(uint32_t rule) const {
  return plan_.rules()[rule].direction == Direction::kOneWay;
}

std::optional<uint32_t> Firewall::rule_for(const Headers& headers, const Flow& start, ZoneId from, ZoneId to) const {
  const auto transport = transport_of(headers);
  if (!transport) return std::nullopt;
  return find_rule({.from = from,
                    .to = to,
                    .source = start.source,
                    .destination = start.destination,
                    .transport = *transport,
                    .port = start.destination_port});
}

std::optional<uint32_t> Firewall::find_rule(const Question& question) const {
  for (const uint32_t index : plan_.between(question.from, question.to)) {
    const Rule& rule = plan_.rules()[index];
    const bool named = std::ranges::any_of(rule.service.ports, [&](const ServicePorts& ports) {
      if (ports.transport != question.transport) return false;
      if (ports.transport == Transport::kEthernet && (question.id < ports.first_id || question.id > ports.last_id)) {
        return false;
      }
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
