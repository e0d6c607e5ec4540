// A pseudo terminal as a serial line. While no program has the terminal open, its master reports a hang-up; the kernel
// does not tell when that ends, so it is asked five times a second.
#include <cerrno>
#include <cstdlib>

#include <fcntl.h>
#include <poll.h>
#include <termios.h>

#include "console/backends.h"

namespace bulkhead::console {
namespace {

constexpr std::chrono::milliseconds kAskAgain{200};

class PtyBackend final : public Backend {
 public:
  PtyBackend(EventLoop& loop, Fd master, std::string name)
      : Backend(loop, Absence::kKeepLatest), master_(std::move(master)), name_(std::move(name)) {
    look_for_user();
  }
  ~PtyBackend() override {
    loop_.cancel(timer_);
    detach();
  }
  [[nodiscard]] std::string notice() const override { return fmt::format("a serial line is {}", name_); }

 private:
  void look_for_user() {
    pollfd entry{.fd = master_.get(), .events = 0, .revents = 0};
    if (::poll(&entry, 1, 0) == 1 && (entry.revents & POLLHUP) != 0) {
      timer_ = loop_.call_after(kAskAgain, [this] { look_for_user(); });
    } else {
      attach(master_.get(), master_.get());
    }
  }
  void on_hangup() override { look_for_user(); }

  Fd master_;
  std::string name_;
  EventLoop::TimerId timer_ = 0;
};

}  // namespace

Result<std::unique_ptr<Backend>> open_pty_backend(EventLoop& loop) {
  Fd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  if (!master.valid() || ::grantpt(master.get()) != 0 || ::unlockpt(master.get()) != 0) {
    return fail_errno(errno, "create a pseudo terminal");
  }
  char name[64];
  if (const int error = ::ptsname_r(master.get(), name, sizeof name); error != 0) {
    return fail_errno(error, "name a pseudo terminal");
  }
  // Opened and closed once: without it the master does not report that nobody is there. Raw, so that the first user's
  // terminal does not echo the guest's output back to it.
  const Fd slave = TRY(open_file(name, O_RDWR | O_NOCTTY));
  termios mode{};
  if (::tcgetattr(slave.get(), &mode) == 0) {
    ::cfmakeraw(&mode);
    ::tcsetattr(slave.get(), TCSANOW, &mode);
  }
  return std::make_unique<PtyBackend>(loop, std::move(master), name);
}

}  // namespace bulkhead::console
