#include "machine/board/interrupt_fabric.h"

namespace bulkhead::machine {

using device::interrupt::LocalApic;

InterruptFabric::InterruptFabric(const Bus& bus, uint32_t vcpu_count, Clock& clock,
                                 device::MessageSink* host_local_apics)
    : messages_(host_local_apics != nullptr ? *host_local_apics : apic_bus_),
      pic_(device::IrqLine(*this, 0)),
      io_apic_(messages_, kIoApicId),
      router_(pic_, io_apic_) {
  static_assert(kMaximumVcpuCount <= device::interrupt::ApicBus::kMaximumApics);
  apic_bus_.set_end_of_interrupt_receiver(&io_apic_);
  for (uint32_t i = 0; i < vcpu_count; ++i) {
    Processor& processor = processors_.emplace_back();
    if (host_local_apics == nullptr) {
      const auto role = i == 0 ? LocalApic::Role::kBootstrap : LocalApic::Role::kApplication;
      processor.apic = std::make_unique<LocalApic>(i, role, apic_bus_, processor.pins, clock, i == 0 ? &pic_ : nullptr);
    }
    processor.port = std::make_unique<CpuPort>(bus, processor.apic.get(), pic_);
  }
}

void InterruptFabric::set_irq(uint32_t, bool asserted) {
  if (processors_.empty()) return;
  Processor& bootstrap = processors_.front();
  if (bootstrap.apic != nullptr) {
    bootstrap.apic->set_irq(LocalApic::kLint0, asserted);
    return;
  }
  bootstrap.port->set_pic_request(asserted);
  bootstrap.pins.set_interrupt_request(asserted);
}

void InterruptFabric::raise_nmi() {
  for (Processor& processor : processors_) {
    if (processor.apic == nullptr) {
      processor.pins.raise_nmi();
      continue;
    }
    processor.apic->set_irq(LocalApic::kLint1, true);
    processor.apic->set_irq(LocalApic::kLint1, false);
  }
}

std::vector<device::Device*> InterruptFabric::devices() {
  std::vector<device::Device*> devices;
  // What sends before what receives: a controller that drives its output while it is restored finds the receiver's own
  // record of that line restored after it.
  devices.push_back(&pic_);
  devices.push_back(&io_apic_);
  for (Processor& processor : processors_) {
    if (processor.apic != nullptr) devices.push_back(processor.apic.get());
  }
  return devices;
}

}  // namespace bulkhead::machine
