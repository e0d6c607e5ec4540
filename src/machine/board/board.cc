#include "machine/board/board.h"

#include "support/check.h"

namespace bulkhead::machine {
namespace {

// As every PC has had them; COM3 and COM4 share the interrupts of COM1 and COM2.
constexpr std::array<acpi::BoardDescription::SerialPort, kSerialPortCount> kSerialPorts{
    {{0x3F8, 4}, {0x2F8, 3}, {0x3E8, 4}, {0x2E8, 3}}};

acpi::BoardDescription describe(const MachineConfig& config, const Wires& wires) {
  acpi::BoardDescription board;
  board.vcpu_count = config.vcpu_count;
  board.io_apic_id = kIoApicId;
  board.pci_window64 = pci_window64(wires.memory);
  board.serial_ports = kSerialPorts;
  board.pci_isa_irqs = kPciIsaIrqs;
  return board;
}

device::timer::Hpet::Wires hpet_wires(IrqRouter& router, device::timer::Pit& pit) {
  device::timer::Hpet::Wires wires;
  wires.irq0 = router.add_isa_source(0);
  wires.irq8 = router.add_isa_source(8);
  for (uint32_t i = 0; i < wires.routes.size(); ++i) {
    wires.routes[i] = router.add_io_apic_source(device::timer::Hpet::kFirstRoute + i);
  }
  wires.cut_off_pit = device::IrqLine(pit, 0);
  return wires;
}

}  // namespace

Machine::Board::Board(MachineConfig machine_config, const Wires& machine_wires)
    : config(std::move(machine_config)),
      wires(machine_wires),
      interrupts(bus, config.vcpu_count, wires.clock, wires.host_local_apics),
      pit(wires.clock, interrupts.router().add_isa_source(0)),
      hpet(wires.clock, hpet_wires(interrupts.router(), pit)),
      power_management(wires.clock, interrupts.router().add_isa_source(kAcpiIrq), wires.power),
      pci(bus, interrupts.router(), wires.power),
      firmware(describe(config, wires), {config.uuid, config.serial_number, config.vcpu_count}, wires.memory),
      fw_cfg(wires.memory) {
  firmware.describe(fw_cfg);
  map_fixed_ranges();
}

void Machine::Board::map_ports(device::Device& device, uint32_t first, uint32_t count, device::PortIo& target) {
  CHECK(bus.map_ports(std::string(device.name()), first, count, target), "two owners of one port");
}

void Machine::Board::map_mmio(device::Device& device, uint64_t first, uint64_t size, device::Mmio& target) {
  CHECK(bus.map_mmio(std::string(device.name()), {first}, size, target), "two owners of one address");
}

void Machine::Board::map_fixed_ranges() {
  using device::interrupt::IoApic;
  using device::interrupt::Pic;
  using device::timer::AcpiPm;
  using device::timer::Hpet;
  using device::timer::Pit;
  Pic& pic = interrupts.pic();
  map_ports(pic, Pic::kMasterPort, Pic::kRangeSize, pic.master_ports());
  map_ports(pic, Pic::kSlavePort, Pic::kRangeSize, pic.slave_ports());
  map_ports(pic, Pic::kEdgeLevelPort, Pic::kRangeSize, pic.edge_level_ports());
  map_mmio(interrupts.io_apic(), kIoApicAddress, IoApic::kRegionSize, interrupts.io_apic());
  map_ports(pit, Pit::kPort, Pit::kRangeSize, pit.ports());
  map_ports(pit, Pit::kControlPort, 1, pit.control_port());
  map_mmio(hpet, kHpetAddress, Hpet::kRegionSize, hpet);
  map_ports(power_management, kPowerManagementPort, AcpiPm::kRangeSize, power_management);
  map_ports(fw_cfg, device::FwCfg::kFirstPort, device::FwCfg::kPortCount, fw_cfg);
}

Result<> Machine::Board::add_virtio_devices() { return {}; }

std::vector<device::Device*> Machine::Board::devices() {
  std::vector<device::Device*> all = interrupts.devices();
  all.insert(all.end(), {&pit, &hpet, &power_management, &fw_cfg});
  const std::vector<device::Device*> pci_devices = pci.devices();
  all.insert(all.end(), pci_devices.begin(), pci_devices.end());
  return all;
}

}  // namespace bulkhead::machine
