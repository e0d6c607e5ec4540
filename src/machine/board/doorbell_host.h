// How an engine takes part in a device's notifications: with KVM a write to a notify register signals the queue's
// eventfd inside the host kernel.
#pragma once

#include "memory/guest_address.h"

namespace bulkhead::machine {

// Who can have a write to an address signal an eventfd without the board's part in it: the host kernel, by ioeventfd.
// Called with the board's mapping lock held, so that the last change of a BAR is the last one told; it must not call
// the board.
class DoorbellHost {
 public:
  virtual ~DoorbellHost() = default;
  virtual void add_doorbell(GuestAddress address, int event_fd) = 0;
  virtual void remove_doorbell(GuestAddress address, int event_fd) = 0;
};

}  // namespace bulkhead::machine
