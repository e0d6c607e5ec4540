// A cable between two ports: what one receives the other sends, in both directions, by whoever runs it. It looks at no
// frame, and what one end has no room for waits there and holds up that direction only.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <vector>

#include "net/port.h"
#include "support/os/fd.h"

namespace bulkhead::net::link {

class Patch {
 public:
  // The ports outlive it.
  static Result<std::unique_ptr<Patch>> create(Port& one, Port& other);
  ~Patch();

  // Carries frames until stop(); on_link, from this thread, when both ends have come up or one has gone down.
  void run(const std::function<void(bool up)>& on_link);
  // From any thread and from a signal's handler.
  void stop();

 private:
  struct Lane {
    Port& from;
    Port& to;
    std::vector<uint8_t> frame;
    frame::Offload offload;
    size_t waiting = 0;  // bytes of a frame that had no room
  };
  Patch(Port& one, Port& other, EventFd wake);
  // True when there may be more at once.
  [[nodiscard]] static bool carry(Lane& lane);

  EventFd wake_;
  std::array<Lane, 2> lanes_;
  std::atomic<bool> stopping_ = false;
};

}  // namespace bulkhead::net::link
