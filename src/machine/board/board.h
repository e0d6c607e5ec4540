// What a Machine is made of, in the order in which it is wired. Only machine.cc and board.cc see it.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "device/ahci/controller.h"
#include "device/e1000/card.h"
#include "device/fw_cfg/fw_cfg.h"
#include "device/legacy/debug_ports/debug_ports.h"
#include "device/legacy/i8042/i8042.h"
#include "device/legacy/rtc/rtc.h"
#include "device/legacy/uart/uart.h"
#include "device/nvme/controller.h"
#include "device/timer/acpi_pm.h"
#include "device/timer/hpet.h"
#include "device/timer/pit.h"
#include "device/virtio/manual_worker.h"
#include "device/virtio/net/net.h"
#include "device/virtio/transport/pci_transport.h"
#include "machine/board/firmware.h"
#include "machine/board/interrupt_fabric.h"
#include "machine/board/machine.h"
#include "machine/board/pci_root.h"
#include "machine/bus/bus.h"

namespace bulkhead::machine {

struct Machine::Board {
  Board(MachineConfig machine_config, const Wires& machine_wires);

  // What has queues and threads: disks, network cards, console, randomness.
  Result<> add_queue_devices();
  // What firmware leaves behind in the chipset; after each reset.
  void set_up_chipset();
  // Every device, in the order of reset and of saved state: controllers before what drives them.
  [[nodiscard]] std::vector<device::Device*> devices();

  MachineConfig config;
  Wires wires;
  Bus bus;
  InterruptFabric interrupts;
  device::timer::Pit pit;
  device::legacy::Rtc rtc;
  device::timer::Hpet hpet;
  device::timer::AcpiPm power_management;
  std::deque<device::legacy::Uart> uarts;
  device::legacy::I8042 keyboard_controller;
  device::legacy::PostCodePort post_code;
  device::legacy::SystemControlPort system_control;
  device::legacy::DebugConsole debug_console;
  device::legacy::DebugExit debug_exit;
  PciRoot pci;
  Firmware firmware;
  device::FwCfg fw_cfg;
  std::vector<std::unique_ptr<device::virtio::PciTransport>> virtio_devices;
  std::vector<std::unique_ptr<device::nvme::Controller>> nvme_controllers;
  std::unique_ptr<device::ahci::Controller> ahci_controller;  // where there is a disk or a CD on SATA
  std::vector<std::unique_ptr<device::e1000::Card>> e1000_cards;
  std::vector<std::function<void()>> disk_grew;  // of each disk: its device tells the driver, where the bus has a way
  std::vector<std::function<device::virtio::NetCounters()>> nic_counters;  // of the devices above, in their order
  std::vector<device::virtio::ManualWorker*> manual_workers;  // of the devices above, with DeviceWork::kWhenCalled

  // Of devices with threads of their own. Again without effect.
  void pause();
  void resume();
  [[nodiscard]] bool is_paused() const { return paused_; }

 private:
  Result<> add_disk(size_t index);
  Result<> add_nvme_controller(size_t index);
  Result<> add_sata_drives();
  Result<> add_nic(size_t index);
  Result<> add_virtio(std::unique_ptr<device::virtio::Model> model);
  Result<std::unique_ptr<device::virtio::Worker>> make_worker(const std::string& name);
  [[nodiscard]] std::vector<device::ThreadedWork*> threaded_devices();
  void map_chipset();
  void map_legacy_devices();
  void map_ports(device::Device& device, uint32_t first, uint32_t count, device::PortIo& target);
  void map_mmio(device::Device& device, uint64_t first, uint64_t size, device::Mmio& target);

  bool paused_ = false;
};

}  // namespace bulkhead::machine
