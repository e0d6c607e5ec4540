// The fixed places of the board in guest-physical memory and port space, as chipsets of the PC family lay them out.
// Whoever describes the board to the guest (ACPI, E820) and whoever wires it read the same constants.
#pragma once

#include <cstdint>

#include "memory/guest_memory.h"

namespace bulkhead::machine {

// The one bound on the number of processors: APIC identifiers, tables and arrays are sized by it.
inline constexpr uint32_t kMaximumVcpuCount = 16;

// Below 1 MiB.
inline constexpr uint64_t kExtendedBiosDataStart = 0x9'FC00;  // conventional memory ends here
inline constexpr uint64_t kVideoMemoryStart = 0xA'0000;
inline constexpr uint64_t kFirmwareTablesStart = 0xE'0000;  // ACPI, then SMBIOS; operating systems search up to 1 MiB
inline constexpr uint64_t kSmbiosStart = 0xF'0000;
inline constexpr uint64_t kHighMemoryStart = 0x10'0000;

// The hole below 4 GiB.
inline constexpr uint64_t kPciWindow32Start = memory::GuestMemory::kHoleStart;
inline constexpr uint64_t kPciWindow32Size = 0x2000'0000;
inline constexpr uint64_t kEcamStart = 0xE000'0000;
inline constexpr uint64_t kEcamSize = 0x1000'0000;  // 256 buses
inline constexpr uint64_t kIoApicAddress = 0xFEC0'0000;
inline constexpr uint64_t kHpetAddress = 0xFED0'0000;
inline constexpr uint64_t kLocalApicAddress = 0xFEE0'0000;
static_assert(kPciWindow32Start + kPciWindow32Size == kEcamStart);

// PCI memory above RAM, within the 40 address bits that CPUID shows.
inline constexpr unsigned kPhysicalAddressBits = 40;
inline constexpr uint64_t kPciWindow64MaximumSize = 1ull << 38;

struct AddressWindow {
  uint64_t start = 0;
  uint64_t size = 0;  // 0: there is none
};
[[nodiscard]] inline AddressWindow pci_window64(const memory::GuestMemory& memory) {
  constexpr uint64_t kLimit = 1ull << kPhysicalAddressBits;
  constexpr uint64_t kAlignment = 1ull << 30;
  const uint64_t ram_end = memory.end() > memory::GuestMemory::kHoleEnd ? memory.end() : memory::GuestMemory::kHoleEnd;
  const uint64_t start = align_up(ram_end, kAlignment);
  if (start >= kLimit) return {};
  const uint64_t room = kLimit - start;
  return {start, room < kPciWindow64MaximumSize ? room : kPciWindow64MaximumSize};
}

// Ports.
inline constexpr uint16_t kPciPortWindowStart = 0xC000;
inline constexpr uint16_t kPciPortWindowSize = 0x4000;
inline constexpr uint16_t kPowerManagementPort = 0x600;
inline constexpr uint16_t kResetPort = 0xCF9;
inline constexpr uint8_t kResetValue = 0x06;

// ISA interrupts and global system interrupts.
inline constexpr uint32_t kIoApicInputCount = 24;
inline constexpr uint32_t kTimerGsi = 2;  // where ISA interrupt 0 arrives at the I/O APIC
inline constexpr uint8_t kIoApicId = 0;
inline constexpr uint32_t kAcpiIrq = 9;
inline constexpr uint32_t kFirstPciGsi = 16;  // INTA to INTD of every slot, swizzled, on four inputs
inline constexpr uint32_t kPciGsiCount = 4;

}  // namespace bulkhead::machine
