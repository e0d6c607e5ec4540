// What was refused, for the log and for whoever asks: so much of each port and no more, what inspection refused apart
// from the rest, so that who is refused often hides neither others nor a request of its own. What a port was refused
// outlives it, by its name, and so much of each zone: whoever comes and goes hides nothing but what was before in its
// own zone. A function of refusals and time.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/inspect/modbus.h"
#include "net/policy/flow.h"
#include "net/switch/rate_limit.h"
#include "net/switch/virtual_switch.h"

namespace bulkhead::net::policy {

enum class Reason : uint8_t {
  kWithinZone,
  kRule,
  kConnection,    // part of one that a rule let begin
  kErrorMessage,  // ICMP about one
  kNeighbours,    // ARP and neighbour discovery between joined zones
  kFragment,
  kNoZone,
  kNoRule,
  kMalformed,
  kWrongState,
  kNoStart,
  kFull,
  kLateFragment,
  kStrangeHeaders,
  kInspection,  // what the connection says is not allowed
  kRepeat,      // an inspected segment out of order: its sender repeats it
};
inline constexpr size_t kReasonCount = 16;
[[nodiscard]] bool is_pass(Reason reason);
[[nodiscard]] std::string_view to_string(Reason reason);

struct Refusal {
  uint64_t time_ns = 0;
  switching::PortId from = 0;
  switching::PortId to = 0;
  // Of ports that are gone, whose numbers others may have.
  std::optional<std::string> gone_from = {}, gone_to = {};
  Reason reason = Reason::kNoRule;
  uint16_t type = 0;
  std::optional<Flow> flow;  // of ARP: who asks for whom
  // Of kInspection.
  inspect::ModbusVerdict modbus = inspect::ModbusVerdict::kAllowed;
  inspect::ModbusRequest request;
  std::optional<uint32_t> rule;
};

class RefusalLog {
 public:
  // Of a port and a kind, and of all the ports of a zone that are gone.
  static constexpr size_t kRemembered = 32;
  static constexpr uint64_t kLinesASecond = 5, kLinesAtOnce = 20;
  // ARP that asks for a card: it asks again and again, so there is so seldom a line for a pair of ports.
  static constexpr uint64_t kQuestionLines_ns = 60'000'000'000;

  enum class Kind : uint8_t { kPacket, kInspection, kQuestion };
  struct Line {
    Refusal refusal;
    uint64_t untold = 0;  // of the port and kind since its line before
  };

  void add(Kind kind, const Refusal& refusal);
  // For the log, since the last call.
  [[nodiscard]] std::vector<Line> take_lines() { return std::exchange(lines_, {}); }
  // The latest ones of all ports, oldest first.
  [[nodiscard]] std::vector<Refusal> latest() const;
  [[nodiscard]] uint64_t count() const { return count_; }
  // The port's number may be another's from now on.
  void remove_port(switching::PortId port, uint16_t zone, const std::string& name);

 private:
  struct Share {
    std::deque<Refusal> latest;
    switching::RateLimit lines{kLinesASecond, kLinesAtOnce};
    std::map<switching::PortId, uint64_t> question_lines_ns;  // by the one that is asked for
    uint64_t untold = 0;
  };
  std::map<std::pair<switching::PortId, Kind>, Share> shares_;
  std::map<std::pair<uint16_t, Kind>, std::deque<Refusal>> gone_;  // by zone
  std::vector<Line> lines_;
  uint64_t count_ = 0;
};

}  // namespace bulkhead::net::policy
