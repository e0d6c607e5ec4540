// The PCI root of the board: the bus with its host bridge, the two ways into configuration space, and the mapping of
// BARs onto the board's bus as the guest moves them.
#pragma once

#include <string>
#include <vector>

#include "device/pci/bus.h"
#include "device/pci/host_bridge.h"
#include "machine/board/doorbell_host.h"
#include "machine/board/irq_router.h"
#include "machine/bus/bus.h"
#include "support/os/mutex.h"

namespace bulkhead::machine {

class PciRoot final : private device::pci::Board {
 public:
  PciRoot(Bus& bus, IrqRouter& router, device::PowerControl& power);

  // The next free slot; while the machine is built. The name is for descriptions of the bus.
  Result<> add(device::pci::Function& function, std::string name);
  // Gives every BAR a place and switches decoding on, as firmware does.
  Result<> assign_resources(const memory::GuestMemory& memory);
  // Before anything runs.
  void set_doorbell_host(DoorbellHost& host) { doorbell_host_ = &host; }
  [[nodiscard]] std::vector<device::Device*> devices() { return {&host_bridge_, &config_ports_}; }

 private:
  struct PlacedDoorbell {
    uint64_t address;
    int event_fd;
    friend auto operator<=>(const PlacedDoorbell&, const PlacedDoorbell&) = default;
  };
  void on_bars_moved(device::pci::Function& function) override;
  void move_doorbells() REQUIRES(mapping_mutex_);

  struct Slot {
    device::pci::Function* function;
    std::string name;
  };
  Bus& bus_;
  device::pci::Bus pci_bus_;
  device::pci::HostBridge host_bridge_;
  device::pci::ConfigPorts config_ports_;
  device::pci::EcamWindow ecam_;
  std::vector<Slot> slots_;  // fixed once the machine runs
  DoorbellHost* doorbell_host_ = nullptr;
  Mutex mapping_mutex_;
  std::vector<PlacedDoorbell> doorbells_ GUARDED_BY(mapping_mutex_);  // sorted
};

}  // namespace bulkhead::machine
