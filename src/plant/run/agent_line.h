// A talk with the agent of a running machine: its second serial line is a Unix socket in the plant's folder, which one
// connection at a time may use. Never blocks.
#pragma once

#include <string>
#include <vector>

#include "plant/run/agent_talk.h"
#include "support/os/fd.h"

namespace bulkhead::plant {

[[nodiscard]] std::string agent_socket_of(const std::string& directory, std::string_view machine);

class AgentLine {
 public:
  enum class State : uint8_t {
    kNobody,   // no machine listens there
    kBusy,     // somebody else is at the line; it is tried again
    kCalling,  // no agent has answered yet
    kTalking,
    kLost,  // the machine has ended, or somebody else has come, while the command ran
    kEnded,
    kRefused,  // an agent of another version
  };

  AgentLine(std::string socket_path, uint64_t id, const std::vector<std::string>& words)
      : path_(std::move(socket_path)), talk_(id, words) {}

  [[nodiscard]] AgentTalk& talk() { return talk_; }
  // Connects, hears at most 4 KiB unless quiet, and sends. Call it often, or when the descriptor is ready.
  void poll(uint64_t now_ns, bool quiet = false);
  // -1: not connected.
  [[nodiscard]] int descriptor() const { return socket_.get(); }
  [[nodiscard]] bool has_unsent() const { return !unsent_.empty(); }
  [[nodiscard]] State state() const;

 private:
  void receive(uint64_t now_ns);
  void send(uint64_t now_ns);

  const std::string path_;
  AgentTalk talk_;
  Fd socket_;
  std::string unsent_;
  bool somebody_listens_ = false, turned_away_ = false, heard_here_ = false;
  uint64_t connected_ns_ = 0;
};

}  // namespace bulkhead::plant
