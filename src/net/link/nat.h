// User-mode NAT by libslirp: the guest finds a DHCP server, a name server and a gateway at 10.0.2.0/24, and its
// connections leave the host as connections of this process, without any privilege. libslirp runs on one thread, which
// alone touches it; frames go through bounded queues in both directions. IPv4 only.
//
// libslirp is C that parses what a guest sends. In a plant it runs in a process of its own that has given up files and
// calls; in a VM's process its thread gives up the same, which ends what it calls by itself, but not what it might
// write into the memory that it shares.
//
//   10.0.2.2 the gateway (and with reach_host the host's loopback), 10.0.2.3 names, 10.0.2.15 the guest
#pragma once

#include <atomic>
#include <vector>

#include <poll.h>

#include "net/link/bell.h"
#include "net/link/frame_queue.h"
#include "net/link/link.h"
#include "support/log.h"
#include "support/os/confine.h"
#include "support/os/fd.h"
#include "support/os/thread.h"

struct Slirp;

namespace bulkhead::net::link {

class NatLink final : public Link {
 public:
  // Who gives up files and calls: the process has, or is about to, or the thread does.
  enum class Confined : uint8_t { kProcess, kThread };
  static Result<std::unique_ptr<Link>> create(const LinkConfig& config, Confined confined);
  ~NatLink() override;
  // What libslirp needs of the host, beside what every confined thread has.
  static Confinement needs();
  // What must be readable so that this file is: where it is a link to another folder, as the one of systemd-resolved,
  // that folder too, in which the file is replaced.
  static std::vector<std::string> readable_for(const std::string& file);

  Sent send(ByteSpan frame, const frame::Offload& offload) override;
  size_t receive(MutableByteSpan out, frame::Offload& offload) override;
  [[nodiscard]] bool link_up() const override { return true; }
  void set_listener(std::function<void()> on_ready) override { bell_.set_listener(std::move(on_ready)); }
  [[nodiscard]] LinkCounters counters() const override { return {.to_guest_dropped = dropped_}; }

 private:
  struct Callbacks;
  // libslirp asks for these; there is at most one of each kind.
  struct NatTimer {
    void (*expired)(void*);
    void* opaque;
    int64_t deadline_ms;  // INT64_MAX: not armed
  };
  explicit NatLink(EventFd wake) : wake_(std::move(wake)) {}
  Result<> start(const LinkConfig& config, Confined confined);
  Result<> add_forward(const Forward& forward);
  static void give_up();
  void work();
  [[nodiscard]] int wait_ms(uint32_t slirp_ms) const;
  void feed();
  void run_timers();

  EventFd wake_;
  Bell bell_;
  std::atomic<bool> stopping_ = false;
  std::atomic<uint64_t> dropped_ = 0;
  log::RateLimit error_limit_;

  Mutex mutex_;
  FrameQueue to_guest_ GUARDED_BY(mutex_);
  FrameQueue from_guest_ GUARDED_BY(mutex_);
  bool wants_room_ GUARDED_BY(mutex_) = false;

  // Of the thread, and before it runs.
  Slirp* slirp_ = nullptr;
  std::vector<std::unique_ptr<NatTimer>> timers_;
  std::vector<pollfd> fds_;
  bool has_news_ = false;
  Thread thread_;
};

}  // namespace bulkhead::net::link
