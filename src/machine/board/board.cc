#include "machine/board/board.h"

#include <utility>

#include "device/virtio/block/block.h"
#include "device/virtio/console/console.h"
#include "device/virtio/net/net.h"
#include "device/virtio/rng/rng.h"
#include "support/check.h"

namespace bulkhead::machine {
namespace {

// Guests write bytes, words or doublewords there; all end the process by their lowest byte.
constexpr uint32_t kDebugExitPortCount = 4;
static_assert(kSerialPortCount == device::legacy::Uart::kPorts.size());

acpi::BoardDescription describe(const MachineConfig& config, const Wires& wires) {
  acpi::BoardDescription board;
  board.vcpu_count = config.vcpu_count;
  board.io_apic_id = kIoApicId;
  board.pci_window64 = pci_window64(wires.memory);
  for (size_t i = 0; i < kSerialPortCount; ++i) {
    board.serial_ports[i] = {device::legacy::Uart::kPorts[i], device::legacy::Uart::kIrqs[i]};
  }
  board.pci_isa_irqs = kPciIsaIrqs;
  return board;
}

device::timer::Hpet::Wires hpet_wires(IrqRouter& router, device::timer::Pit& pit, device::legacy::Rtc& rtc) {
  device::timer::Hpet::Wires wires;
  wires.irq0 = router.add_isa_source(0);
  wires.irq8 = router.add_isa_source(8);
  for (uint32_t i = 0; i < wires.routes.size(); ++i) {
    wires.routes[i] = router.add_io_apic_source(device::timer::Hpet::kFirstRoute + i);
  }
  wires.cut_off_pit = device::IrqLine(pit, 0);
  wires.cut_off_rtc = device::IrqLine(rtc, 0);
  return wires;
}

}  // namespace

Machine::Board::Board(MachineConfig machine_config, const Wires& machine_wires)
    : config(std::move(machine_config)),
      wires(machine_wires),
      interrupts(bus, config.vcpu_count, wires.clock, wires.host_local_apics),
      pit(wires.clock, interrupts.router().add_isa_source(0)),
      rtc(wires.clock, interrupts.router().add_isa_source(8)),
      hpet(wires.clock, hpet_wires(interrupts.router(), pit, rtc)),
      power_management(wires.clock, interrupts.router().add_isa_source(kAcpiIrq), wires.power),
      keyboard_controller(interrupts.router().add_isa_source(1), wires.power),
      system_control(wires.power),
      debug_console(wires.debug_console),
      debug_exit(wires.power),
      pci(bus, interrupts.router(), wires.power),
      firmware(describe(config, wires), {config.uuid, config.serial_number, config.vcpu_count}, wires.memory),
      fw_cfg(wires.memory) {
  for (size_t i = 0; i < kSerialPortCount; ++i) {
    uarts.emplace_back(fmt::format("uart{}", i), interrupts.router().add_isa_source(device::legacy::Uart::kIrqs[i]),
                       wires.serial[i]);
  }
  firmware.describe(fw_cfg);
  map_chipset();
  map_legacy_devices();
}

void Machine::Board::map_ports(device::Device& device, uint32_t first, uint32_t count, device::PortIo& target) {
  CHECK(bus.map_ports(std::string(device.name()), first, count, target), "two owners of one port");
}

void Machine::Board::map_mmio(device::Device& device, uint64_t first, uint64_t size, device::Mmio& target) {
  CHECK(bus.map_mmio(std::string(device.name()), {first}, size, target), "two owners of one address");
}

void Machine::Board::map_chipset() {
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

void Machine::Board::map_legacy_devices() {
  using namespace device::legacy;
  map_ports(rtc, Rtc::kPort, Rtc::kRangeSize, rtc);
  for (size_t i = 0; i < uarts.size(); ++i) map_ports(uarts[i], Uart::kPorts[i], Uart::kRangeSize, uarts[i]);
  map_ports(keyboard_controller, I8042::kDataPort, 1, keyboard_controller.data_port());
  map_ports(keyboard_controller, I8042::kCommandPort, 1, keyboard_controller.command_port());
  map_ports(post_code, PostCodePort::kPort, 1, post_code);
  map_ports(system_control, SystemControlPort::kPort, 1, system_control);
  map_ports(debug_console, DebugConsole::kPort, 1, debug_console);
  if (config.debug_exit) map_ports(debug_exit, DebugExit::kPort, kDebugExitPortCount, debug_exit);
}

Result<> Machine::Board::add_virtio_devices() {
  using namespace device::virtio;
  for (size_t i = 0; i < wires.disks.size(); ++i) {
    TRY(add_virtio(
        std::make_unique<BlockModel>(fmt::format("virtio-block{}", i), wires.disks[i].disk, wires.disks[i].serial)));
  }
  for (size_t i = 0; i < wires.nics.size(); ++i) {
    const NicWires& nic = wires.nics[i];
    auto model = std::make_unique<NetModel>(fmt::format("virtio-net{}", i), nic.port, nic.mac, nic.mtu);
    nic_models.push_back(model.get());
    TRY(add_virtio(std::move(model)));
  }
  if (wires.virtio_console != nullptr) {
    TRY(add_virtio(std::make_unique<ConsoleModel>("virtio-console0", *wires.virtio_console)));
  }
  return add_virtio(std::make_unique<RngModel>("virtio-rng0", wires.random));
}

Result<> Machine::Board::add_virtio(std::unique_ptr<device::virtio::Model> model) {
  std::string name(model->name());
  std::unique_ptr<device::virtio::Worker> worker;
  if (config.device_work == DeviceWork::kWhenCalled) {
    auto manual = std::make_unique<device::virtio::ManualWorker>();
    manual_workers.push_back(manual.get());
    worker = std::move(manual);
  } else {
    worker = TRY(device::virtio::ThreadWorker::create(name));
  }
  auto device = TRY_IN(name, device::virtio::PciTransport::create(std::move(model), wires.memory, interrupts.messages(),
                                                                  std::move(worker)));
  TRY(pci.add(*device, std::move(name)));
  virtio_devices.push_back(std::move(device));
  return {};
}

void Machine::Board::pause() {
  if (std::exchange(paused_, true)) return;
  for (const auto& device : virtio_devices) device->pause();
}

void Machine::Board::resume() {
  if (!std::exchange(paused_, false)) return;
  for (const auto& device : virtio_devices) device->resume();
}

void Machine::Board::set_up_chipset() {
  firmware.set_up_pic(interrupts.pic());
  firmware.set_up_cmos(rtc);
}

std::vector<device::Device*> Machine::Board::devices() {
  std::vector<device::Device*> all = interrupts.devices();
  all.insert(all.end(), {&pit, &rtc, &hpet, &power_management});
  for (device::legacy::Uart& uart : uarts) all.push_back(&uart);
  all.insert(all.end(), {&keyboard_controller, &post_code, &system_control, &debug_console, &debug_exit, &fw_cfg});
  const std::vector<device::Device*> pci_devices = pci.devices();
  all.insert(all.end(), pci_devices.begin(), pci_devices.end());
  for (const auto& device : virtio_devices) all.push_back(device.get());
  return all;
}

}  // namespace bulkhead::machine
