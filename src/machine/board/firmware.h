// What firmware would have done before an operating system starts: tables in RAM and in fw_cfg, the BIOS data area, and
// the few chipset settings that kernels take for granted. A machine booted directly has no other firmware.
#pragma once

#include <cstdint>

#include "device/fw_cfg/fw_cfg.h"
#include "device/interrupt/pic.h"
#include "device/legacy/rtc/rtc.h"
#include "machine/acpi/acpi.h"
#include "machine/boot/boot.h"
#include "machine/smbios/smbios.h"
#include "memory/guest_memory.h"
#include "support/result.h"

namespace bulkhead::machine {

class Firmware {
 public:
  Firmware(const acpi::BoardDescription& board, const smbios::Description& identity, memory::GuestMemory& memory);

  // Items and files of the board; once.
  void describe(device::FwCfg& fw_cfg) const;
  // What the user boots, for firmware that loads it itself. The request's bytes stay in use until the next call.
  void offer_kernel(device::FwCfg& fw_cfg, const boot::Request& kernel) const;
  // At each start, before a kernel is loaded.
  Result<> write_tables() const;
  void set_up_pic(device::interrupt::Pic& pic) const;
  // Memory sizes, where older systems look for them.
  void set_up_cmos(device::legacy::Rtc& rtc) const;

  [[nodiscard]] const boot::MemoryMap& memory_map() const { return memory_map_; }
  [[nodiscard]] uint64_t rsdp_address() const;

 private:
  memory::GuestMemory& memory_;
  acpi::BoardDescription board_;
  smbios::Description identity_;
  boot::MemoryMap memory_map_;
  acpi::TableSet acpi_tables_;
  smbios::Tables smbios_tables_;
};

}  // namespace bulkhead::machine
