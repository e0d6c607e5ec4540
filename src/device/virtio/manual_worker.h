// A worker without a thread: its callbacks run when its owner says so, on the owner's thread. For tests and for runs
// that must repeat themselves.
#pragma once

#include <poll.h>

#include <utility>
#include <vector>

#include "device/virtio/worker.h"

namespace bulkhead::device::virtio {

class ManualWorker final : public Worker {
 public:
  Result<> watch(EventFd& event, std::function<void()> callback) override {
    watches_.push_back({&event, std::move(callback)});
    return {};
  }
  void start() override {}
  void run_and_wait(std::function<void()> work) override { work(); }
  bool try_run(const std::function<void()>& work) override {
    if (takes_help) work();
    return takes_help;
  }
  void wait_until(std::function<bool()> condition) override {
    while (!condition()) {
      if (run_once()) continue;
      std::vector<pollfd> fds;
      for (const auto& [event, callback] : watches_) fds.push_back({.fd = event->fd(), .events = POLLIN, .revents = 0});
      ::poll(fds.data(), fds.size(), -1);
    }
  }

  // One turn: each signalled event once. False when there was none.
  bool run_once() {
    bool ran = false;
    for (const auto& [event, callback] : watches_) {
      if (event->take() == 0) continue;
      ran = true;
      callback();
    }
    return ran;
  }
  // Turns until nothing is signalled, at most limit of them; returns how many there were.
  unsigned run(unsigned limit = 1000) {
    unsigned turns = 0;
    while (turns < limit && run_once()) ++turns;
    return turns;
  }

  bool takes_help = false;

 private:
  std::vector<std::pair<EventFd*, std::function<void()>>> watches_;
};

}  // namespace bulkhead::device::virtio
