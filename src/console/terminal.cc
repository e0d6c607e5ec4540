#include "console/terminal.h"

#include <array>
#include <atomic>
#include <csignal>
#include <cstdlib>

#include <unistd.h>

#include "support/check.h"

namespace bulkhead::console {
namespace {

// What a signal handler needs to put the terminal back. Written before active is set and not changed while it is.
struct Rescue {
  std::atomic<bool> active{false};
  int fd = -1;
  termios saved{};
};
Rescue rescue;

constexpr std::array kCrashSignals = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGQUIT};

// tcsetattr and raise are safe in a signal handler.
void restore_terminal() {
  if (rescue.active.exchange(false)) ::tcsetattr(rescue.fd, TCSANOW, &rescue.saved);
}

void on_crash(int signal) {
  restore_terminal();
  std::signal(signal, SIG_DFL);
  ::raise(signal);
}

// A signal that something else handles (a sanitizer, the engine) is left to it.
void guard_crash_signals() {
  for (const int signal : kCrashSignals) {
    struct sigaction present{};
    if (::sigaction(signal, nullptr, &present) != 0 || present.sa_handler != SIG_DFL) continue;
    struct sigaction action{};
    action.sa_handler = on_crash;
    ::sigaction(signal, &action, nullptr);
  }
  static const bool registered = std::atexit(restore_terminal) == 0;
  (void)registered;
}

termios raw_mode(termios mode) {
  mode.c_iflag &= ~static_cast<tcflag_t>(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
  mode.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
  mode.c_cflag = (mode.c_cflag & ~static_cast<tcflag_t>(CSIZE | PARENB)) | CS8;
  mode.c_cc[VMIN] = 1;
  mode.c_cc[VTIME] = 0;
  return mode;
}

}  // namespace

bool is_own_terminal(int fd) {
  return ::isatty(fd) == 1 && ::tcgetpgrp(fd) == ::getpgrp();
}

Result<std::unique_ptr<RawTerminal>> RawTerminal::enter(int fd) {
  termios saved{};
  if (::tcgetattr(fd, &saved) != 0) return fail_errno(errno, "read the mode of the terminal");
  CHECK(!rescue.active.load(), "a second raw terminal in one process");
  rescue.fd = fd;
  rescue.saved = saved;
  rescue.active.store(true);
  guard_crash_signals();
  const termios raw = raw_mode(saved);
  if (::tcsetattr(fd, TCSANOW, &raw) != 0) {
    rescue.active.store(false);
    return fail_errno(errno, "set the terminal to raw mode");
  }
  return std::unique_ptr<RawTerminal>(new RawTerminal(fd, saved));
}

RawTerminal::~RawTerminal() {
  restore_terminal();
}

void RawTerminal::enter_again() {
  const termios raw = raw_mode(saved_);
  if (is_own_terminal(fd_)) ::tcsetattr(fd_, TCSANOW, &raw);
}

}  // namespace bulkhead::console
