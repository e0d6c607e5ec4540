// A card's way to a switch in another process: rings and buffers in memory of their own (never the guest's RAM), which
// a vhost-user switch gets to see. A thread connects, watches, and connects anew when the switch has gone: a switch
// that dies costs frames, and one that does not come back at once the guest's link (absence.h).
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <vector>

#include "net/link/bell.h"
#include "net/link/link.h"
#include "net/vhost/message.h"
#include "net/vhost/ring.h"
#include "support/os/fd.h"
#include "support/os/mutex.h"
#include "support/os/thread.h"

namespace bulkhead::net::vhost {

class FrontEnd final : public link::Link {
 public:
  // What a frame may have, without a header.
  static constexpr size_t kMaximumFrame = frame::kMaximumFrameSize;

  // The switch need not be there yet.
  static Result<std::unique_ptr<link::Link>> create(const std::string& path);
  ~FrontEnd() override;

  Sent send(ByteSpan frame, const frame::Offload& offload) override;
  size_t receive(MutableByteSpan out, frame::Offload& offload) override;
  [[nodiscard]] bool link_up() const override { return up_; }
  void set_listener(std::function<void()> on_ready) override;
  EventFd* news() override;
  [[nodiscard]] link::LinkCounters counters() const override { return {.to_guest_dropped = dropped_}; }

 private:
  static constexpr uint16_t kRingSize = 256;

  // One connection, with memory that the switch before it cannot see any more.
  struct Session {
    Fd socket;
    Mapping memory;
    EventFd receive_kick, transmit_kick;
    std::unique_ptr<DriverRing> receive, transmit;
    std::vector<uint16_t> free;
    bool waits_for_room = false;
    uint64_t features = 0;
    [[nodiscard]] uint8_t* buffer(size_t ring, uint16_t index) const;
  };

  FrontEnd(std::string path, EventFd stop, EventFd again, EventFd news)
      : path_(std::move(path)), stop_(std::move(stop)), again_(std::move(again)), news_(std::move(news)) {}
  // Whoever listens there.
  [[nodiscard]] Result<Fd> reach() const;
  [[nodiscard]] Result<std::unique_ptr<Session>> begin_session(Fd socket) const;
  Result<> introduce(Session& session, int file) const;
  void work();
  void rest(std::chrono::milliseconds pause) const;
  // Both return when the session is over.
  void keep(std::unique_ptr<Session> session);
  void watch(const Session& session);
  // A place is free.
  static void put(Session& session, ByteSpan frame, const frame::Offload& offload);
  // Takes back what the switch has sent off; false when it makes no sense.
  [[nodiscard]] bool reap() REQUIRES(mutex_);
  void break_off() REQUIRES(mutex_);

  const std::string path_;
  EventFd stop_;
  EventFd again_;  // the listener is to be called
  // The switch's, for both rings. It is never signalled from here: a switch could make it one that waits, and fill it.
  EventFd news_;
  std::atomic<bool> news_taken_ = false;  // by the card, which waits for it
  link::Bell bell_;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> up_ = false;
  std::atomic<uint64_t> dropped_ = 0;
  Mutex mutex_;
  std::unique_ptr<Session> session_ GUARDED_BY(mutex_);
  Thread thread_;
};

}  // namespace bulkhead::net::vhost
