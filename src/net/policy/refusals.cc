#include "net/policy/refusals.h"

#include <algorithm>
#include <iterator>

namespace bulkhead::net::policy {

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

void RefusalLog::add(Kind kind, const Refusal& refusal) {
  ++count_;
  Share& share = shares_[{refusal.from, kind}];
  if (share.latest.size() == kRemembered) share.latest.pop_front();
  share.latest.push_back(refusal);
  bool has_line = true;
  if (kind == Kind::kQuestion) {
    const auto [line, is_first] = share.question_lines_ns.try_emplace(refusal.to, refusal.time_ns);
    has_line = is_first || refusal.time_ns - line->second >= kQuestionLines_ns;
    if (has_line) line->second = refusal.time_ns;
  }
  if (!has_line || !share.lines.take(1, refusal.time_ns)) {
    ++share.untold;
    return;
  }
  lines_.push_back({.refusal = refusal, .untold = std::exchange(share.untold, 0)});
}

std::vector<Refusal> RefusalLog::latest() const {
  std::vector<Refusal> all;
  for (const auto& [of, share] : shares_) all.insert(all.end(), share.latest.begin(), share.latest.end());
  for (const auto& [of, refusals] : gone_) all.insert(all.end(), refusals.begin(), refusals.end());
  // Those of one moment in the order in which they came.
  std::vector<std::pair<uint64_t, size_t>> order;
  for (size_t i = 0; i < all.size(); ++i) order.emplace_back(all[i].time_ns, i);
  std::ranges::sort(order);
  std::vector<Refusal> sorted;
  for (const auto& [time_ns, index] : order) sorted.push_back(std::move(all[index]));
  return sorted;
}

void RefusalLog::remove_port(switching::PortId port, uint16_t zone, const std::string& name) {
  const auto name_it = [&](std::deque<Refusal>& refusals) {
    for (Refusal& refusal : refusals) {
      if (refusal.from == port && !refusal.gone_from) refusal.gone_from = name;
      if (refusal.to == port && !refusal.gone_to) refusal.gone_to = name;
    }
  };
  for (auto& [of, refusals] : gone_) name_it(refusals);
  for (auto& [of, share] : shares_) {
    name_it(share.latest);
    // Who comes in its place is asked for the first time.
    share.question_lines_ns.erase(port);
  }
  for (const Kind kind : {Kind::kPacket, Kind::kInspection, Kind::kQuestion}) {
    const auto share = shares_.find({port, kind});
    if (share == shares_.end()) continue;
    std::deque<Refusal>& kept = gone_[{zone, kind}];
    std::deque<Refusal> merged;
    std::ranges::merge(kept, share->second.latest, std::back_inserter(merged), {}, &Refusal::time_ns,
                       &Refusal::time_ns);
    while (merged.size() > kRemembered) merged.pop_front();
    kept = std::move(merged);
    shares_.erase(share);
  }
}

}  // namespace bulkhead::net::policy
