#include "net/policy/connections.h"

#include <algorithm>

namespace bulkhead::net::policy {

using frame::kTcpAcknowledge, frame::kTcpFin, frame::kTcpReset, frame::kTcpSyn;

uint64_t ConnectionTable::lifetime_ns(const Connection& connection) const {
  switch (connection.state) {
    case State::kOpening:
      return limits_.opening_ns;
    case State::kOpen:
      if (connection.unheard_is_start) return limits_.opening_ns;
      return connection.start.protocol == frame::kProtocolTcp ? limits_.open_tcp_ns : limits_.open_other_ns;
    case State::kClosing:
      return limits_.closing_ns;
  }
  return 0;
}

bool ConnectionTable::follow_tcp(Connection& connection, const frame::Tcp& tcp, bool from_start) const {
  const bool syn = (tcp.flags & kTcpSyn) != 0, acknowledges = (tcp.flags & kTcpAcknowledge) != 0;
  if ((tcp.flags & kTcpReset) != 0) {
    if (syn) return false;
    connection.state = State::kClosing;
    return true;
  }
  if (connection.state == State::kOpening) {
    // Until the other end has agreed, a repeated SYN and its answer are all there is.
    if (from_start) return syn && !acknowledges;
    if (!syn || !acknowledges) return false;
    connection.state = State::kOpen;
    return true;
  }
  // A handshake packet that was lost is sent again, and nothing else carries SYN or goes without ACK.
  if (syn) return connection.state == State::kOpen && acknowledges != from_start;
  if (!acknowledges) return false;
  if ((tcp.flags & kTcpFin) != 0) (from_start ? connection.start_ended : connection.answer_ended) = true;
  if (connection.start_ended && connection.answer_ended) connection.state = State::kClosing;
  return true;
}

std::optional<bool> ConnectionTable::is_from_start(const Connection& connection, const Path& path) {
  const auto is_other_end = [&](uint16_t port, uint16_t zone) {
    if (zone == connection.to_zone) return !connection.to || port == *connection.to;
    return std::ranges::find(connection.other_zones, zone, &std::pair<uint16_t, uint32_t>::first) !=
           connection.other_zones.end();
  };
  if (path.from == connection.from && is_other_end(path.to, path.to_zone)) return true;
  if (path.to == connection.from && is_other_end(path.from, path.from_zone)) return false;
  return std::nullopt;
}

bool ConnectionTable::may_widen(const Connection& connection, const Flow& flow, const Path& path) {
  return path.is_flooded && connection.state == State::kOpening && !connection.to && !connection.inspection &&
         path.from == connection.from && path.to_zone != connection.to_zone && flow.source == connection.start.source &&
         flow.source_port == connection.start.source_port && connection.other_zones.size() < kOtherZones;
}

uint32_t ConnectionTable::rule_of(const Connection& connection, uint16_t zone) {
  const auto other = std::ranges::find(connection.other_zones, zone, &std::pair<uint16_t, uint32_t>::first);
  return other == connection.other_zones.end() ? connection.rule : other->second;
}

ConnectionTable::Match ConnectionTable::follow(const Flow& flow, const frame::Headers& headers, const Path& path,
                                               uint64_t now_ns) {
  last_inspection_ = nullptr;
  const auto found = connections_.find(FlowKey::of(flow, path.vlan));
  if (found == connections_.end()) return Match::kNone;
  Connection& connection = found->second;
  if (connection.expires_ns <= now_ns) {
    erase(found);
    return Match::kNone;
  }
  const std::optional<bool> direction = is_from_start(connection, path);
  // Which zone it is for nobody knows yet: the rules say of each.
  if (!direction) return may_widen(connection, flow, path) ? Match::kNone : Match::kWrong;
  // Echoes of a flow have one identifier, so that only the ports tell the ends apart; addresses must fit too.
  const bool from_start = *direction;
  if ((flow.source == connection.start.source) != from_start && flow.source != flow.destination) return Match::kWrong;
  if (headers.tcp) {
    // The ends begin anew before the old state is gone: for the rules to say.
    const bool begins = (headers.tcp->flags & (kTcpSyn | kTcpAcknowledge | kTcpReset)) == kTcpSyn;
    if (begins && connection.state == State::kClosing) {
      erase(found);
      return Match::kNone;
    }
    const State before = connection.state;
    if (!follow_tcp(connection, *headers.tcp, from_start)) return Match::kWrong;
    if (connection.state == State::kClosing && before != State::kClosing) note_closing(*found);
  } else if (headers.icmp) {
    const bool request = headers.icmp->type == 8 || headers.icmp->type == 128;
    if (request != from_start) return Match::kWrong;
    if (!from_start) connection.state = State::kOpen;
  } else if (!from_start) {
    connection.state = State::kOpen;
  }
  last_rule_ = rule_of(connection, from_start ? path.to_zone : path.from_zone);
  if (!from_start) {
    connection.to = path.from;
    connection.to_zone = path.from_zone;
    connection.rule = last_rule_;
    connection.other_zones.clear();
  }
  if (connection.unheard_is_start == from_start) connection.unheard_is_start.reset();
  connection.expires_ns = now_ns + lifetime_ns(connection);
  last_ = &*found;
  last_inspection_ = connection.inspection.get();
  last_from_start_ = from_start;
  return Match::kPart;
}

void ConnectionTable::note_closing(const Map::value_type& entry) {
  if (!entry.second.inspection) return;
  auto& closing = closing_[entry.second.from];
  closing.push_back(entry.first);
  if (closing.size() > limits_.inspected_a_port) closing.pop_front();
}

void ConnectionTable::close_last(uint64_t now_ns) {
  if (last_->second.state == State::kClosing) return;
  last_->second.state = State::kClosing;
  last_->second.expires_ns = now_ns + limits_.closing_ns;
  note_closing(*last_);
}

bool ConnectionTable::is_open(const Flow& flow, const Path& path, uint64_t now_ns) const {
  const auto found = connections_.find(FlowKey::of(flow, path.vlan));
  return found != connections_.end() && found->second.expires_ns > now_ns &&
         is_from_start(found->second, path).has_value();
}

ConnectionTable::Opened ConnectionTable::pick_up(const Flow& flow, const Path& path, uint16_t heard, uint32_t rule,
                                                 uint64_t now_ns) {
  last_inspection_ = nullptr;
  if (is_full(heard)) sweep(now_ns);
  if (is_full(heard)) return Opened::kFull;
  Connection* const connection = add(flow, path, heard, rule, State::kOpen, now_ns);
  if (connection == nullptr) return Opened::kNoStart;
  connection->unheard_is_start = heard != path.from;
  connection->expires_ns = now_ns + lifetime_ns(*connection);
  return Opened::kOpened;
}

bool ConnectionTable::is_full(uint16_t port) {
  return port_counts_[port] >= limits_.connections_a_port || connections_.size() >= limits_.connection_count;
}

ConnectionTable::Connection* ConnectionTable::add(const Flow& flow, const Path& path, uint16_t counts_for,
                                                  uint32_t rule, State state, uint64_t now_ns) {
  const auto [position, is_new] =
      connections_.try_emplace(FlowKey::of(flow, path.vlan), Connection{.start = flow,
                                                                        .rule = rule,
                                                                        .from = path.from,
                                                                        .counts_for = counts_for,
                                                                        .to_zone = path.to_zone,
                                                                        .state = state});
  if (!is_new) return nullptr;
  if (!path.is_flooded) position->second.to = path.to;
  position->second.expires_ns = now_ns + lifetime_ns(position->second);
  ++port_counts_[counts_for];
  return &position->second;
}

ConnectionTable::Opened ConnectionTable::open(const Flow& flow, const frame::Headers& headers, const Path& path,
                                              uint32_t rule, uint64_t now_ns,
                                              const inspect::ModbusPolicy* inspected_by) {
  last_inspection_ = nullptr;
  if (headers.tcp && (headers.tcp->flags & (kTcpSyn | kTcpAcknowledge | kTcpReset | kTcpFin)) != kTcpSyn)
    return Opened::kNoStart;
  if (headers.icmp && headers.icmp->type != 8 && headers.icmp->type != 128) return Opened::kNoStart;
  if (inspected_by != nullptr && !headers.tcp) return Opened::kNoStart;
  if (const auto known = connections_.find(FlowKey::of(flow, path.vlan)); known != connections_.end()) {
    if (inspected_by != nullptr || !may_widen(known->second, flow, path)) return Opened::kNoStart;
    known->second.other_zones.emplace_back(path.to_zone, rule);
    return Opened::kOpened;
  }
  size_t& inspected_count = inspected_counts_[path.from];
  const auto has_no_room = [&] {
    return is_full(path.from) || (inspected_by != nullptr && (inspected_count >= limits_.inspected_a_port ||
                                                              inspected_ >= limits_.inspected_count));
  };
  if (has_no_room()) sweep(now_ns);
  while (inspected_by != nullptr && has_no_room() && make_room(path.from)) continue;
  if (has_no_room()) return Opened::kFull;
  Connection* const connection = add(flow, path, path.from, rule, State::kOpening, now_ns);
  if (connection == nullptr) return Opened::kNoStart;
  if (inspected_by != nullptr) {
    const uint32_t first = headers.tcp->sequence + 1;
    connection->inspection.reset(new Inspection{.modbus = {*inspected_by, first}, .first_sequence = first});
    ++inspected_count;
    ++inspected_;
  }
  return Opened::kOpened;
}

void ConnectionTable::erase(Map::iterator position) {
  --port_counts_[position->second.counts_for];
  if (position->second.inspection) {
    --inspected_counts_[position->second.from];
    --inspected_;
  }
  connections_.erase(position);
}

bool ConnectionTable::make_room(uint16_t port) {
  const auto closing = closing_.find(port);
  if (closing == closing_.end()) return false;
  while (!closing->second.empty()) {
    const auto oldest = connections_.find(closing->second.front());
    closing->second.pop_front();
    if (oldest == connections_.end() || oldest->second.state != State::kClosing || oldest->second.from != port)
      continue;
    erase(oldest);
    return true;
  }
  return false;
}

void ConnectionTable::sweep(uint64_t now_ns) {
  if (swept_ns_ != 0 && now_ns - swept_ns_ < kSweepInterval_ns) return;
  swept_ns_ = now_ns;
  for (auto position = connections_.begin(); position != connections_.end();) {
    const auto current = position++;
    if (current->second.expires_ns <= now_ns) erase(current);
  }
}

void ConnectionTable::clear() {
  connections_.clear();
  port_counts_.clear();
  inspected_counts_.clear();
  closing_.clear();
  inspected_ = 0;
  last_inspection_ = nullptr;
}

void ConnectionTable::forget_port(uint16_t port) {
  for (auto position = connections_.begin(); position != connections_.end();) {
    const auto current = position++;
    const Connection& connection = current->second;
    if (connection.from == port || connection.to == port || connection.counts_for == port) erase(current);
  }
  port_counts_.erase(port);
  inspected_counts_.erase(port);
  closing_.erase(port);
}

}  // namespace bulkhead::net::policy
