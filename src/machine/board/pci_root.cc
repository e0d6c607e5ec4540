#include "machine/board/pci_root.h"

#include <algorithm>

#include "device/pci/resources.h"
#include "machine/board/address_map.h"
#include "support/check.h"

namespace bulkhead::machine {
namespace {

constexpr unsigned kBusCount = kEcamSize / device::pci::EcamWindow::kBusSize;

std::array<device::IrqLine, device::pci::kInterruptLineCount> make_lines(IrqRouter& router) {
  static_assert(device::pci::kInterruptLineCount == kPciGsiCount);
  std::array<device::IrqLine, device::pci::kInterruptLineCount> lines;
  for (uint32_t i = 0; i < lines.size(); ++i) lines[i] = router.add_pci_line(i);
  return lines;
}

}  // namespace

PciRoot::PciRoot(Bus& bus, IrqRouter& router, device::PowerControl& power)
    : bus_(bus),
      pci_bus_(this, make_lines(router)),
      host_bridge_(kEcamStart, kBusCount),
      config_ports_(pci_bus_, power),
      ecam_(pci_bus_, kBusCount) {
  const bool mapped = bus.map_ports("pci-config", device::pci::ConfigPorts::kFirstPort,
                                    device::pci::ConfigPorts::kPortCount, config_ports_) &&
                      bus.map_mmio("ecam", {kEcamStart}, ecam_.size(), ecam_);
  CHECK(mapped, "two owners of PCI configuration space");
  CHECK(add(host_bridge_, "host-bridge").has_value(), "the host bridge has slot 0");
}

Result<> PciRoot::add(device::pci::Function& function, std::string name) {
  if (slots_.size() == spec::pci::kSlotCount) {
    return fail("PCI device '{}': all {} slots are taken", name, size_t{spec::pci::kSlotCount});
  }
  slots_.push_back({&function, std::move(name)});
  pci_bus_.add(function, static_cast<unsigned>(slots_.size() - 1));
  return {};
}

Result<> PciRoot::assign_resources(const memory::GuestMemory& memory) {
  const AddressWindow high = pci_window64(memory);
  device::pci::ResourceWindows windows;
  windows.memory32 = {kPciWindow32Start, kPciWindow32Size};
  windows.memory64 = {high.start, high.size};
  windows.io = {kPciPortWindowStart, kPciPortWindowSize};
  windows.interrupt_numbers = kPciIsaIrqs;
  return device::pci::assign_resources(pci_bus_, windows);
}

// All mappings anew: whatever overlapped before may be free now, and the order of slots decides, not that of writes.
void PciRoot::on_bars_moved(device::pci::Function&) {
  LockGuard lock(mapping_mutex_);
  std::vector<PortRange> ports;
  std::vector<MmioRange> mmio;
  for (const Slot& slot : slots_) {
    for (const device::pci::BarMapping& mapping : slot.function->mappings()) {
      const device::pci::Bar& bar = *mapping.bar;
      std::string owner = fmt::format("{} bar{}", slot.name, bar.index);
      if (bar.kind == device::pci::BarKind::kIo) {
        if (mapping.address >= PortMap::kPortCount || bar.size > PortMap::kPortCount) continue;
        ports.push_back({std::move(owner), static_cast<uint32_t>(mapping.address), static_cast<uint32_t>(bar.size),
                         bar.ports, RangeKind::kMovable});
      } else {
        mmio.push_back({std::move(owner), mapping.address, bar.size, bar.mmio, RangeKind::kMovable});
      }
    }
  }
  bus_.replace_movable(ports, mmio);
  if (doorbell_host_ != nullptr) move_doorbells();
}

void PciRoot::move_doorbells() {
  std::vector<PlacedDoorbell> wanted;
  const BusMap map = bus_.map();
  for (const Slot& slot : slots_) {
    const std::vector<device::pci::Doorbell> doorbells = slot.function->doorbells();
    for (const device::pci::BarMapping& mapping : slot.function->mappings()) {
      for (const device::pci::Doorbell& doorbell : doorbells) {
        if (doorbell.bar_index != mapping.bar->index) continue;
        const uint64_t address = mapping.address + doorbell.offset;
        // A BAR that yields to another range has no doorbell there either.
        const size_t owner = map.mmio->find(address, 0);
        if (owner == MmioMap::kNone || map.mmio->ranges()[owner].target != mapping.bar->mmio) continue;
        wanted.push_back({address, doorbell.event_fd});
      }
    }
  }
  std::ranges::sort(wanted);
  for (const PlacedDoorbell& old : doorbells_) {
    if (!std::ranges::binary_search(wanted, old)) doorbell_host_->remove_doorbell({old.address}, old.event_fd);
  }
  for (const PlacedDoorbell& doorbell : wanted) {
    if (!std::ranges::binary_search(doorbells_, doorbell)) {
      doorbell_host_->add_doorbell({doorbell.address}, doorbell.event_fd);
    }
  }
  doorbells_ = std::move(wanted);
}

}  // namespace bulkhead::machine
