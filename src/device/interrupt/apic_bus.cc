#include "device/interrupt/apic_bus.h"

#include <bit>

#include "device/interrupt/local_apic.h"
#include "support/check.h"

namespace bulkhead::device::interrupt {

void ApicBus::attach(LocalApic& apic) {
  CHECK(apic.id() < kMaximumApics && apics_[apic.id()] == nullptr, "local APIC ids are distinct and below 16");
  apics_[apic.id()] = &apic;
}

void ApicBus::detach(LocalApic& apic) {
  apics_[apic.id()] = nullptr;
}

void ApicBus::send_message(const InterruptMessage& message) {
  if (!is_interrupt_message(message)) return;
  const Interrupt interrupt = interrupt_of(message);
  ReceiverSet receivers = find(destination_of(message));
  if (interrupt.mode == DeliveryMode::kLowestPriority) receivers = lowest_priority_of(receivers, interrupt.vector);
  deliver(interrupt, receivers);
}

void ApicBus::send(const InterprocessorInterrupt& ipi) {
  const ReceiverSet self = ReceiverSet{1} << ipi.sender_id;
  ReceiverSet receivers = 0;
  switch (ipi.shorthand) {
    case Shorthand::kNone:
      receivers = find(ipi.destination);
      break;
    case Shorthand::kSelf:
      receivers = self;
      break;
    case Shorthand::kAll:
      receivers = find({.id = Destination::kBroadcast});
      break;
    case Shorthand::kAllButSelf:
      receivers = find({.id = Destination::kBroadcast}) & ~self;
      break;
  }
  if (ipi.interrupt.mode == DeliveryMode::kLowestPriority) {
    receivers = lowest_priority_of(receivers, ipi.interrupt.vector);
  }
  deliver(ipi.interrupt, receivers);
}

void ApicBus::broadcast_end_of_interrupt(uint8_t vector) const {
  if (end_of_interrupt_receiver_ != nullptr) end_of_interrupt_receiver_->end_of_interrupt(vector);
}

ApicBus::ReceiverSet ApicBus::find(const Destination& destination) const {
  if (destination.mode == DestinationMode::kPhysical && destination.id != Destination::kBroadcast) {
    const bool exists = destination.id < kMaximumApics && apics_[destination.id] != nullptr;
    return exists && apics_[destination.id]->is_enabled() ? ReceiverSet{1} << destination.id : 0;
  }
  ReceiverSet found = 0;
  for (uint32_t id = 0; id < kMaximumApics; ++id) {
    if (apics_[id] != nullptr && apics_[id]->is_addressed_by(destination)) found |= ReceiverSet{1} << id;
  }
  return found;
}

ApicBus::ReceiverSet ApicBus::lowest_priority_of(ReceiverSet candidates, uint8_t vector) const {
  ReceiverSet best = 0;
  uint32_t best_priority = 0;
  for (; candidates != 0; candidates &= candidates - 1) {
    const LocalApic& apic = *apics_[static_cast<uint32_t>(std::countr_zero(candidates))];
    if (!apic.accepts_fixed()) continue;
    const uint32_t priority = apic.processor_priority() >> 4;
    if (best == 0 || priority < best_priority) {
      best = 0;
      best_priority = priority;
    }
    if (priority == best_priority) best |= candidates & -candidates;
  }
  if (best == 0) return 0;
  for (int skip = vector % std::popcount(best); skip > 0; --skip) best &= best - 1;
  return best & -best;
}

void ApicBus::deliver(const Interrupt& interrupt, ReceiverSet receivers) {
  for (; receivers != 0; receivers &= receivers - 1) {
    apics_[static_cast<uint32_t>(std::countr_zero(receivers))]->accept(interrupt);
  }
}

}  // namespace bulkhead::device::interrupt
