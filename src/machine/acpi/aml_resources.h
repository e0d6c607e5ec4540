// Resource descriptors for _CRS (ACPI 6.5, 6.4): each function gives the bytes of one; resources() makes the buffer.
#pragma once

#include <cstdint>

#include "machine/acpi/aml.h"

namespace bulkhead::machine::acpi::aml {

Code resources(const std::vector<Code>& descriptors);

// Fixed ports, decoded with 16 address bits.
Code io_ports(uint16_t first, uint8_t count);
// One edge-triggered, active-high ISA interrupt.
Code isa_irq(unsigned irq);
// Fixed memory below 4 GiB.
Code fixed_memory(uint32_t address, uint32_t size);
// What a bridge passes on to the bus behind it. first and size describe what is passed on.
Code bus_numbers(uint16_t first, uint16_t count);
Code io_window(uint16_t first, uint32_t count);
Code memory_window32(uint32_t first, uint32_t size);
Code memory_window64(uint64_t first, uint64_t size);

}  // namespace bulkhead::machine::acpi::aml
