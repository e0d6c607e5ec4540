// A tunnel to other hosts as a link (net/tunnel): a UDP socket, a clock, and a thread that hears the socket, keeps the
// times and answers questions about the tunnel's state. Who sends a frame seals it on its own thread.
#pragma once

#include <atomic>
#include <vector>

#include "net/link/bell.h"
#include "net/link/frame_queue.h"
#include "net/link/link.h"
#include "net/server/control.h"
#include "net/tunnel/tunnel.h"
#include "support/loop/event_loop.h"
#include "support/os/mutex.h"
#include "support/os/thread.h"

namespace bulkhead::net::link {

struct TunnelLinkConfig {
  tunnel::TunnelConfig tunnel;
  // Of this host; [::] is all addresses of both families.
  tunnel::Endpoint listen;
  std::string status_path;  // of a control socket that tells the state; empty: none
};

class TunnelLink final : public Link, private tunnel::TunnelOutput {
 public:
  // Opens all that it needs; afterwards the process may give up files.
  static Result<std::unique_ptr<TunnelLink>> create(const TunnelLinkConfig& config);
  void start();
  ~TunnelLink() override;

  using Port::send;
  Sent send(ByteSpan frame, const frame::Offload& offload) override;
  size_t receive(MutableByteSpan out, frame::Offload& offload) override;
  // A host that is away is not a cable that is out: others may be there.
  [[nodiscard]] bool link_up() const override { return true; }
  void set_listener(std::function<void()> on_ready) override { bell_.set_listener(std::move(on_ready)); }
  [[nodiscard]] LinkCounters counters() const override { return {.to_guest_dropped = dropped_}; }
  // Where the socket is bound.
  [[nodiscard]] const tunnel::Endpoint& local() const { return local_; }
  [[nodiscard]] std::string describe();

 private:
  TunnelLink(std::unique_ptr<EventLoop> loop, Fd socket, bool is_ipv6);
  void transmit(const tunnel::Endpoint& to, ByteSpan datagram) override;
  void deliver(ByteSpan frame) override;
  void hear();
  void tick();

  const std::unique_ptr<EventLoop> loop_;
  const Fd socket_;
  const bool is_ipv6_;
  tunnel::Endpoint local_;
  HostRandom random_;
  Bell bell_;
  std::atomic<uint64_t> dropped_ = 0, unsent_ = 0;

  Mutex mutex_;
  std::unique_ptr<tunnel::Tunnel> tunnel_ GUARDED_BY(mutex_);
  std::vector<uint8_t> outgoing_ GUARDED_BY(mutex_);
  bool has_news_ = false;  // of the thread

  Mutex queue_mutex_;
  FrameQueue to_guest_ GUARDED_BY(queue_mutex_);

  // Of the thread.
  std::vector<uint8_t> incoming_;
  std::unique_ptr<server::Control> status_;
  Thread thread_;
};

}  // namespace bulkhead::net::link
