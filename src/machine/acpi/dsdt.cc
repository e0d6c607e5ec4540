// The DSDT: the root bus with its windows and interrupt routing, the devices that no bus can find by itself, and
// soft-off.
#include <fmt/format.h>

#include "device/timer/acpi_pm.h"
#include "device/timer/hpet.h"
#include "machine/acpi/acpi.h"
#include "machine/acpi/aml_resources.h"

namespace bulkhead::machine::acpi {
namespace {

using namespace aml;
using device::timer::AcpiPm;
using device::timer::Hpet;

constexpr std::string_view kInterruptModel = "PICM";
constexpr unsigned kSlotCount = 32;
constexpr unsigned kPinCount = 4;

// What each pin of each slot drives, with the swizzle of device::pci::Bus::line_of(); addresses say "any function".
Code routing_table(const std::array<uint32_t, kPciGsiCount>& interrupts) {
  std::vector<Code> entries;
  for (unsigned slot = 0; slot < kSlotCount; ++slot) {
    for (unsigned pin = 0; pin < kPinCount; ++pin) {
      const uint64_t address = uint64_t{slot} << 16 | 0xFFFF;
      entries.push_back(
          package({integer(address), integer(pin), integer(0), integer(interrupts[(slot + pin) % kPciGsiCount])}));
    }
  }
  return package(entries);
}

Code root_bus(const BoardDescription& board) {
  std::vector<Code> windows{
      bus_numbers(0, 256),
      io_ports(0xCF8, 8),
      io_window(0, 0xCF8),
      io_window(0xD00, 0x10000 - 0xD00),
      memory_window32(static_cast<uint32_t>(kPciWindow32Start), static_cast<uint32_t>(kPciWindow32Size)),
  };
  if (board.pci_window64.size != 0)
    windows.push_back(memory_window64(board.pci_window64.start, board.pci_window64.size));

  std::array<uint32_t, kPciGsiCount> with_io_apic{};
  std::array<uint32_t, kPciGsiCount> with_pic{};
  for (uint32_t line = 0; line < kPciGsiCount; ++line) {
    with_io_apic[line] = kFirstPciGsi + line;
    with_pic[line] = board.pci_isa_irqs[line];
  }
  return device("PCI0",
                {
                    // Plain PCI: the functions have no PCI Express capability, and there is no _OSC to negotiate.
                    name("_HID", eisa_id("PNP0A03")),
                    name("_UID", integer(0)),
                    name("_BBN", integer(0)),
                    name("_SEG", integer(0)),
                    name("_CRS", resources(windows)),
                    name("PRTP", routing_table(with_pic)),
                    name("PRTA", routing_table(with_io_apic)),
                    method("_PRT", 0, Serialized::kNo,
                           {if_then(path(kInterruptModel), {return_value(path("PRTA"))}), return_value(path("PRTP"))}),
                });
}

// Where configuration space and the chipset's own ports lie, so that nothing is placed there.
Code motherboard() {
  return device("MBRD", {
                            name("_HID", eisa_id("PNP0C02")),
                            name("_UID", integer(0)),
                            name("_CRS", resources({
                                             fixed_memory(kEcamStart, kEcamSize),
                                             io_ports(kPowerManagementPort, AcpiPm::kRangeSize),
                                             io_ports(0x80, 1),
                                             io_ports(0x92, 1),
                                         })),
                        });
}

Code simple_device(std::string_view object, std::string_view id, const std::vector<Code>& descriptors) {
  return device(object, {name("_HID", eisa_id(id)), name("_CRS", resources(descriptors))});
}

Code serial_port(unsigned number, const BoardDescription::SerialPort& port) {
  return device(fmt::format("COM{}", number), {
                                                  name("_HID", eisa_id("PNP0501")),
                                                  name("_UID", integer(number)),
                                                  name("_STA", integer(0xF)),
                                                  name("_CRS", resources({io_ports(port.port, 8), isa_irq(port.irq)})),
                                              });
}

Code processor(uint32_t index) {
  return device(fmt::format("C{:03X}", index), {name("_HID", string("ACPI0007")), name("_UID", integer(index))});
}

}  // namespace

aml::Code make_dsdt(const BoardDescription& board) {
  std::vector<Code> devices{
      root_bus(board),
      motherboard(),
      simple_device("PIC", "PNP0000", {io_ports(0x20, 2), io_ports(0xA0, 2), io_ports(0x4D0, 2), isa_irq(2)}),
      simple_device("TIMR", "PNP0100", {io_ports(0x40, 4), isa_irq(0)}),
      simple_device("SPKR", "PNP0800", {io_ports(0x61, 1)}),
      simple_device("RTC", "PNP0B00", {io_ports(0x70, 2), isa_irq(8)}),
      simple_device("HPET", "PNP0103", {fixed_memory(static_cast<uint32_t>(kHpetAddress), Hpet::kRegionSize)}),
      simple_device("KBD", "PNP0303", {io_ports(0x60, 1), io_ports(0x64, 1), isa_irq(1)}),
      // Linux's qemu_fw_cfg driver finds the interface by this identifier.
      device("FWCF", {name("_HID", string("QEMU0002")), name("_STA", integer(0xB)),
                      name("_CRS", resources({io_ports(0x510, 12)}))}),
  };
  for (unsigned i = 0; i < board.serial_ports.size(); ++i) devices.push_back(serial_port(i + 1, board.serial_ports[i]));
  for (uint32_t i = 0; i < board.vcpu_count; ++i) devices.push_back(processor(i));

  return join({
      name(kInterruptModel, integer(0)),
      // The operating system says which controllers it uses: 0 the PICs, 1 the I/O APIC.
      method("_PIC", 1, Serialized::kNo, {store_to(argument(0), path(kInterruptModel))}),
      name("_S5", package({integer(AcpiPm::kSleepTypeOff), integer(AcpiPm::kSleepTypeOff), integer(0), integer(0)})),
      scope("_SB", devices),
  });
}

}  // namespace bulkhead::machine::acpi
