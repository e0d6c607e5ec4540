#include "cli/plant/exec_session.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <optional>

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cli/command_line.h"
#include "cli/plant/terminal_text.h"
#include "plant/run/agent_line.h"

namespace bulkhead::cli {
namespace {

using plant::AgentLine;
using plant::AgentTalk;

constexpr uint64_t kSecond_ns = 1'000'000'000;
// What a command has between a signal and the next, harder one.
constexpr uint64_t kStopPatience_ns = 5 * kSecond_ns;
constexpr int kTurn_ms = 200;
// A pipe that poll() calls writable takes this much without blocking.
constexpr size_t kPipePiece = 4096;

uint64_t now_ns() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

// Signals to this process as a descriptor, so that each is passed on to the command.
Fd signals_as_descriptor() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) sigaddset(&signals, signal);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  return Fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
}

// One run of the command: between the agent's line and this process's input, outputs and signals, on one thread.
class Session {
 public:
  Session(const ExecRequest& request, AgentLine& line, Fd signals)
      : machine_(request.machine),
        line_(line),
        signals_(std::move(signals)),
        within_ns_(request.within_s * kSecond_ns),
        timeout_ns_(request.timeout_s * kSecond_ns) {
    for (size_t i = 0; i < outputs_.size(); ++i) {
      outputs_[i].fd = i == 0 ? STDOUT_FILENO : STDERR_FILENO;
      outputs_[i].is_terminal = ::isatty(outputs_[i].fd) == 1;
    }
    line.talk().on_output = [this](bool is_error, std::string_view bytes) {
      Output& output = outputs_[is_error ? 1 : 0];
      output.taken += bytes.size();
      output.waiting += output.is_terminal ? output.text.filter(bytes) : std::string(bytes);
      if (output.waiting.empty()) line_.talk().took(std::exchange(output.taken, 0));
    };
  }

  int run() {
    began_ns_ = heard_ns_ = now_ns();
    for (;;) {
      line_.poll(now_ns(), is_writing());
      if (line_.state() == AgentLine::State::kEnded && !is_writing()) return status();
      if (const auto status = look_at_time(now_ns())) return *status;
      wait_and_carry();
    }
  }

 private:
  struct Output {
    int fd = -1;
    bool is_terminal = false;
    TerminalText text;
    std::string waiting;  // of at most what the line hears at once
    size_t taken = 0;     // bytes of the command's in it
  };

  [[nodiscard]] bool is_writing() const {
    return std::ranges::any_of(outputs_, [](const Output& each) { return !each.waiting.empty(); });
  }
  [[nodiscard]] int status() const {
    if (out_of_time_) return kOutOfTime;
    return line_.talk().status();
  }
  [[nodiscard]] static int not_run(const std::string& message) {
    print_message(message);
    return kNotRun;
  }

  // With a status when the wait is over.
  std::optional<int> look_at_time(uint64_t now) {
    using State = AgentLine::State;
    const State state = line_.state();
    const std::string within = fmt::format("{} s", within_ns_ / kSecond_ns);
    if (state == State::kNobody) return not_run(fmt::format("the machine '{}' does not run", machine_));
    if (state == State::kRefused) {
      return not_run(fmt::format("'{}': its agent speaks another version than {}", machine_, AgentTalk::kVersion));
    }
    if (state == State::kLost) return not_run(fmt::format("'{}': the machine has ended", machine_));
    // While nobody takes our output, the agent is not listened to.
    if (is_writing()) heard_ns_ = now;
    heard_ns_ = std::max(heard_ns_, line_.talk().heard_ns());
    if (timeout_ns_ != 0 && now - began_ns_ > timeout_ns_ && !out_of_time_) {
      print_message(fmt::format("'{}': not done in {} s", machine_, timeout_ns_ / kSecond_ns));
      out_of_time_ = true;
      stop(SIGKILL, now);
    }
    if (stopped_by_ != 0) {
      // Without an agent there is nothing to stop.
      const bool talks = state == State::kTalking || state == State::kEnded;
      if (!talks || now - stopped_ns_ > 2 * kStopPatience_ns) return out_of_time_ ? kOutOfTime : 128 + stopped_by_;
      if (now - stopped_ns_ > kStopPatience_ns) line_.talk().signal(SIGKILL);
      return std::nullopt;
    }
    if (now - heard_ns_ <= within_ns_) return std::nullopt;
    if (state == State::kBusy) {
      return not_run(fmt::format("'{}': another command runs there, for {} at least; one at a time", machine_, within));
    }
    if (state == State::kCalling) {
      return not_run(fmt::format("'{}': no agent answers in {} (docs/agent.md)", machine_, within));
    }
    return not_run(fmt::format("'{}': its agent is not heard of for {}", machine_, within));
  }

