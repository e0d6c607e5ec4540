// One front end at a port: its socket, what it said (vhost::BackEnd), and frames in and out of its rings. Who owns it
// watches the descriptors.
#pragma once

#include <functional>
#include <memory>

#include "net/vhost/back_end.h"
#include "support/loop/event_loop.h"

namespace bulkhead::net::server {

class Connection {
 public:
  enum class Took : uint8_t { kNone, kFrame, kNothingOfUse };

  // on_frames when there may be frames to take, from the loop; on_end when it is over, which take(), put() and rest()
  // may find out: it must not destroy the connection yet.
  static Result<std::unique_ptr<Connection>> create(Fd socket, EventLoop& loop, std::function<void()> on_frames,
                                                    std::function<void(std::string why)> on_end);
  ~Connection();

  // The next frame that the front end sent, copied, and what is left to do to it, settled.
  struct Taken {
    MutableByteSpan frame;
    frame::Offload offload;
  };
  [[nodiscard]] Took take(MutableByteSpan room, Taken& taken);
  // False when nothing more will come without a kick.
  [[nodiscard]] bool rest();
  // While frames are taken, kicks are no news.
  void wake();
  // Puts a frame into the front end's buffers, in pieces when it does not take it whole; false when there is no room.
  [[nodiscard]] bool put(ByteSpan frame, const frame::Offload& offload);
  // Rings the front end's bells for what was taken and put since. False when a bell cannot be rung: the connection is
  // of no use any more.
  [[nodiscard]] bool tell();
  [[nodiscard]] bool is_ready() { return back_end_.ring(vhost::kReceiveRing) != nullptr; }

 private:
  Connection(Fd socket, EventLoop& loop, std::function<void()> on_frames, std::function<void(std::string)> on_end)
      : socket_(std::move(socket)), loop_(loop), on_frames_(std::move(on_frames)), on_end_(std::move(on_end)) {}
  void on_message();
  void watch_kick();
  [[nodiscard]] bool call(size_t ring) const;
  [[nodiscard]] bool put_one(ByteSpan frame, const frame::Offload& offload);
  void broken(size_t ring, const char* what);

  Fd socket_;
  EventLoop& loop_;
  std::function<void()> on_frames_;
  std::function<void(std::string)> on_end_;
  vhost::BackEnd back_end_;
  // A copy, so that the loop's watch outlives a change of the descriptor.
  Fd kick_;
  uint64_t kick_generation_ = 0;
  bool took_ = false, put_ = false;
};

}  // namespace bulkhead::net::server
