#include "machine/board/irq_router.h"

#include "support/check.h"

namespace bulkhead::machine {

IrqRouter::IrqRouter(device::IrqLine::Receiver& pic, device::IrqLine::Receiver& io_apic) {
  for (uint32_t i = 0; i < kIsaIrqCount; ++i) pic_nets_.emplace_back(device::IrqLine(pic, i));
  for (uint32_t i = 0; i < kIoApicInputCount; ++i) io_apic_nets_.emplace_back(device::IrqLine(io_apic, i));
}

device::IrqLine IrqRouter::add_isa_source(uint32_t irq) {
  CHECK(irq < kIsaIrqCount, "there are 16 ISA interrupts");
  return add_source({&pic_net(irq), &io_apic_net(irq == 0 ? kTimerGsi : irq)});
}

device::IrqLine IrqRouter::add_pci_line(uint32_t line) {
  CHECK(line < kPciGsiCount, "there are four PCI interrupt lines");
  return add_source({&pic_net(kPciIsaIrqs[line]), &io_apic_net(kFirstPciGsi + line)});
}

device::IrqLine IrqRouter::add_io_apic_source(uint32_t input) {
  CHECK(input < kIoApicInputCount, "an input that the I/O APIC does not have");
  return add_source({&io_apic_net(input)});
}

device::IrqLine IrqRouter::add_source(const std::vector<Net*>& nets) {
  Source source;
  for (Net* net : nets) source.push_back({net, net->add_source()});
  sources_.push_back(std::move(source));
  return {*this, static_cast<uint32_t>(sources_.size() - 1)};
}

void IrqRouter::set_irq(uint32_t input, bool asserted) {
  for (const Connection& connection : sources_[input]) connection.net->set(connection.bit, asserted);
}

void IrqRouter::Net::set(uint32_t source, bool asserted) {
  bool changed = false;
  {
    LockGuard lock(mutex_);
    const uint64_t bit = uint64_t{1} << source;
    asserted_ = asserted ? asserted_ | bit : asserted_ & ~bit;
    changed = output_.want(asserted_ != 0);
  }
  if (changed) output_.settle();
}

}  // namespace bulkhead::machine
