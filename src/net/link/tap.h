// A tap device of the host's kernel: every frame goes to it and comes from it, tags and all. A thread of its own reads
// it into a bounded queue.
#pragma once

#include <atomic>

#include "net/link/bell.h"
#include "net/link/frame_queue.h"
#include "net/link/link.h"
#include "support/os/fd.h"
#include "support/os/thread.h"

namespace bulkhead::net::link {

class TapLink final : public Link {
 public:
  // Attaches to the device of this name, which the host's administrator made, or makes it with the rights to do so.
  static Result<std::unique_ptr<Link>> create(const std::string& name);
  // The first half of it: the device, opened.
  static Result<Fd> open(const std::string& name);
  // The second: on a descriptor that carries a frame a read.
  static Result<std::unique_ptr<Link>> adopt(Fd device);
  ~TapLink() override;

  Sent send(ByteSpan frame, const frame::Offload& offload) override;
  size_t receive(MutableByteSpan out, frame::Offload& offload) override;
  [[nodiscard]] bool link_up() const override { return up_; }
  void set_listener(std::function<void()> on_ready) override { bell_.set_listener(std::move(on_ready)); }
  [[nodiscard]] LinkCounters counters() const override { return {.to_guest_dropped = dropped_}; }

 private:
  TapLink(Fd device, EventFd stop) : device_(std::move(device)), stop_(std::move(stop)) {}
  void work();
  // Reads what is there, at most a queue's worth; false when the device is gone.
  [[nodiscard]] bool read_frames();

  const Fd device_;
  EventFd stop_;
  Bell bell_;
  Mutex mutex_;
  FrameQueue to_guest_ GUARDED_BY(mutex_);
  std::atomic<uint64_t> dropped_ = 0;
  std::atomic<bool> up_ = true;
  Thread thread_;
};

}  // namespace bulkhead::net::link
