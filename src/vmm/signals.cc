#include "vmm/signals.h"

#include <csignal>

#include <sys/signalfd.h>
#include <unistd.h>

namespace bulkhead::vmm {
namespace {

sigset_t our_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGCONT, SIGUSR1}) sigaddset(&set, signal);
  return set;
}

}  // namespace

void block_signals() {
  const sigset_t set = our_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

Result<std::unique_ptr<Signals>> Signals::create(EventLoop& loop, Handlers handlers) {
  const sigset_t set = our_signals();
  Fd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return fail_errno(errno, "create a signalfd");
  const int number = fd.get();
  std::unique_ptr<Signals> made(new Signals(loop, std::move(fd), std::move(handlers)));
  TRY(loop.watch(number, EPOLLIN, [signals = made.get()](uint32_t) { signals->receive(); }));
  return made;
}

Signals::~Signals() {
  loop_.unwatch(fd_.get());
}

void Signals::receive() {
  signalfd_siginfo info{};
  while (::read(fd_.get(), &info, sizeof info) == sizeof info) {
    switch (info.ssi_signo) {
      case SIGCONT:
        handlers_.on_continued();
        break;
      case SIGUSR1:
        handlers_.on_checkpoint();
        break;
      default:
        handlers_.on_shut_down();
        break;
    }
  }
}

}  // namespace bulkhead::vmm
