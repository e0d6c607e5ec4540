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

// What names a disk for good, from the machine's own name: the same from run to run.
std::array<uint8_t, 16> disk_uuid(const std::array<uint8_t, 16>& machine, size_t index) {
  std::array<uint8_t, 16> uuid;
  SeededRandom(load<uint64_t>(&machine[0]) ^ load<uint64_t>(&machine[8]) ^ (0x4449'534B'0000 + index)).fill(uuid);
  uuid[6] = static_cast<uint8_t>((uuid[6] & 0x0F) | 0x80);  // version 8: made by a rule of our own (RFC 9562)
  uuid[8] = static_cast<uint8_t>((uuid[8] & 0x3F) | 0x80);
  return uuid;
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

Result<> Machine::Board::add_queue_devices() {
  using namespace device::virtio;
  disk_grew.assign(wires.disks.size(), [] {});
  for (size_t i = 0; i < wires.disks.size(); ++i) TRY(add_disk(i));
  TRY(add_sata_drives());
  for (size_t i = 0; i < wires.nics.size(); ++i) TRY(add_nic(i));
  if (wires.virtio_console != nullptr) {
    TRY(add_virtio(std::make_unique<ConsoleModel>("virtio-console0", *wires.virtio_console)));
  }
  return add_virtio(std::make_unique<RngModel>("virtio-rng0", wires.random));
}

Result<> Machine::Board::add_disk(size_t index) {
  const DiskWires& disk = wires.disks[index];
  switch (disk.bus) {
    case DiskBus::kVirtio: {
      auto model = std::make_unique<device::virtio::BlockModel>(fmt::format("virtio-block{}", index), disk.disk,
                                                                disk.serial, disk.queue_count);
      disk_grew[index] = [raw = model.get()] { raw->disk_grew(); };
      return add_virtio(std::move(model));
    }
    case DiskBus::kNvme:
      return add_nvme_controller(index);
    case DiskBus::kSata:
      return {};  // all of them together, afterwards
  }
  return {};
}

// With the first of the disks that share it, which gives it its name and its serial number; they are its namespaces in
// their order.
Result<> Machine::Board::add_nvme_controller(size_t index) {
  const DiskWires& first = wires.disks[index];
  std::vector<device::nvme::Namespace> namespaces;
  std::vector<size_t> places;
  for (size_t i = 0; i < wires.disks.size(); ++i) {
    const DiskWires& disk = wires.disks[i];
    const bool shares = !first.controller.empty() && disk.bus == DiskBus::kNvme && disk.controller == first.controller;
    if (i != index && !shares) continue;
    if (i < index) return {};
    places.push_back(i);
    namespaces.push_back({disk.disk, disk_uuid(config.uuid, i)});
  }
  std::string name = fmt::format("nvme{}", index);
  auto worker = TRY(make_worker(name));
  auto controller =
      TRY(device::nvme::Controller::create({name, first.serial, disk_uuid(config.uuid, index)}, std::move(namespaces),
                                           wires.memory, interrupts.messages(), std::move(worker)));
  TRY(pci.add(*controller, std::move(name)));
  for (size_t i = 0; i < places.size(); ++i) {
    disk_grew[places[i]] = [raw = controller.get(), i] { raw->disk_grew(i); };
  }
  nvme_controllers.push_back(std::move(controller));
  return {};
}

Result<> Machine::Board::add_sata_drives() {
  std::vector<device::ahci::Drive> drives;
  for (const DiskWires& disk : wires.disks) {
    if (disk.bus != DiskBus::kSata) continue;
    const auto kind =
        disk.medium == DiskMedium::kCdrom ? device::ahci::DriveKind::kCdrom : device::ahci::DriveKind::kDisk;
    drives.push_back({disk.disk, disk.serial, kind});
  }
  if (drives.empty()) return {};
  if (drives.size() > spec::ahci::kMaximumPorts) {
    return fail("{} disks and CDs on SATA, there are {} ports", drives.size(), spec::ahci::kMaximumPorts);
  }
  auto worker = TRY(make_worker("ahci0"));
  ahci_controller = TRY(device::ahci::Controller::create("ahci0", std::move(drives), wires.memory,
                                                         interrupts.messages(), std::move(worker)));
  return pci.add(*ahci_controller, "ahci0");
}

Result<> Machine::Board::add_nic(size_t index) {
  const NicWires& nic = wires.nics[index];
  switch (nic.model) {
    case NicModel::kVirtio: {
      auto model = std::make_unique<device::virtio::NetModel>(fmt::format("virtio-net{}", index), nic.port, nic.mac,
                                                              nic.settings);
      nic_counters.emplace_back([raw = model.get()] { return raw->counters(); });
      return add_virtio(std::move(model));
    }
    case NicModel::kE1000:
    case NicModel::kE1000e: {
      std::string name = fmt::format("e1000-{}", index);
      auto worker = TRY(make_worker(name));
      auto card = TRY(
          device::e1000::Card::create({.model = nic.model == NicModel::kE1000e ? device::e1000::CardModel::k82574l
                                                                               : device::e1000::CardModel::k82540em,
                                       .name = name,
                                       .mac = nic.mac,
                                       .mtu = nic.settings.mtu},
                                      nic.port, wires.memory, wires.clock, interrupts.messages(), std::move(worker)));
      TRY(pci.add(*card, std::move(name)));
      nic_counters.emplace_back([raw = card.get()] { return raw->counters(); });
      e1000_cards.push_back(std::move(card));
      return {};
    }
  }
  return {};
}

Result<std::unique_ptr<device::virtio::Worker>> Machine::Board::make_worker(const std::string& name) {
  if (config.device_work == DeviceWork::kOnThreads) return TRY(device::virtio::ThreadWorker::create(name));
  auto manual = std::make_unique<device::virtio::ManualWorker>();
  manual_workers.push_back(manual.get());
  return manual;
}

Result<> Machine::Board::add_virtio(std::unique_ptr<device::virtio::Model> model) {
  std::string name(model->name());
  auto worker = TRY(make_worker(name));
  auto device = TRY_IN(name, device::virtio::PciTransport::create(std::move(model), wires.memory, interrupts.messages(),
                                                                  std::move(worker)));
  TRY(pci.add(*device, std::move(name)));
  virtio_devices.push_back(std::move(device));
  return {};
}

void Machine::Board::pause() {
  if (std::exchange(paused_, true)) return;
  for (device::ThreadedWork* device : threaded_devices()) device->pause();
}

void Machine::Board::resume() {
  if (!std::exchange(paused_, false)) return;
  for (device::ThreadedWork* device : threaded_devices()) device->resume();
}

std::vector<device::ThreadedWork*> Machine::Board::threaded_devices() {
  std::vector<device::ThreadedWork*> all;
  for (const auto& device : virtio_devices) all.push_back(device.get());
  for (const auto& device : nvme_controllers) all.push_back(device.get());
  if (ahci_controller) all.push_back(ahci_controller.get());
  for (const auto& device : e1000_cards) all.push_back(device.get());
  return all;
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
  for (const auto& device : nvme_controllers) all.push_back(device.get());
  if (ahci_controller) all.push_back(ahci_controller.get());
  for (const auto& device : e1000_cards) all.push_back(device.get());
  return all;
}

}  // namespace bulkhead::machine
