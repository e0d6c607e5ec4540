// The cable between a card and what it is plugged into: pulled out and put back while the machine runs. Nothing passes
// a cable that is out, and the card sees its link down.
#pragma once

#include <atomic>
#include <memory>

#include "net/link/bell.h"
#include "net/link/link.h"

namespace bulkhead::net::link {

class Cable final : public Link {
 public:
  explicit Cable(std::unique_ptr<Link> far);
  ~Cable() override;

  // From any thread; not from the listener.
  void set_plugged(bool plugged);
  [[nodiscard]] bool is_plugged() const { return plugged_; }

  using Port::send;
  Sent send(ByteSpan frame, const frame::Offload& offload) override;
  size_t receive(MutableByteSpan out, frame::Offload& offload) override;
  [[nodiscard]] bool link_up() const override { return plugged_ && far_->link_up(); }
  void set_listener(std::function<void()> on_ready) override { bell_.set_listener(std::move(on_ready)); }
  EventFd* news() override { return far_->news(); }
  [[nodiscard]] LinkCounters counters() const override;

 private:
  const std::unique_ptr<Link> far_;
  Bell bell_;
  std::atomic<bool> plugged_ = true;
  std::atomic<uint64_t> lost_ = 0;  // that came while it was out
};

}  // namespace bulkhead::net::link
