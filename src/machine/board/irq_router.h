// The wires between devices and interrupt controllers. Each source has a wire of its own; sources that share an input
// are OR-ed before it. ISA interrupts go to the PIC and the I/O APIC, whose input for the timer is 2; PCI lines go to
// an I/O APIC input of their own and, for systems that use the PIC, share ISA inputs there.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "device/level_output.h"
#include "device/wires.h"
#include "machine/board/address_map.h"
#include "support/os/mutex.h"

namespace bulkhead::machine {

// Where the four PCI lines arrive at the PIC.
inline constexpr std::array<uint8_t, kPciGsiCount> kPciIsaIrqs{10, 11, 10, 11};
inline constexpr uint32_t kIsaIrqCount = 16;

class IrqRouter final : private device::IrqLine::Receiver {
 public:
  IrqRouter(device::IrqLine::Receiver& pic, device::IrqLine::Receiver& io_apic);

  // A new source's wire; while the machine is built.
  device::IrqLine add_isa_source(uint32_t irq);
  device::IrqLine add_pci_line(uint32_t line);
  device::IrqLine add_io_apic_source(uint32_t input);

 private:
  // The OR of its sources, and the controllers' inputs behind it.
  class Net {
   public:
    explicit Net(device::IrqLine input) : output_(input) {}
    uint32_t add_source() { return source_count_++; }
    void set(uint32_t source, bool asserted);

   private:
    Mutex mutex_;
    uint64_t asserted_ GUARDED_BY(mutex_) = 0;  // one bit a source
    device::LevelOutput output_;
    uint32_t source_count_ = 0;
  };
  struct Connection {
    Net* net;
    uint32_t bit;
  };
  using Source = std::vector<Connection>;

  void set_irq(uint32_t input, bool asserted) override;
  Net& pic_net(uint32_t input) { return pic_nets_[input]; }
  Net& io_apic_net(uint32_t input) { return io_apic_nets_[input]; }
  device::IrqLine add_source(const std::vector<Net*>& nets);

  std::deque<Net> pic_nets_;
  std::deque<Net> io_apic_nets_;
  std::vector<Source> sources_;
};

}  // namespace bulkhead::machine
