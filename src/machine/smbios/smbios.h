// Describes the machine for inventory (dmidecode, installers, licence managers) by SMBIOS 3.0 structures: what it is
// called, its processors and its memory. Only built, never parsed back.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "memory/guest_memory.h"
#include "spec/smbios/smbios.h"

namespace bulkhead::machine::smbios {

struct Description {
  std::array<uint8_t, 16> uuid{};  // in the order in which a UUID is written
  std::string serial_number;
  uint32_t vcpu_count = 1;
};

struct Tables {
  spec::smbios::EntryPoint entry_point;  // its address and checksum still open: see place()
  std::vector<uint8_t> structures;
};

Tables make_tables(const Description& description, const memory::GuestMemory& memory);
// The entry point for structures that lie at an address.
spec::smbios::EntryPoint place(const Tables& tables, uint64_t structures_address);

}  // namespace bulkhead::machine::smbios