  void stop(int signal, uint64_t now) {
    line_.talk().signal(stopped_by_ == 0 ? signal : SIGKILL);
    if (stopped_by_ == 0) stopped_ns_ = now;
    if (stopped_by_ == 0) stopped_by_ = signal;
  }

  void wait_and_carry() {
    const auto waits = [](int fd, bool when, short events) {
      return pollfd{.fd = when ? fd : -1, .events = events, .revents = 0};
    };
    const bool hears = !is_writing();
    std::array<pollfd, 5> fds{
        {waits(line_.descriptor(), true, static_cast<short>((hears ? POLLIN : 0) | (line_.has_unsent() ? POLLOUT : 0))),
         waits(signals_.get(), true, POLLIN), waits(STDIN_FILENO, line_.talk().input_room() != 0, POLLIN),
         waits(STDOUT_FILENO, !outputs_[0].waiting.empty(), POLLOUT),
         waits(STDERR_FILENO, !outputs_[1].waiting.empty(), POLLOUT)}};
    // A line that has hung up would wake us again and again where we do not hear.
    if (fds[0].events == 0) fds[0].fd = -1;
    if (::poll(fds.data(), fds.size(), kTurn_ms) < 0) return;
    signalfd_siginfo signal{};
    while (::read(signals_.get(), &signal, sizeof signal) == sizeof signal) {
      stop(static_cast<int>(signal.ssi_signo), now_ns());
    }
    if (fds[2].revents != 0) read_input();
    for (size_t i = 0; i < outputs_.size(); ++i) {
      if (fds[3 + i].revents != 0) write_output(outputs_[i]);
    }
  }

  void read_input() {
    std::array<char, AgentTalk::kInputWindow> bytes;
    const ssize_t count = ::read(STDIN_FILENO, bytes.data(), line_.talk().input_room());
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    line_.talk().give_input({bytes.data(), static_cast<size_t>(std::max<ssize_t>(count, 0))});
  }

  void write_output(Output& output) {
    const ssize_t count = ::write(output.fd, output.waiting.data(), std::min(output.waiting.size(), kPipePiece));
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (count < 0) {
      // Whoever read it has gone: so goes the command, as it would here.
      if (stopped_by_ == 0) stop(SIGPIPE, now_ns());
      output.waiting.clear();
    } else {
      output.waiting.erase(0, static_cast<size_t>(count));
    }
    if (output.waiting.empty()) line_.talk().took(std::exchange(output.taken, 0));
  }

  const std::string machine_;
  AgentLine& line_;
  const Fd signals_;
  const uint64_t within_ns_, timeout_ns_;
  std::array<Output, 2> outputs_;
  uint64_t began_ns_ = 0, heard_ns_ = 0, stopped_ns_ = 0;
  int stopped_by_ = 0;
  bool out_of_time_ = false;
};

}  // namespace

int run_in_guest(const ExecRequest& request) {
  // One that came closed would be the next descriptor of ours.
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0) (void)!::open("/dev/null", O_RDWR);
  }
  AgentLine line(request.socket_path, request.id, request.words);
  return Session(request, line, signals_as_descriptor()).run();
}

}  // namespace bulkhead::cli
