// What makes a virtio device a disk, a console or a source of randomness, behind a transport that knows nothing of it.
// A model takes chains out of its queues and gives them back; it never sees registers, interrupts or the ring's layout.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "device/virtio/queue/queue.h"
#include "support/bytes.h"
#include "support/os/fd.h"
#include "support/result.h"
#include "support/state/state.h"

namespace bulkhead::device::virtio {

// What the transport does for its model.
class Transport {
 public:
  virtual ~Transport() = default;

  // ---- On the worker only ----
  // nullptr while the driver has not enabled the queue, and when the device is not running.
  [[nodiscard]] virtual Queue* queue(unsigned index) = 0;
  // After chains were given back: interrupts the driver if it wants to be.
  virtual void used(unsigned index) = 0;
  // The driver broke the rules: the device does nothing more until it is reset.
  virtual void needs_reset(std::string_view reason) = 0;
  // Whether the machine is: the driver is told of nothing new.
  [[nodiscard]] virtual bool paused() const = 0;

  // ---- From any thread ----
  // Has the worker call Model::on_wake() soon, and process() for each queue.
  virtual void wake() = 0;
  // The device configuration changed: tells the driver.
  virtual void config_changed() = 0;
  // The same of what a driver reads in several pieces, which change() changes: whoever reads the generation finds
  // another one with the change, never before or after it, so that pieces of two configurations are never taken for
  // one (VIRTIO 1.2, 2.5.3). change() calls nothing of the transport.
  virtual void change_config(const std::function<void()>& change) = 0;
};

class Model {
 public:
  virtual ~Model() = default;

  // ---- Fixed for its life ----
  // Names the device in the machine and in saved state ("virtio-block0").
  [[nodiscard]] virtual std::string_view name() const = 0;
  [[nodiscard]] virtual uint16_t device_id() const = 0;
  [[nodiscard]] virtual uint32_t pci_class() const = 0;
  // Whether process_at_once() does anything for a queue.
  [[nodiscard]] virtual bool has_work_at_once(unsigned /*queue*/) const { return false; }
  // Of the device type only; the transport adds those of the rings.
  [[nodiscard]] virtual uint64_t features() const = 0;
  // The largest size of each queue: a power of two.
  [[nodiscard]] virtual std::vector<uint16_t> queue_sizes() const = 0;
  // Once, before anything else.
  virtual void attach(Transport& transport) = 0;
  // Another event that stands for Transport::wake(), asked for once after attach(); it outlives the device.
  virtual EventFd* own_event() { return nullptr; }

  // ---- From any thread: the device configuration structure. Bytes beyond its end read as zero. ----
  virtual void read_config(uint64_t offset, MutableByteSpan out) const = 0;
  virtual void write_config(uint64_t /*offset*/, ByteSpan /*in*/) {}

  // ---- On the worker only ----
  // DRIVER_OK, with the features that both sides have.
  virtual void start(uint64_t features) = 0;
  // Work on a queue: at most its size in chains, true when more may wait. Not called while the device is paused.
  [[nodiscard]] virtual bool process(unsigned queue) = 0;
  // As process(), on the thread of the vCPU that kicked and while the worker stands still: only what takes a few
  // microseconds and waits for nothing, so that a single request is spared the way to another thread.
  [[nodiscard]] virtual bool process_at_once(unsigned /*queue*/) { return true; }
  // After Transport::wake(), even while paused or being reset: give finished requests back and do nothing else.
  virtual void on_wake() {}
  // The machine goes on after a pause: what could not be done before it is tried again.
  virtual void resume() {}
  // Chains taken and not given back, except for those that only wait for resume().
  [[nodiscard]] virtual size_t in_flight() const = 0;
  // The device was reset and nothing is in flight: forget the driver.
  virtual void stop() = 0;

  // With nothing in flight.
  virtual void save_state(StateWriter& writer) const = 0;
  virtual Result<> restore_state(const StateReader& reader) = 0;
};

}  // namespace bulkhead::device::virtio
