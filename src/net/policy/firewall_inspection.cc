// What a connection says: Modbus requests that pass or not, and how a connection ends in which one was refused.
//
//   refused -> what was allowed before it passes, nothing behind it does -> the client has all of the server's answers
//   -> exception and FIN to the client, RST to the server -> both are told again for as long as they do not know
#include "net/policy/firewall.h"
#include "net/policy/segments.h"

namespace bulkhead::net::policy {
namespace {

using frame::Headers;
using switching::Passage;

constexpr uint8_t kReset = frame::kTcpReset | frame::kTcpAcknowledge;

ByteSpan payload_of(const Passage& passage) {
  return passage.frame.subspan(passage.headers.transport_payload_offset, passage.headers.transport_payload_size);
}

// Sequence numbers go round.
bool is_before(uint32_t one, uint32_t other) {
  return static_cast<int32_t>(one - other) < 0;
}

void hear(ConnectionTable::Inspection& inspection, const Headers& headers) {
  const uint32_t end = end_of(headers);
  const bool follows = !is_before(inspection.heard, headers.tcp->sequence);
  if (follows && is_before(inspection.heard, end)) inspection.heard = end;
}

}  // namespace

Verdict Firewall::inspect(const Passage& passage, Verdict verdict) {
  Inspection* const inspection = connections_.last_inspection();
  if (inspection == nullptr) return verdict;
  if (passage.headers.ip->fragment) return {.reason = Reason::kStrangeHeaders};
  return connections_.last_from_start() ? inspect_client(passage, *inspection, verdict)
                                        : inspect_server(passage, *inspection, verdict);
}

Verdict Firewall::inspect_server(const Passage& passage, Inspection& inspection, Verdict verdict) {
  const Headers& headers = passage.headers;
  const frame::Tcp& tcp = *headers.tcp;
  if (inspection.end) {
    if ((tcp.flags & frame::kTcpReset) == 0) reset_both(passage, false);
    return {.reason = Reason::kInspection, .rule = verdict.rule};
  }
  if ((tcp.flags & frame::kTcpAcknowledge) != 0) inspection.modbus.on_server(tcp.acknowledgement);
  if ((tcp.flags & frame::kTcpSyn) != 0) {
    // A repeated one says the same, or the client takes no notice of it.
    if (inspection.answers.count() == 0) inspection.answers.begin(tcp.sequence + 1);
    return verdict;
  }
  if (!inspection.answers.on_server(tcp.sequence, payload_of(passage))) {
    return {.reason = Reason::kRepeat, .rule = verdict.rule};
  }
  if ((tcp.flags & frame::kTcpFin) != 0 && end_of(headers) == inspection.answers.next() + 1) {
    inspection.server_ended = true;
  }
  return verdict;
}

Verdict Firewall::inspect_client(const Passage& passage, Inspection& inspection, Verdict verdict) {
  using Outcome = inspect::ModbusInspector::Outcome;
  const frame::Tcp& tcp = *passage.headers.tcp;
  const ByteSpan payload = payload_of(passage);
  if (inspection.end) {
    say_last_word(passage, inspection, false);
    return {.reason = Reason::kInspection, .rule = verdict.rule};
  }
  // A receiver may take an urgent byte out of the stream, and then read another one than was looked at.
  if ((tcp.flags & frame::kTcpUrgent) != 0) return {.reason = Reason::kStrangeHeaders};
  if ((tcp.flags & frame::kTcpSyn) != 0) {
    const bool same = payload.empty() && tcp.sequence + 1 == inspection.first_sequence;
    return same ? verdict : Verdict{.reason = Reason::kWrongState};
  }
  const uint32_t rule = *verdict.rule;
  if (!payload.empty()) {
    const auto inspected = inspection.modbus.on_client(tcp.sequence, payload);
    if (inspected.outcome == Outcome::kDrop) verdict = {.reason = Reason::kRepeat, .rule = rule};
    if (inspected.outcome == Outcome::kRefused || inspected.outcome == Outcome::kConflict) {
      if (!inspection.refused) refuse_request(passage, inspection, inspected, rule);
      if (inspected.passed != 0) {
        answer(passage.to, passage.vlan, cut_short(passage.headers, passage.frame, inspected.passed));
      }
      verdict = {.reason = Reason::kInspection, .rule = rule};
    }
  }
  // Its server never hears of this end, which stands behind what was refused.
  if (inspection.refused && (tcp.flags & frame::kTcpFin) != 0) connections_.close_last(passage.now_ns);
  if (inspection.refused && plan_.rules()[rule].refuse == Refuse::kAnswer) end_when_answered(passage, inspection);
  return verdict;
}

void Firewall::refuse_request(const Passage& passage, Inspection& inspection,
                              const inspect::ModbusInspector::Inspected& inspected, uint32_t rule) {
  refusals_.add(RefusalLog::Kind::kInspection, {.time_ns = passage.now_ns,
                                                .from = passage.from,
                                                .to = passage.to,
                                                .reason = Reason::kInspection,
                                                .type = passage.headers.type,
                                                .flow = Flow::of(passage.headers),
                                                .modbus = inspected.verdict,
                                                .request = inspected.request,
                                                .rule = rule});
  inspection.refused = {.verdict = inspected.verdict, .request = inspected.request, .since_ns = passage.now_ns};
  inspection.heard = inspection.modbus.next();
}

// An exception stands in the server's stream behind its answers, and no other byte has its sequence numbers: the client
// has everything that the server said, and the server says nothing more.
void Firewall::end_when_answered(const Passage& passage, Inspection& inspection) {
  const frame::Tcp& tcp = *passage.headers.tcp;
  hear(inspection, passage.headers);
  if ((tcp.flags & frame::kTcpReset) != 0) return;
  const uint32_t said = inspection.answers.next() + (inspection.server_ended ? 1 : 0);
  const bool is_answered = inspection.answers.count() >= inspection.modbus.allowed_count() || inspection.server_ended ||
                           passage.now_ns - inspection.refused->since_ns >= kAnswerPatience_ns;
  if (tcp.acknowledgement != said || !is_answered) return;
  inspection.end = said;
  connections_.close_last(passage.now_ns);
  say_last_word(passage, inspection, true);
  answer(passage.to, passage.vlan,
         segment_on(passage.headers,
                    {.sequence = inspection.modbus.next(), .acknowledgement = tcp.acknowledgement, .flags = kReset}));
}

// To the client, in the server's name; once more to whoever says more and may not have it.
void Firewall::say_last_word(const Passage& passage, Inspection& inspection, bool first) {
  const Headers& headers = passage.headers;
  const frame::Tcp& tcp = *headers.tcp;
  if ((tcp.flags & frame::kTcpReset) != 0) return;
  hear(inspection, headers);
  const bool says_something = headers.transport_payload_size != 0 || (tcp.flags & frame::kTcpFin) != 0;
  if (!first && !says_something) return;
  // Without a request to answer, or behind the server's own end, it hangs up.
  if (inspection.refused->verdict == inspect::ModbusVerdict::kMalformed || inspection.server_ended) {
    return reset_both(passage, false);
  }
  Segment segment{.sequence = *inspection.end, .acknowledgement = inspection.heard, .flags = frame::kTcpAcknowledge};
  auto exception = inspect::modbus_refusal(inspection.refused->request, inspection.refused->verdict);
  const auto behind = static_cast<uint32_t>(segment.sequence + exception.size() + 1);
  if (is_before(tcp.acknowledgement, behind)) {
    segment.flags |= frame::kTcpFin | frame::kTcpPush;
    segment.payload = std::move(exception);
  } else {
    segment.sequence = behind;
  }
  answer(passage.from, passage.vlan, segment_back(headers, passage.frame, segment));
}

}  // namespace bulkhead::net::policy
