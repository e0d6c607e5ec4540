// Standard input and output as a serial line. A terminal becomes raw; anything else is passed through as it is.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "console/backends.h"
#include "console/terminal.h"

namespace bulkhead::console {
namespace {

// O_NONBLOCK belongs to the open file description, which is shared with the shell and everyone it started: so terminals
// and pipes are opened once more. What cannot be (sockets) or must not be (files have a position) is used as it is.
Fd reopen_non_blocking(int fd, int access) {
  struct stat status{};
  if (::fstat(fd, &status) != 0 || (!S_ISCHR(status.st_mode) && !S_ISFIFO(status.st_mode))) return Fd();
  const std::string path = fmt::format("/proc/self/fd/{}", fd);
  return Fd(::open(path.c_str(), access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
}

class StdioBackend final : public Backend {
 public:
  StdioBackend(EventLoop& loop, std::unique_ptr<RawTerminal> terminal, std::function<void(TerminalCommand)> on_command)
      : Backend(loop, Absence::kDrop),
        terminal_(std::move(terminal)),
        escape_key_(std::move(on_command)),
        input_(reopen_non_blocking(STDIN_FILENO, O_RDONLY)),
        output_(reopen_non_blocking(STDOUT_FILENO, O_WRONLY)) {
    // Reading a terminal in the background would stop the whole process.
    const bool in_background = terminal_ == nullptr && ::isatty(STDIN_FILENO) == 1;
    const int input = input_.valid() ? input_.get() : STDIN_FILENO;
    attach(in_background ? -1 : input, output_.valid() ? output_.get() : STDOUT_FILENO);
  }
  ~StdioBackend() override { detach(); }

  [[nodiscard]] std::string notice() const override {
    return terminal_ ? fmt::format("The terminal is the guest's. {}", EscapeKey::kHelp) : std::string();
  }
  void on_continued() override {
    if (terminal_) terminal_->enter_again();
  }

 private:
  // Only a person types an escape key; a pipe's bytes are all the guest's.
  size_t filter_input(MutableByteSpan bytes) override { return terminal_ ? escape_key_.filter(bytes) : bytes.size(); }

  std::unique_ptr<RawTerminal> terminal_;
  EscapeKey escape_key_;
  Fd input_, output_;
};

}  // namespace

Result<std::unique_ptr<Backend>> open_stdio(EventLoop& loop, std::function<void(TerminalCommand)> on_command) {
  std::unique_ptr<RawTerminal> terminal;
  if (is_own_terminal(STDIN_FILENO)) terminal = TRY(RawTerminal::enter(STDIN_FILENO));
  return std::make_unique<StdioBackend>(loop, std::move(terminal), std::move(on_command));
}

}  // namespace bulkhead::console
