// The stateful firewall between the ports of a switch: each port stands in a zone, the plan says what passes between
// zones, and what is not named is dropped. A function of frame, tables and time; every table is bounded. What it
// decides it can explain, count by rule, and remember when it was a refusal.
//
// A segment in the middle of a connection that it does not know is answered by a reset where a rule would let the
// connection begin, so that its ends begin anew at once; for some time after a start the connection goes on instead.
//
// Sequence numbers are not checked: who is on the path can end a connection early, but not begin one.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "net/policy/connections.h"
#include "net/policy/fragments.h"
#include "net/policy/group_questions.h"
#include "net/policy/plan.h"
#include "net/policy/refusals.h"
#include "net/switch/virtual_switch.h"

namespace bulkhead::net::policy {

struct Verdict {
  Reason reason = Reason::kNoRule;
  std::optional<uint32_t> rule;  // of kRule and kConnection
  [[nodiscard]] bool passes() const { return is_pass(reason); }
};

// A frame of the firewall's own: it ends a connection, or is the part of a segment that passes.
struct Answer {
  switching::PortId to = 0;
  uint16_t vlan = 0;
  std::vector<uint8_t> frame;
};

class Firewall final : public switching::Filter {
 public:
  // How long a refused request waits for the answers to those before it.
  static constexpr uint64_t kAnswerPatience_ns = 3'000'000'000;
  static constexpr size_t kWaitingAnswers = 512;

  Firewall(CompiledPlan plan, const ConnectionLimits& limits, uint64_t secret);

  // A port without a zone reaches nothing and is reached by nothing.
  void set_zone(switching::PortId port, ZoneId zone) { zones_[port] = zone; }
  // name: what its refusals say of it afterwards.
  void remove_port(switching::PortId port, const std::string& name);
  // Connections end: each must be let through anew.
  void set_plan(CompiledPlan plan);

  // Until then a connection of TCP that is not inspected may be in its middle when it comes by first.
  void pick_up_until(uint64_t time_ns) { pick_up_until_ns_ = time_ns; }

  // Whether a rule reads what the port's zone says: then it is to be given packets, not frames that stand for many.
  [[nodiscard]] bool inspects(switching::PortId port) const;

  [[nodiscard]] bool lets_through(const switching::Passage& passage) override;
  // The same with its reason.
  Verdict judge(const switching::Passage& passage);

  // Which rule decides about the beginning of such a flow between two zones, in one line; changes nothing.
  struct Question {
    ZoneId from = 0;
    ZoneId to = 0;
    frame::IpAddress source;
    frame::IpAddress destination;
    Transport transport = Transport::kTcp;
    uint16_t port = 0;
    uint16_t id = 0;  // of kEthernet: as ServicePorts::first_id
  };
  [[nodiscard]] Verdict decide(const Question& question) const;
  [[nodiscard]] std::string explain(const Question& question) const;

  [[nodiscard]] const CompiledPlan& plan() const { return plan_; }
  [[nodiscard]] uint64_t passed_by(uint32_t rule) const { return rule_counts_[rule]; }
  [[nodiscard]] uint64_t count(Reason reason) const { return reason_counts_[static_cast<size_t>(reason)]; }
  // Those that have not been taken, oldest first; more than kWaitingAnswers are not made.
  [[nodiscard]] std::vector<Answer> take_answers() { return std::exchange(answers_, {}); }
  [[nodiscard]] RefusalLog& refusals() { return refusals_; }
  [[nodiscard]] const RefusalLog& refusals() const { return refusals_; }
  [[nodiscard]] const ConnectionTable& connections() const { return connections_; }

 private:
  [[nodiscard]] Verdict judge_between(const switching::Passage& passage, ZoneId from, ZoneId to);
  [[nodiscard]] Verdict judge_ip(const switching::Passage& passage, ZoneId from, ZoneId to);
  [[nodiscard]] Verdict judge_flow(const switching::Passage& passage, ZoneId from, ZoneId to);
  [[nodiscard]] Verdict begin(const switching::Passage& passage, const Flow& flow, ZoneId from, ZoneId to);
  [[nodiscard]] Verdict go_on(const switching::Passage& passage, const Flow& start, const Path& path, uint32_t rule);
  void reset_both(const switching::Passage& passage, bool far_end);
  void answer(switching::PortId to, uint16_t vlan, std::vector<uint8_t> frame);
  [[nodiscard]] static Path path_of(const switching::Passage& passage, ZoneId from, ZoneId to);
  [[nodiscard]] Verdict inspect(const switching::Passage& passage, Verdict verdict);
  using Inspection = ConnectionTable::Inspection;
  [[nodiscard]] Verdict inspect_client(const switching::Passage& passage, Inspection& inspection, Verdict verdict);
  [[nodiscard]] Verdict inspect_server(const switching::Passage& passage, Inspection& inspection, Verdict verdict);
  void refuse_request(const switching::Passage& passage, Inspection& inspection,
                      const inspect::ModbusInspector::Inspected& inspected, uint32_t rule);
  void end_when_answered(const switching::Passage& passage, Inspection& inspection);
  void say_last_word(const switching::Passage& passage, Inspection& inspection, bool first);
  void note_refusal(const switching::Passage& passage, Reason reason);
  [[nodiscard]] std::optional<uint32_t> find_rule(const Question& question) const;
  // The one that would let a flow begin so.
  [[nodiscard]] std::optional<uint32_t> rule_for(const frame::Headers& headers, const Flow& start, ZoneId from,
                                                 ZoneId to) const;
  [[nodiscard]] bool is_one_way(uint32_t rule) const;
  [[nodiscard]] std::optional<Verdict> judge_link(const switching::Passage& passage, ZoneId from, ZoneId to) const;

  CompiledPlan plan_;
  ConnectionTable connections_;
  FragmentTable fragments_;
  GroupQuestions questions_;
  uint64_t pick_up_until_ns_ = 0;
  std::unordered_map<switching::PortId, ZoneId> zones_;
  std::vector<uint64_t> rule_counts_;
  std::array<uint64_t, kReasonCount> reason_counts_{};
  RefusalLog refusals_;
  std::vector<Answer> answers_;
};

}  // namespace bulkhead::net::policy
