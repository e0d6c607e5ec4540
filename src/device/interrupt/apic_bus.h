// The bus between the local APICs of one machine: finds the receivers of interrupt messages and interprocessor
// interrupts and carries end-of-interrupt broadcasts to the I/O APIC. It holds no state of its own and takes no lock.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "device/interrupt/apic_message.h"
#include "device/wires.h"

namespace bulkhead::device::interrupt {

class LocalApic;

// Who wants to know that a level-triggered interrupt has been served.
class EndOfInterruptReceiver {
 public:
  virtual ~EndOfInterruptReceiver() = default;
  virtual void end_of_interrupt(uint8_t vector) = 0;
};

enum class Shorthand : uint8_t { kNone = 0, kSelf = 1, kAll = 2, kAllButSelf = 3 };

struct InterprocessorInterrupt {
  Interrupt interrupt;
  Destination destination;
  Shorthand shorthand = Shorthand::kNone;
  uint32_t sender_id = 0;
};

class ApicBus final : public MessageSink {
 public:
  static constexpr uint32_t kMaximumApics = 16;

  // At set-up, before any vCPU runs. A local APIC attaches and detaches itself.
  void attach(LocalApic& apic);
  void detach(LocalApic& apic);
  void set_end_of_interrupt_receiver(EndOfInterruptReceiver* receiver) { end_of_interrupt_receiver_ = receiver; }

  void send_message(const InterruptMessage& message) override;
  void send(const InterprocessorInterrupt& ipi);
  void broadcast_end_of_interrupt(uint8_t vector) const;

 private:
  // One bit an APIC.
  using ReceiverSet = uint32_t;
  [[nodiscard]] ReceiverSet find(const Destination& destination) const;
  // The receiver whose processor does the least important work; the vector spreads ties.
  [[nodiscard]] ReceiverSet lowest_priority_of(ReceiverSet candidates, uint8_t vector) const;
  void deliver(const Interrupt& interrupt, ReceiverSet receivers);

  std::array<LocalApic*, kMaximumApics> apics_{};
  EndOfInterruptReceiver* end_of_interrupt_receiver_ = nullptr;
};

}  // namespace bulkhead::device::interrupt
