// One command that the agent in a machine's guest carries out, as the host sees it (docs/agent.md has the protocol):
// bytes of the line in, bytes for the line out. The guest may be hostile: whatever comes, nothing here grows with it,
// and what it says concerns this command alone. No descriptors, no clock.
//
//   calling -> asked -> runs -> ended
//          `------------------> refused   (an agent of another version)
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bulkhead::plant {

[[nodiscard]] std::string to_base64(std::string_view bytes);
// Nothing for what is no base64.
[[nodiscard]] std::optional<std::string> from_base64(std::string_view text);

class AgentTalk {
 public:
  static constexpr std::string_view kVersion = "1";
  // A command's words with a byte between them.
  static constexpr size_t kMaximumCommand = 4096;
  // Without its end; a longer one is passed over.
  static constexpr size_t kMaximumLine = 8192;
  // Input that is on its way to the command, in bytes, and how much of it there is in a line.
  static constexpr size_t kInputWindow = 2048, kInputPiece = 1024;
  static constexpr uint64_t kAgain_ns = 1'000'000'000;

  enum class Stage : uint8_t { kCalling, kAsked, kRuns, kEnded, kRefused };

  // id: random, of no other talk with this agent. The words hold no NUL, and at most kMaximumCommand bytes in all.
  AgentTalk(uint64_t id, const std::vector<std::string>& words);

  // From receive(): what the command writes, at most kMaximumLine bytes a time. The agent sends so much more when it
  // hears that these have been dealt with, by took().
  std::function<void(bool is_error, std::string_view bytes)> on_output;

  void receive(std::string_view bytes, uint64_t now_ns);
  // What is to be said now: often nothing, at most a few kilobytes. Only when the line has taken what came before.
  [[nodiscard]] std::string to_send(uint64_t now_ns);
  // A new connection: the agent is called anew. Only while calling.
  void call_again() { called_ns_ = 0; }

  void took(size_t bytes) { taken_ += bytes; }
  // How many bytes of input there is room for.
  [[nodiscard]] size_t input_room() const {
    return stage_ == Stage::kRuns && !input_ended_ ? kInputWindow - input_under_way_ : 0;
  }
  // At most input_room() bytes; none: it has ended.
  void give_input(std::string_view bytes);
  // For the command and what it has started; until it runs, it is kept.
  void signal(int number) { signal_ = number; }

  [[nodiscard]] Stage stage() const { return stage_; }
  // Of the ended command: 0 to 255; 128 and a signal's number when that has ended it.
  [[nodiscard]] int status() const { return status_; }
  // When the agent was last heard of; 0: never.
  [[nodiscard]] uint64_t heard_ns() const { return heard_ns_; }

 private:
  void take_line(std::string_view line, uint64_t now_ns);

  const std::string id_, command_;
  Stage stage_ = Stage::kCalling;
  std::string line_;
  bool line_too_long_ = false;
  bool command_sent_ = false;
  bool input_ended_ = false, end_sent_ = false;
  std::string input_;           // not sent yet
  size_t input_under_way_ = 0;  // of which the agent has not said that the command took it; input_ too
  size_t taken_ = 0;            // of output, not told yet
  int signal_ = 0, status_ = 0;
  uint64_t called_ns_ = 0, heard_ns_ = 0;
};

}  // namespace bulkhead::plant
