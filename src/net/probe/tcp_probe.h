// Asks a machine over TCP whether its service answers: a client of one connection, made of frames and times alone. It
// finds the other's MAC address, connects, says its question and looks at the beginning of the answer. For readiness
// only: one segment each way, no window, no congestion; what comes is untrusted and bounded.
//
//   ARP -> SYN -> SYN+ACK -> question -> answer -> RST
#pragma once

#include <functional>
#include <vector>

#include "net/frame/headers.h"

namespace bulkhead::net::probe {

struct Question {
  frame::MacAddress own_mac;
  frame::IpAddress own_address;  // IPv4, as the other
  frame::IpAddress address;
  uint16_t own_port = 0;
  uint16_t port = 0;
  uint32_t first_sequence = 0;
  std::vector<uint8_t> text;  // empty: that it connects is the answer
  // Whether the answer's bytes so far are a good answer, are none, or not enough yet.
  enum class Judgement : uint8_t { kMore, kGood, kBad };
  std::function<Judgement(ByteSpan)> judge;
};

class TcpProbe {
 public:
  enum class State : uint8_t { kResolving, kConnecting, kAsking, kGood, kBad };
  static constexpr uint64_t kRepeat_ns = 500'000'000;
  static constexpr size_t kMaximumAnswer = 4096;

  explicit TcpProbe(Question question) : question_(std::move(question)) {}

  // Frames to send now, on time's account.
  [[nodiscard]] std::vector<std::vector<uint8_t>> poll(uint64_t now_ns);
  // Takes a frame that came; gives frames that answer it.
  [[nodiscard]] std::vector<std::vector<uint8_t>> receive(ByteSpan frame);
  [[nodiscard]] State state() const { return state_; }

 private:
  [[nodiscard]] std::vector<uint8_t> arp(uint16_t operation, const frame::MacAddress& target_mac,
                                         const frame::IpAddress& target) const;
  [[nodiscard]] std::vector<uint8_t> segment(uint8_t flags, uint32_t sequence, ByteSpan payload = {}) const;
  [[nodiscard]] std::vector<std::vector<uint8_t>> on_tcp(const frame::Headers& headers, ByteSpan frame);

  Question question_;
  State state_ = State::kResolving;
  frame::MacAddress mac_;
  uint64_t sent_ns_ = 0;
  uint32_t next_ = 0;  // byte of the other that comes next
  std::vector<uint8_t> answer_;
};

}  // namespace bulkhead::net::probe
