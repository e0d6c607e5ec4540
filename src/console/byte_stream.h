// The far end of a serial line as the device sees it: a terminal, a file, a socket, a pty. Neither side ever waits for
// the other: who has no room says so by a short count and calls the listener when there is room again.
#pragma once

#include <cstddef>
#include <functional>

#include "support/bytes.h"

namespace bulkhead::console {

class ByteStream {
 public:
  virtual ~ByteStream() = default;

  // Takes as many leading bytes as there is room for and returns that count; never blocks. The caller keeps the rest
  // and offers it again when the listener is called. A stream with nobody at its far end takes everything and drops it.
  virtual size_t write(ByteSpan bytes) = 0;

  // Moves up to out.size() bytes of waiting input into out and returns the count; never blocks. What the caller does
  // not take stays with the stream, which stops reading its source when its own bounded buffer is full: that is the
  // back-pressure.
  virtual size_t read(MutableByteSpan out) = 0;

  // on_ready is called when input has come for read() or room for write() after a short count; from any thread, with no
  // lock of the stream held, and it may call read() and write(). An empty function takes the listener away; once this
  // has returned, the former one is not running any more (unless it is the caller).
  virtual void set_listener(std::function<void()> on_ready) = 0;
};

}  // namespace bulkhead::console
