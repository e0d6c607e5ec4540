// Puts the user's terminal into raw mode for a guest's console and gives it back as it was on every way out:
// destruction, exit(), and the signals of a crash. At most one in a process, because a terminal and its signal handlers
// are.
#pragma once

#include <termios.h>

#include <memory>

#include "support/result.h"

namespace bulkhead::console {

class RawTerminal {
 public:
  // Input raw (no echo, no signals from keys), output processing left on so that log lines keep their left margin.
  static Result<std::unique_ptr<RawTerminal>> enter(int fd);
  ~RawTerminal();
  // Raw again, after the process was stopped and continued by job control.
  void enter_again();

 private:
  RawTerminal(int fd, const termios& saved) : fd_(fd), saved_(saved) {}
  int fd_;
  termios saved_;
};

// True when fd is a terminal that this process may set: in the foreground of its session.
bool is_own_terminal(int fd);

}  // namespace bulkhead::console
