// What is going on between two ends, so that answers pass where a request did. Where the switch does not know the port
// of the one that is asked, it is any of its zone until one answers. Bounded in all, and for each port of the switch
// that begins connections, so that one that begins too many keeps nobody else from it.
//
//   TCP: SYN -> kOpening -> SYN+ACK from the other end -> kOpen -> FIN of both, or RST -> kClosing -> gone
//   UDP, echo: request -> kOpening -> answer -> kOpen
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "net/frame/headers.h"
#include "net/inspect/modbus.h"
#include "net/policy/flow.h"

namespace bulkhead::net::policy {

struct ConnectionLimits {
  size_t connection_count = 65536;
  size_t connections_a_port = 8192;
  // Each may hold 64 KiB that its server has not acknowledged.
  size_t inspected_count = 1024;
  size_t inspected_a_port = 256;
  uint64_t opening_ns = 30'000'000'000;
  uint64_t open_tcp_ns = 3'600'000'000'000;
  uint64_t open_other_ns = 180'000'000'000;
  uint64_t closing_ns = 10'000'000'000;
};

class ConnectionTable {
 public:
  enum class State : uint8_t { kOpening, kOpen, kClosing };
  enum class Match : uint8_t {
    kNone,   // no connection: the rules decide
    kPart,   // belongs to one
    kWrong,  // of a connection's ends, but not what its state allows
  };
  enum class Opened : uint8_t { kOpened, kNoStart, kFull };
  // Of a connection whose client's requests are looked at.
  struct Inspection {
    inspect::ModbusInspector modbus;
    uint32_t first_sequence = 0;  // of the client's first byte
    inspect::ModbusAnswers answers = {};
    bool server_ended = false;  // FIN
    struct Refused {
      inspect::ModbusVerdict verdict;
      inspect::ModbusRequest request;
      uint64_t since_ns;
    };
    std::optional<Refused> refused = {};  // the first one
    uint32_t heard = 0;                   // once refused: up to where the client has spoken without a gap
    // Where in the server's stream the firewall has ended it, in its name. The server knows of no more.
    std::optional<uint32_t> end = {};
  };

  ConnectionTable(const ConnectionLimits& limits, uint64_t secret) : limits_(limits), connections_(0, Hash{secret}) {}

  // A packet with ports; moves its connection on.
  Match follow(const Flow& flow, const frame::Headers& headers, const Path& path, uint64_t now_ns);
  // Whether there is a connection of this flow, a packet of which went this way.
  [[nodiscard]] bool is_open(const Flow& flow, const Path& path, uint64_t now_ns) const;
  // Begins one for a packet that the rules let through. kNoStart: it does not begin anything (TCP without SYN).
  Opened open(const Flow& flow, const frame::Headers& headers, const Path& path, uint32_t rule, uint64_t now_ns,
              const inspect::ModbusPolicy* inspected_by = nullptr);
  // One of TCP that began before this table did, by the way its first packet must have gone. It is not inspected.
  // heard: the port whose segment told of it, which it counts for; until the other end speaks, it lives no longer than
  // one that opens.
  Opened pick_up(const Flow& flow, const Path& path, uint16_t heard, uint32_t rule, uint64_t now_ns);
  // The rule that let it begin, of the packet followed last.
  [[nodiscard]] uint32_t last_rule() const { return last_rule_; }
  // Of the packet followed last, until the next call of follow() or open(); nullptr: not inspected.
  [[nodiscard]] Inspection* last_inspection() const { return last_inspection_; }
  [[nodiscard]] bool last_from_start() const { return last_from_start_; }
  // It is over, though its ends have not said so.
  void close_last(uint64_t now_ns);

  // After the rules changed.
  void clear();
  void forget_port(uint16_t port);
  [[nodiscard]] size_t size() const { return connections_.size(); }
  [[nodiscard]] size_t inspected() const { return inspected_; }

 private:
  struct Connection {
    Flow start;  // as its first packet
    uint64_t expires_ns = 0;
    uint32_t rule = 0;
    uint16_t from = 0;                          // a port of the switch, as its first packet
    uint16_t counts_for = 0;                    // the port against whose limit
    std::optional<bool> unheard_is_start = {};  // of one picked up: the end that has not spoken yet
    uint16_t to_zone = 0;
    std::optional<uint16_t> to = {};  // none yet: any port of the zone may answer
    // Until one answers: other zones that a rule let the flooded first packet into, each with that rule.
    std::vector<std::pair<uint16_t, uint32_t>> other_zones = {};
    State state = State::kOpening;
    bool start_ended = false, answer_ended = false;  // FIN seen
    std::unique_ptr<Inspection> inspection;
  };
  struct Hash {
    uint64_t secret;
    size_t operator()(const FlowKey& key) const { return key.hash(secret); }
  };
  using Map = std::unordered_map<FlowKey, Connection, Hash>;
  static constexpr uint64_t kSweepInterval_ns = 1'000'000'000;
  static constexpr size_t kOtherZones = 8;

  // Whether a flooded packet may be its first one in a zone that it has not been let into yet.
  [[nodiscard]] static bool may_widen(const Connection& connection, const Flow& flow, const Path& path);
  // The rule of the zone that the packet goes to or comes from.
  [[nodiscard]] static uint32_t rule_of(const Connection& connection, uint16_t zone);
  // Whether a packet goes from its first end to the other; nothing: neither way.
  [[nodiscard]] static std::optional<bool> is_from_start(const Connection& connection, const Path& path);
  [[nodiscard]] bool follow_tcp(Connection& connection, const frame::Tcp& tcp, bool from_start) const;
  [[nodiscard]] uint64_t lifetime_ns(const Connection& connection) const;
  [[nodiscard]] bool is_full(uint16_t port);
  // nullptr: there is one already.
  Connection* add(const Flow& flow, const Path& path, uint16_t counts_for, uint32_t rule, State state, uint64_t now_ns);
  void note_closing(const Map::value_type& entry);
  void erase(Map::iterator position);
  // Ends the oldest inspected connection of a port that both ends have given up; false when there is none.
  [[nodiscard]] bool make_room(uint16_t port);
  void sweep(uint64_t now_ns);

  const ConnectionLimits limits_;
  Map connections_;
  std::unordered_map<uint16_t, size_t> port_counts_, inspected_counts_;
  size_t inspected_ = 0;
  // Inspected connections of a port that are closing, oldest first; some may be gone already. A client that connects
  // for each question ends more of them than their last seconds leave room for.
  std::unordered_map<uint16_t, std::deque<FlowKey>> closing_;
  Map::value_type* last_ = nullptr;  // followed last
  Inspection* last_inspection_ = nullptr;
  bool last_from_start_ = false;
  uint64_t swept_ns_ = 0;
  uint32_t last_rule_ = 0;
};

}  // namespace bulkhead::net::policy
