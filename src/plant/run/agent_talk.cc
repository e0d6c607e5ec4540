#include "plant/run/agent_talk.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "support/check.h"

namespace bulkhead::plant {
namespace {

constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string joined(const std::vector<std::string>& words) {
  std::string all;
  for (const std::string& word : words) {
    if (&word != &words.front()) all += '\0';
    all += word;
  }
  return all;
}

// A decimal number of at most maximum, and nothing else.
std::optional<size_t> number_in(std::string_view text, size_t maximum) {
  size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number > maximum) return std::nullopt;
  return number;
}

}  // namespace

std::string to_base64(std::string_view bytes) {
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - at);
    uint32_t three = 0;
    for (size_t i = 0; i < 3; ++i) three = three << 8 | (i < count ? static_cast<uint8_t>(bytes[at + i]) : 0);
    for (size_t i = 0; i < 4; ++i) text += i <= count ? kDigits[three >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

std::optional<std::string> from_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  std::string bytes;
  uint32_t bits = 0;
  unsigned count = 0;
  for (const char c : text) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    bits = (bits << 6 | static_cast<uint32_t>(digit)) & 0xFFFF;
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>(bits >> count & 0xFF);
    }
  }
  return bytes;
}

AgentTalk::AgentTalk(uint64_t id, const std::vector<std::string>& words)
    : id_(fmt::format("{:016x}", id)), command_(joined(words)) {
  CHECK(!words.empty() && command_.size() <= kMaximumCommand, "a command of a length that is allowed");
}

void AgentTalk::receive(std::string_view bytes, uint64_t now_ns) {
  while (!bytes.empty() && stage_ < Stage::kEnded) {
    const size_t end = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, end);
    line_too_long_ |= piece.size() > kMaximumLine - line_.size();
    if (!line_too_long_) line_ += piece;
    if (end == std::string_view::npos) return;
    if (!line_too_long_) take_line(line_, now_ns);
    line_.clear();
    line_too_long_ = false;
    bytes.remove_prefix(end + 1);
  }
}

void AgentTalk::take_line(std::string_view line, uint64_t now_ns) {
  // What another talk has left in the line, or the agent of a guest that begins anew.
  if (!line.starts_with(id_) || line.substr(id_.size(), 1) != " ") return;
  line.remove_prefix(id_.size() + 1);
  const std::string_view word = line.substr(0, line.find(' '));
  const std::string_view rest = word.size() < line.size() ? line.substr(word.size() + 1) : "";
  heard_ns_ = now_ns;
  if (word == "hello" && stage_ == Stage::kCalling) stage_ = rest == kVersion ? Stage::kAsked : Stage::kRefused;
  if (word == "began" && stage_ == Stage::kAsked) stage_ = Stage::kRuns;
  if (stage_ != Stage::kRuns) return;
  if (word == "out" || word == "err") {
    if (const auto data = from_base64(rest); data && on_output) on_output(word == "err", *data);
  }
  if (word == "took") {
    if (const auto count = number_in(rest, input_under_way_ - input_.size())) input_under_way_ -= *count;
  }
  if (word == "end") {
    if (const auto status = number_in(rest, 255)) {
      status_ = static_cast<int>(*status);
      stage_ = Stage::kEnded;
    }
  }
}

std::string AgentTalk::to_send(uint64_t now_ns) {
  std::string text;
  if (stage_ >= Stage::kEnded) return text;
  if (stage_ == Stage::kAsked && !command_sent_) {
    text += fmt::format("run {} {}\n", id_, to_base64(command_));
    command_sent_ = true;
  }
  if (called_ns_ == 0 || now_ns - called_ns_ >= kAgain_ns) {
    called_ns_ = now_ns;
    // Whatever half a line was on its way to the agent ends first.
    text += fmt::format("{} {}\n", stage_ == Stage::kCalling ? "\nhello" : "alive", id_);
  }
  if (stage_ != Stage::kRuns) return text;
  for (std::string_view left = input_; !left.empty(); left.remove_prefix(std::min(left.size(), kInputPiece))) {
    text += fmt::format("in {} {}\n", id_, to_base64(left.substr(0, kInputPiece)));
  }
  input_.clear();
  if (input_ended_ && !end_sent_) text += fmt::format("eof {}\n", id_);
  end_sent_ = input_ended_;
  if (taken_ != 0) text += fmt::format("took {} {}\n", id_, taken_);
  taken_ = 0;
  if (signal_ != 0) text += fmt::format("signal {} {}\n", id_, signal_);
  signal_ = 0;
  return text;
}

void AgentTalk::give_input(std::string_view bytes) {
  CHECK(bytes.size() <= input_room(), "input only where there is room");
  input_ended_ |= bytes.empty();
  input_ += bytes;
  input_under_way_ += bytes.size();
}

}  // namespace bulkhead::plant
