// A level-triggered wire driven from several threads. The owner records under its own lock what the level must be and
// drives the wire after unlocking; whatever the order of the threads, the wire ends at the level recorded last.
#pragma once

#include "device/wires.h"
#include "support/os/mutex.h"

namespace bulkhead::device::pci {

class LevelSource {
 public:
  // Before the first settle().
  void connect(IrqLine line) { line_ = line; }
  // Only records; may be called with the owner's lock held.
  void want(bool level);
  // Drives the wire; call with no lock held.
  void settle();

 private:
  Mutex mutex_;
  IrqLine line_;
  bool wanted_ GUARDED_BY(mutex_) = false;
  bool driven_ GUARDED_BY(mutex_) = false;
  bool settling_ GUARDED_BY(mutex_) = false;
};

}  // namespace bulkhead::device::pci
