// The interrupt controllers and what connects them to the vCPUs: the PIC pair, the I/O APIC, a local APIC for each vCPU
// (or the host kernel's in their place), the wires of the devices, and each vCPU's pins and way to the board.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "cpu/vcpu.h"
#include "device/interrupt/apic_bus.h"
#include "device/interrupt/io_apic.h"
#include "device/interrupt/local_apic.h"
#include "device/interrupt/pic.h"
#include "machine/board/irq_router.h"
#include "machine/bus/cpu_port.h"

namespace bulkhead::machine {

// The pins of one vCPU; until a vCPU is connected they lead nowhere.
class VcpuPins final : public device::CpuPins {
 public:
  void connect(cpu::Vcpu& vcpu) { vcpu_.store(&vcpu, std::memory_order_release); }
  [[nodiscard]] cpu::Vcpu* vcpu() const { return vcpu_.load(std::memory_order_acquire); }

  void set_interrupt_request(bool asserted) override {
    if (cpu::Vcpu* vcpu = this->vcpu()) vcpu->set_interrupt_request(asserted);
  }
  void raise_nmi() override {
    if (cpu::Vcpu* vcpu = this->vcpu()) vcpu->raise_nmi();
  }
  void raise_init() override {
    if (cpu::Vcpu* vcpu = this->vcpu()) vcpu->raise_init();
  }
  void raise_sipi(uint8_t vector) override {
    if (cpu::Vcpu* vcpu = this->vcpu()) vcpu->raise_sipi(vector);
  }

 private:
  std::atomic<cpu::Vcpu*> vcpu_{nullptr};
};

class InterruptFabric final : private device::IrqLine::Receiver {
 public:
  // host_local_apics: where messages go when the local APICs live in the host kernel, else null.
  InterruptFabric(const Bus& bus, uint32_t vcpu_count, Clock& clock, device::MessageSink* host_local_apics);

  [[nodiscard]] IrqRouter& router() { return router_; }
  // Where devices send their interrupt messages.
  [[nodiscard]] device::MessageSink& messages() { return messages_; }
  [[nodiscard]] device::interrupt::Pic& pic() { return pic_; }
  [[nodiscard]] device::interrupt::IoApic& io_apic() { return io_apic_; }
  [[nodiscard]] CpuPort& cpu_port(uint32_t index) { return *processors_[index].port; }
  [[nodiscard]] VcpuPins& pins(uint32_t index) { return processors_[index].pins; }
  [[nodiscard]] uint32_t vcpu_count() const { return static_cast<uint32_t>(processors_.size()); }

  // As by the chipset: through LINT1 of every local APIC.
  void raise_nmi();
  // Controllers in the order of saved state.
  [[nodiscard]] std::vector<device::Device*> devices();

 private:
  struct Processor {
    VcpuPins pins;
    std::unique_ptr<device::interrupt::LocalApic> apic;
    std::unique_ptr<CpuPort> port;
  };
  // The PIC's output.
  void set_irq(uint32_t input, bool asserted) override;

  device::interrupt::ApicBus apic_bus_;
  device::MessageSink& messages_;
  device::interrupt::Pic pic_;
  device::interrupt::IoApic io_apic_;
  std::deque<Processor> processors_;
  IrqRouter router_;
};

}  // namespace bulkhead::machine
