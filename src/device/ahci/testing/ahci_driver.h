// A driver of an AHCI adapter as a test plays it: one port's command list, tables and received FISes, all in guest
// memory; registers and memory are all that it reaches.
#pragma once

#include <cstdint>
#include <vector>

#include "device/ahci/controller.h"
#include "memory/guest_memory.h"
#include "spec/ahci.h"
#include "spec/pci.h"

namespace bulkhead::device::ahci {

class AhciDriver {
 public:
  // Of port i; tables follow the list, one for each slot.
  static constexpr uint64_t kPlace = 0x10'0000;
  static constexpr uint64_t kPlaceStride = 0x1'0000;
  static constexpr uint64_t kTables = 0x1000;
  static constexpr uint64_t kTableStride = 0x200;

  AhciDriver(Controller& controller, memory::GuestMemory& memory) : controller_(controller), memory_(memory) {}

  [[nodiscard]] uint32_t read(uint64_t offset) {
    uint32_t value = 0;
    controller_.read_mmio(offset, as_mutable_bytes(value));
    return value;
  }
  void write(uint64_t offset, uint32_t value) { controller_.write_mmio(offset, as_bytes(value)); }
  static uint64_t port(uint32_t index, uint64_t offset) {
    return spec::ahci::kPorts + uint64_t{index} * spec::ahci::kPortSize + offset;
  }
  void write_config(uint16_t offset, unsigned size, uint32_t value) {
    controller_.write_config(offset, as_bytes(value).first(size));
  }

  static uint64_t list(uint32_t index) { return kPlace + index * kPlaceStride; }
  static uint64_t received(uint32_t index) { return list(index) + 0x800; }
  static uint64_t table(uint32_t index, uint32_t slot) { return list(index) + kTables + slot * kTableStride; }

  void start(uint32_t index) {
    using namespace spec::ahci;
    write_config(spec::pci::kCommand, 2, spec::pci::kCommandMemory | spec::pci::kCommandBusMaster);
    write(kControl, kControlAhci | kControlInterrupts);
    write(port(index, kListBase), static_cast<uint32_t>(list(index)));
    write(port(index, kFisBase), static_cast<uint32_t>(received(index)));
    write(port(index, kSataError), UINT32_MAX);
    write(port(index, kPortInterruptStatus), UINT32_MAX);
    write(port(index, kPortInterruptEnable), UINT32_MAX);
    write(port(index, kPortCommand), kCommandFisReceive | kCommandSpinUp | kCommandPowerOn | kCommandStart);
  }
  struct Piece {
    uint64_t address;
    uint32_t size;
  };
  // Puts a command into a slot; issue() hands it over.
  void put(uint32_t index, uint32_t slot, const spec::ahci::HostFis& fis, const std::vector<Piece>& pieces,
           uint16_t flags = 5) {
    using namespace spec::ahci;
    const CommandHeader header{
        .flags = flags, .table_entries = static_cast<uint16_t>(pieces.size()), .table = table(index, slot)};
    (void)memory_.write_object({list(index) + slot * sizeof header}, header);
    (void)memory_.write_object({table(index, slot)}, fis);
    for (size_t i = 0; i < pieces.size(); ++i) {
      const Region region{.address = pieces[i].address, .size = pieces[i].size - 1};
      (void)memory_.write_object({table(index, slot) + kRegionTableOffset + i * sizeof region}, region);
    }
  }
  void issue(uint32_t index, uint32_t slots, uint32_t queued = 0) {
    if (queued != 0) write(port(index, spec::ahci::kSataActive), queued);
    write(port(index, spec::ahci::kCommandIssue), slots);
  }
  static spec::ahci::HostFis fis(spec::ahci::Command command, uint64_t lba = 0, uint16_t count = 0) {
    spec::ahci::HostFis made{.type = spec::ahci::kFisHostToDevice,
                             .flags = spec::ahci::kFisIsCommand,
                             .command = static_cast<uint8_t>(command),
                             .device = 0x40,
                             .count = count};
    for (int i = 0; i < 3; ++i) {
      made.lba_low[i] = static_cast<uint8_t>(lba >> (8 * i));
      made.lba_high[i] = static_cast<uint8_t>(lba >> (24 + 8 * i));
    }
    return made;
  }

 private:
  Controller& controller_;
  memory::GuestMemory& memory_;
};

}  // namespace bulkhead::device::ahci
