// A piece of hardware as the guest sees it: a name, reset, and facets for what it can do. A device gets its wires when
// it is made (IrqLine, guest memory, a clock, a disk) and never sees the machine, the VMM or an interrupt number.
//
// Every facet may be called from any vCPU thread at the same time; a device protects itself with its own lock and never
// calls out (a wire, a backend) while holding it: compute the action under the lock, unlock, perform it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "support/bytes.h"
#include "support/result.h"
#include "support/state/state.h"

namespace bulkhead::device {

// Registers in port space. offset counts from the start of the range that the board gave the device.
class PortIo {
 public:
  virtual ~PortIo() = default;
  // size is 1, 2 or 4 and offset + size does not exceed the range. Unclaimed bytes read as ones.
  virtual uint32_t read_port(uint16_t offset, unsigned size) = 0;
  virtual void write_port(uint16_t offset, unsigned size, uint32_t value) = 0;
};

// Registers in memory space: 1 to 8 bytes, any alignment, offset + size within the range (DEVICE_SAFETY rule 14).
class Mmio {
 public:
  virtual ~Mmio() = default;
  virtual void read_mmio(uint64_t offset, MutableByteSpan out) = 0;
  virtual void write_mmio(uint64_t offset, ByteSpan in) = 0;
};

// Saved state, from a device's first day. save_state() is called with the machine paused. restore_state() either leaves
// a device that passes its own validation, or an error and a device that must be reset.
class SavedState {
 public:
  virtual ~SavedState() = default;
  virtual void save_state(StateWriter& writer) const = 0;
  virtual Result<> restore_state(const StateReader& reader) = 0;
};

class Device : public SavedState {
 public:
  // Unique in the machine and stable across versions: it names the device in saved state ("rtc", "uart0",
  // "virtio-block0").
  [[nodiscard]] virtual std::string_view name() const = 0;
  // As by the board's reset line. Ends work under way before it returns.
  virtual void reset() = 0;
};

// A device that works on threads of its own. The machine stops its vCPUs, then pauses these devices; between pause()
// and resume() they touch no guest memory and no wire, so that RAM and saved state belong together.
class ThreadedWork {
 public:
  virtual ~ThreadedWork() = default;
  // Returns when work under way has ended.
  virtual void pause() = 0;
  virtual void resume() = 0;
};

}  // namespace bulkhead::device
