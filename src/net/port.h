// Where a network card is plugged in: frames go out, frames come in, and there is a link or not. Neither side ever
// waits for the other, and whoever is behind it keeps what the card has not fetched in a bounded queue: it rings a bell
// and never calls into the card.
#pragma once

#include <cstddef>
#include <functional>

#include "net/frame/offload.h"
#include "support/bytes.h"
#include "support/os/fd.h"

namespace bulkhead::net {

enum class Sent : uint8_t {
  kDone,    // taken, or lost as networks lose frames
  kNoRoom,  // not taken: the listener is called when there is room
};

class Port {
 public:
  virtual ~Port() = default;

  // A frame and what is left to do to it, which has been settled; its bytes are there during the call only. A port
  // whose far end does not know offloads cuts and completes it.
  virtual Sent send(ByteSpan frame, const frame::Offload& offload) = 0;
  Sent send(ByteSpan frame) { return send(frame, {}); }
  // Moves the next waiting frame into out and returns its size, 0 when there is none; offload says what is left to do,
  // settled too. What is larger than out is lost.
  virtual size_t receive(MutableByteSpan out, frame::Offload& offload) = 0;
  [[nodiscard]] virtual bool link_up() const = 0;

  // on_ready is called when a frame has come, when there is room after kNoRoom, and when the link changed; from any
  // thread, with no lock of the port held, and it may call everything above. An empty function takes the listener away;
  // once this has returned, the former one is not running any more; so not to be called from the listener.
  virtual void set_listener(std::function<void()> on_ready) = 0;
  // An event that whoever is behind the port signals by itself for frames and room: a card that has asked for it waits
  // for it instead, which saves waking a thread that would only call the listener. The listener is still called for the
  // rest. It lives as long as the port; nullptr where there is none.
  virtual EventFd* news() { return nullptr; }
};

}  // namespace bulkhead::net
