// Describes the board to the operating system by ACPI 6.5 tables: RSDP, XSDT, FADT, FACS, MADT, MCFG, HPET and DSDT. It
// only says what the board wires; constants that both need stand in machine/board/address_map.h and the devices'
// headers.
#pragma once

#include <array>
#include <cstdint>

#include "machine/acpi/aml.h"
#include "machine/acpi/table_set.h"
#include "machine/board/address_map.h"

namespace bulkhead::machine::acpi {

struct BoardDescription {
  uint32_t vcpu_count = 1;
  uint8_t io_apic_id = 0;
  AddressWindow pci_window64;
  // Of each COM port: first port and ISA interrupt.
  struct SerialPort {
    uint16_t port;
    uint8_t irq;
  };
  std::array<SerialPort, 4> serial_ports{};
  // The ISA interrupts that the four PCI lines share with the PIC, for a kernel that does without the I/O APIC.
  std::array<uint8_t, kPciGsiCount> pci_isa_irqs{};
};

TableSet make_tables(const BoardDescription& board);

// The DSDT's contents after its header.
aml::Code make_dsdt(const BoardDescription& board);

}  // namespace bulkhead::machine::acpi
