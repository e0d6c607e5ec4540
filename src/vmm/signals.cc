#include "vmm/signals.h"

#include <csignal>

#include <sys/signalfd.h>
#include <unistd.h>

namespace bulkhead::vmm {
namespace {

sigset_t our_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGCONT}) sigaddset(&set, signal);
  return set;
}

}  // namespace

void block_signals() {
  const sigset_t set = our_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

Result<std::unique_ptr<Signals>> Signals::create(EventLoop& loop, std::function<void()> on_shut_down,
                                                 std::function<void()> on_continued) {
  const sigset_t set = our_signals();
  Fd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return fail_errno(errno, "create a signalfd");
  const int number = fd.get();
  std::unique_ptr<Signals> made(new Signals(loop, std::move(fd), std::move(on_shut_down), std::move(on_continued)));
  TRY(loop.watch(number, EPOLLIN, [signals = made.get()](uint32_t) { signals->receive(); }));
  return made;
}

Signals::~Signals() { loop_.unwatch(fd_.get()); }

void Signals::receive() {
  signalfd_siginfo info{};
  while (::read(fd_.get(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGCONT) {
      on_continued_();
    } else {
      on_shut_down_();
    }
  }
}

}  // namespace bulkhead::vmm
