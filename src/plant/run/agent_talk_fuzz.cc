// Any bytes as what a guest's agent says. The first byte says where the input is cut: the talk must not depend on that.
// "@" in the input stands for the talk's number, so that lines of this talk are found.
#include <algorithm>
#include <string>
#include <vector>

#include "plant/run/agent_talk.h"
#include "support/check.h"

namespace {

using bulkhead::plant::AgentTalk;

struct Heard {
  std::string output, errors;
  AgentTalk::Stage stage{};
  int status = 0;
  bool operator==(const Heard&) const = default;
};

Heard hear(std::string_view said, size_t piece) {
  AgentTalk talk(0xABC, {"true"});
  Heard heard;
  talk.on_output = [&](bool is_error, std::string_view bytes) {
    CHECK(bytes.size() <= AgentTalk::kMaximumLine, "a line's bytes");
    (is_error ? heard.errors : heard.output) += bytes;
    talk.took(bytes.size());
  };
  uint64_t now_ns = 1;
  for (; !said.empty(); said.remove_prefix(std::min(said.size(), piece)), now_ns += AgentTalk::kAgain_ns / 4) {
    talk.receive(said.substr(0, piece), now_ns);
    CHECK(talk.input_room() <= AgentTalk::kInputWindow, "the window stays");
    if (talk.input_room() != 0) talk.give_input(std::string(std::min<size_t>(talk.input_room(), 700), 'i'));
    CHECK(talk.to_send(now_ns).size() < 2 * AgentTalk::kMaximumLine, "what is to be said stays small");
  }
  heard.stage = talk.stage();
  heard.status = talk.status();
  return heard;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string said;
  for (size_t i = 1; i < size; ++i) {
    if (data[i] == '@') {
      said += "0000000000000abc ";
    } else {
      said += static_cast<char>(data[i]);
    }
  }
  CHECK(hear(said, data[0] + size_t{1}) == hear(said, said.size() + 1), "cuts change nothing");
  return 0;
}
