#include "plant/run/agent_line.h"

#include <filesystem>
#include <memory>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/server/listen.h"

namespace bulkhead::plant {
namespace {

using State = AgentLine::State;
constexpr uint64_t kSecond_ns = 1'000'000'000;

// The machine's end of the line, played by the test.
class Machine {
 public:
  Machine() : path_(fmt::format("/tmp/agent_line_test.{}", ::getpid())), listener_(*net::server::listen_at(path_)) {}
  ~Machine() { stop(); }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  void stop() {
    listener_.reset();
    end_.reset();
    std::filesystem::remove(path_);
  }
  void let_in() { end_ = Fd(::accept(listener_.get(), nullptr, nullptr)); }
  void hang_up() { end_.reset(); }
  void say(std::string_view text) {
    ASSERT_EQ(::send(end_.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  std::string heard() {
    std::string text(65536, 0);
    const ssize_t count = ::recv(end_.get(), text.data(), text.size(), MSG_DONTWAIT);
    text.resize(static_cast<size_t>(std::max<ssize_t>(count, 0)));
    return text;
  }

 private:
  std::string path_;
  Fd listener_, end_;
};

TEST(AgentLine, TalksToAMachineAndSeesItEnd) {
  Machine machine;
  AgentLine line(machine.path(), 1, {"true"});
  line.poll(kSecond_ns);
  EXPECT_EQ(line.state(), State::kCalling);
  machine.let_in();
  EXPECT_EQ(machine.heard(), "\nhello 0000000000000001\n");
  machine.say("0000000000000001 hello 1\n");
  line.poll(kSecond_ns + 1);
  EXPECT_EQ(line.state(), State::kTalking);
  EXPECT_EQ(machine.heard(), "run 0000000000000001 dHJ1ZQ==\n");
  machine.say("0000000000000001 began\n");
  line.poll(kSecond_ns + 2, true);
  EXPECT_EQ(line.talk().stage(), AgentTalk::Stage::kAsked) << "what is not wanted now stays in the line";
  line.poll(kSecond_ns + 2);
  EXPECT_EQ(line.talk().stage(), AgentTalk::Stage::kRuns);
  machine.hang_up();
  line.poll(3 * kSecond_ns);
  EXPECT_EQ(line.state(), State::kLost);
  EXPECT_EQ(line.descriptor(), -1);
  line.poll(6 * kSecond_ns);
  EXPECT_EQ(line.state(), State::kLost) << "a command is not asked for twice";
}

TEST(AgentLine, ComesBackToALineThatIsTakenAndOneThatIsNotThereYet) {
  Machine machine;
  AgentLine line(machine.path(), 1, {"true"});
  line.poll(kSecond_ns);
  machine.let_in();
  machine.hang_up();
  line.poll(kSecond_ns + 1);
  EXPECT_EQ(line.state(), State::kBusy);
  line.poll(kSecond_ns + 2);
  EXPECT_EQ(line.descriptor(), -1) << "not at once";
  line.poll(3 * kSecond_ns);
  machine.let_in();
  EXPECT_EQ(machine.heard(), "\nhello 0000000000000001\n");
  machine.stop();
  line.poll(4 * kSecond_ns);
  line.poll(5 * kSecond_ns);
  EXPECT_EQ(line.state(), State::kNobody);
}

TEST(AgentLine, ABusyDoorIsNotWaitedFor) {
  Machine machine;
  std::vector<std::unique_ptr<AgentLine>> others;
  do {
    others.push_back(std::make_unique<AgentLine>(machine.path(), 2, std::vector<std::string>{"true"}));
    others.back()->poll(kSecond_ns);
  } while (others.size() < 64 && others.back()->state() == State::kCalling);
  AgentLine line(machine.path(), 1, {"true"});
  line.poll(kSecond_ns);
  EXPECT_EQ(line.state(), State::kBusy);
}

}  // namespace
}  // namespace bulkhead::plant
