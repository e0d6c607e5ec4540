// The wires between devices: interrupt lines, interrupt messages and the pins of a processor. Each is an interface that
// the board implements, so a device can be tested with a wire that only remembers.
#pragma once

#include <cstdint>

namespace bulkhead::device {

// One interrupt input of a controller, seen from the device that drives it. A wire without a receiver goes nowhere.
class IrqLine {
 public:
  class Receiver {
   public:
    virtual ~Receiver() = default;
    virtual void set_irq(uint32_t input, bool asserted) = 0;
  };

  IrqLine() = default;
  IrqLine(Receiver& receiver, uint32_t input) : receiver_(&receiver), input_(input) {}
  void set(bool asserted) const {
    if (receiver_ != nullptr) receiver_->set_irq(input_, asserted);
  }
  // An edge for controllers that wait for one.
  void pulse() const {
    set(true);
    set(false);
  }

 private:
  Receiver* receiver_ = nullptr;
  uint32_t input_ = 0;
};

// An interrupt message as PCI MSI writes it (SDM 3, 11.11): the I/O APIC sends these too, so that the local APICs, ours
// or the host kernel's, have one way in.
struct InterruptMessage {
  uint64_t address = 0;  // 0xFEExxxxx: destination and mode
  uint32_t data = 0;     // vector, delivery mode, trigger mode
  friend bool operator==(const InterruptMessage&, const InterruptMessage&) = default;
};

class MessageSink {
 public:
  virtual ~MessageSink() = default;
  // From any thread. A message that addresses no local APIC is lost.
  virtual void send_message(const InterruptMessage& message) = 0;
};

// What a local APIC does to its processor. The board connects it to cpu::Vcpu.
class CpuPins {
 public:
  virtual ~CpuPins() = default;
  virtual void set_interrupt_request(bool asserted) = 0;
  virtual void raise_nmi() = 0;
  virtual void raise_init() = 0;
  virtual void raise_sipi(uint8_t vector) = 0;
};

// Asked by a device that ends or restarts the machine (ACPI, keyboard controller, reset port, debug exit).
class PowerControl {
 public:
  virtual ~PowerControl() = default;
  virtual void request_power_off() = 0;
  virtual void request_reset() = 0;
  // The debug-exit port: the process is to end with this status.
  virtual void request_exit(uint8_t status) = 0;
};

}  // namespace bulkhead::device
