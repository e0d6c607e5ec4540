// Carries out commands that come over a serial line, for "bulkhead exec" and for readiness that is asked by a command:
//
//   agent /dev/ttyS1
//
// docs/agent.md has the protocol. One command at a time, with a session and process group of its own; a new one ends
// the one before, and one whose asker is not heard of for half a minute is ended too. Whoever has the serial line has
// this program's rights: it is the hypervisor's, which has them anyway.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr size_t kOutputWindow = 16384, kInputWindow = 2048, kPiece = 1024, kMaximumLine = 8192;
constexpr long kPatience_s = 30;
constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

long now_s() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec;
}

std::string to_base64(std::string_view bytes) {
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - at);
    unsigned three = 0;
    for (size_t i = 0; i < 3; ++i) three = three << 8 | (i < count ? static_cast<unsigned char>(bytes[at + i]) : 0);
    for (size_t i = 0; i < 4; ++i) text += i <= count ? kDigits[three >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

std::string from_base64(std::string_view text) {
  std::string bytes;
  unsigned bits = 0, count = 0;
  for (const char c : text) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) break;
    bits = (bits << 6 | static_cast<unsigned>(digit)) & 0xFFFF;
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>(bits >> count);
    }
  }
  return bytes;
}

void close_it(int& fd) {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

struct Agent {
  int line = -1;
  std::string id;
  bool asked = false;    // of this id, a command
  bool running = false;  // until its end is told
  pid_t pid = -1;
  int status = -1;  // of the command, when it has ended
  int input = -1, outputs[2] = {-1, -1};
  std::string pending;  // input that the command has not taken yet
  bool input_ends = false;
  size_t not_taken = 0;  // of its output, by the host
  long heard_s = 0, told_s = 0;

  void say(const std::string& text) const {
    const std::string whole = id + " " + text + "\n";
    for (size_t done = 0; done < whole.size();) {
      const ssize_t count = ::write(line, whole.data() + done, whole.size() - done);
      if (count <= 0 && errno != EINTR) return;
      done += static_cast<size_t>(std::max<ssize_t>(count, 0));
    }
  }

  void forget() {
    close_it(input);
    for (int& output : outputs) close_it(output);
    pending.clear();
    input_ends = running = false;
    pid = status = -1;
    not_taken = 0;
  }

  // To its group, and before there is one to itself.
  void send(int signal) const {
    if (running && status < 0 && ::kill(-pid, signal) != 0) ::kill(pid, signal);
  }

  void end() {
    send(SIGKILL);
    forget();
  }

  [[noreturn]] static void become(const std::vector<std::string>& words, const int* ends) {
    ::setsid();
    for (int i = 0; i < 3; ++i) ::dup2(ends[i], i);
    for (const int number : {SIGPIPE, SIGHUP}) ::signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    ::execvp(arguments[0], arguments.data());
    const int error = errno;
    ::dprintf(2, "agent: %s: %s\n", arguments[0], ::strerror(error));
    ::_exit(error == ENOENT || error == ENOTDIR ? 127 : 126);
  }

  void start(const std::string& command) {
    std::vector<std::string> words{""};
    for (const char c : command) {
      if (c == '\0') {
        words.emplace_back();
      } else {
        words.back() += c;
      }
    }
    int pipes[3][2];
    for (int i = 0; i < 3; ++i) {
      if (::pipe2(pipes[i], O_CLOEXEC) == 0) continue;
      while (i-- > 0) ::close(pipes[i][0]), ::close(pipes[i][1]);
      return say("end 125");
    }
    const int theirs[3] = {pipes[0][0], pipes[1][1], pipes[2][1]};
    pid = ::fork();
    if (pid == 0) become(words, theirs);
    for (const int fd : theirs) ::close(fd);
    input = pipes[0][1];
    for (int i = 0; i < 2; ++i) outputs[i] = pipes[i + 1][0];
    for (const int fd : {input, outputs[0], outputs[1]}) ::fcntl(fd, F_SETFL, O_NONBLOCK);
    if (pid < 0) {
      forget();
      return say("end 125");
    }
    running = true;
  }

  void take(std::string_view text) {
    const auto word = [&text] {
      const std::string_view found = text.substr(0, text.find(' '));
      text.remove_prefix(std::min(text.size(), found.size() + 1));
      return std::string(found);
    };
    const std::string verb = word(), whose = word();
    if (verb == "hello" && !whose.empty()) {
      if (whose != id) {
        end();
        id = whose;
        asked = false;
      }
      heard_s = now_s();
      return say("hello 1");
    }
    if (whose != id) return;
    heard_s = now_s();
    const std::string argument = word();
    const size_t number = std::strtoul(argument.c_str(), nullptr, 10);
    if (verb == "run" && !asked) {
      asked = true;
      say("began");
      start(from_base64(argument));
    }
    if (!running) return;
    if (verb == "took") not_taken -= std::min(not_taken, number);
    if (verb == "signal" && number >= 1 && number <= 64) send(static_cast<int>(number));
    if (verb == "eof") input_ends = true;
    if (verb == "in") {
      const std::string bytes = from_base64(argument);
      if (pending.size() + bytes.size() <= kInputWindow) pending += bytes;
    }
  }

  // To the command, which may have closed its input: then it is gone.
  void pass_in() {
    if (!pending.empty()) {
      const ssize_t count = input < 0 ? -1 : ::write(input, pending.data(), pending.size());
      if (count < 0 && input >= 0 && (errno == EAGAIN || errno == EINTR)) return;
      if (count < 0) close_it(input);
      const size_t gone = count < 0 ? pending.size() : static_cast<size_t>(count);
      pending.erase(0, gone);
      say("took " + std::to_string(gone));
    }
    if (input_ends && pending.empty()) close_it(input);
  }

  // Whether there was something to read.
  bool pass_on(int which) {
    char bytes[kPiece];
    if (outputs[which] < 0 || not_taken >= kOutputWindow) return false;
    const ssize_t count = ::read(outputs[which], bytes, sizeof bytes);
    if (count < 0) return false;
    if (count == 0) {
      close_it(outputs[which]);
      return false;
    }
    not_taken += static_cast<size_t>(count);
    say(std::string(which == 0 ? "out " : "err ") + to_base64({bytes, static_cast<size_t>(count)}));
    return true;
  }

  void look_after() {
    int waited = 0;
    for (pid_t ended; (ended = ::waitpid(-1, &waited, WNOHANG)) > 0;) {
      if (running && ended == pid) status = WIFEXITED(waited) ? WEXITSTATUS(waited) : 128 + WTERMSIG(waited);
    }
    if (!running) return;
    pass_in();
    bool more = false;
    for (int which = 0; which < 2; ++which) more |= pass_on(which);
    // It has ended, and all that it wrote is told; what it left running may go on and keep the pipes.
    if (status >= 0 && !more && not_taken < kOutputWindow) {
      say("end " + std::to_string(status));
      return forget();
    }
    if (now_s() - heard_s > kPatience_s) return end();
    if (now_s() != told_s) {
      told_s = now_s();
      say("alive");
    }
  }
};

}  // namespace

