// Questions of UDP to a group: Who-Is of BACnet, ListIdentity of EtherNet/IP, a DHCP client's first message. All that
// get one may answer, each from an address that nobody knew before, so they are no connections; what is remembered is
// who asked which zone. Bounded in all, for each port of the switch, in time and in answers.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>

#include "net/policy/flow.h"

namespace bulkhead::net::policy {

class GroupQuestions {
 public:
  static constexpr size_t kMaximumQuestions = 4096;
  static constexpr size_t kQuestionsAPort = 64;
  static constexpr unsigned kMostAnswers = 1024;  // to one question
  static constexpr uint64_t kLifetime_ns = 10'000'000'000;
  static constexpr uint64_t kSweepInterval_ns = 1'000'000'000;

  // Such a datagram passed by a rule. False: there is no room to remember it, so that answers would not pass.
  bool ask(const Flow& flow, const Path& path, uint32_t rule, uint64_t now_ns);
  // The rule whose question a datagram answers: it comes from the port number that was asked, goes to the one that
  // asked, and to the address that asked, to a group, or to somebody who has none yet. may_answer(rule) says whether
  // the one it comes from may be asked by that rule.
  std::optional<uint32_t> answer(const Flow& flow, const Path& path, bool is_to_group, uint64_t now_ns,
                                 const std::function<bool(uint32_t rule)>& may_answer);
  void forget_port(uint16_t port);
  void clear();
  [[nodiscard]] size_t size() const { return questions_.size(); }

 private:
  struct Key {
    uint16_t port;  // of the switch
    uint16_t asked_zone;
    uint16_t vlan;
    uint16_t asking_number, asked_number;  // of UDP
    frame::IpAddress address;              // of who asks
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  struct Question {
    uint64_t expires_ns;
    uint32_t rule;
    unsigned answers;
  };
  void sweep(uint64_t now_ns);

  std::map<Key, Question> questions_;
  std::map<uint16_t, size_t> port_counts_;
  uint64_t swept_ns_ = 0;
};

}  // namespace bulkhead::net::policy