int main(int count, char** arguments) {
  Agent agent;
  agent.line = ::open(count == 2 ? arguments[1] : "", O_RDWR | O_NOCTTY | O_CLOEXEC);
  termios raw{};
  if (agent.line < 0 || ::tcgetattr(agent.line, &raw) != 0) {
    std::fprintf(stderr, "usage: agent SERIAL-LINE\n");
    return 2;
  }
  ::cfmakeraw(&raw);
  raw.c_cflag |= CLOCAL | CREAD;
  ::tcsetattr(agent.line, TCSANOW, &raw);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  sigset_t children;
  sigemptyset(&children);
  sigaddset(&children, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &children, nullptr);
  const int news = ::signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
  std::string line;
  for (;;) {
    const bool open = agent.not_taken < kOutputWindow;
    pollfd fds[5] = {{agent.line, POLLIN, 0},
                     {news, POLLIN, 0},
                     {open ? agent.outputs[0] : -1, POLLIN, 0},
                     {open ? agent.outputs[1] : -1, POLLIN, 0},
                     {agent.pending.empty() ? -1 : agent.input, POLLOUT, 0}};
    ::poll(fds, 5, agent.running ? 500 : -1);
    signalfd_siginfo ignored;
    while (::read(news, &ignored, sizeof ignored) == sizeof ignored) continue;
    if (fds[0].revents != 0) {
      char bytes[512];
      const ssize_t size = ::read(agent.line, bytes, sizeof bytes);
      if (size <= 0) ::sleep(1);
      for (ssize_t i = 0; i < size; ++i) {
        if (bytes[i] != '\n') {
          if (line.size() <= kMaximumLine) line += bytes[i];
          continue;
        }
        if (line.size() <= kMaximumLine) agent.take(line);
        line.clear();
      }
    }
    agent.look_after();
  }
}
