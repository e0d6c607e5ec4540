#include "machine/acpi/acpi.h"

#include <cstring>
#include <initializer_list>

#include "device/timer/acpi_pm.h"
#include "device/timer/hpet.h"
#include "spec/acpi/tables.h"

namespace bulkhead::machine::acpi {
namespace {

using namespace spec::acpi;
using device::timer::AcpiPm;

constexpr uint8_t kCenturyIndex = 0x32;
// Fewest ticks of the HPET between two interrupts that an operating system should ask for.
constexpr uint16_t kHpetMinimumTick = 128;
constexpr uint8_t kFadtRevision = 6;
constexpr uint8_t kFadtMinorVersion = 5;
constexpr uint8_t kMadtRevision = 5;
constexpr uint8_t kDsdtRevision = 2;  // integers of 64 bits

template <size_t N>
void set_text(char (&field)[N], std::string_view text) {
  std::memset(field, ' ', N);
  std::memcpy(field, text.data(), text.size() < N ? text.size() : N);
}

TableHeader make_header(std::string_view signature, uint8_t revision) {
  TableHeader header{};
  set_text(header.signature, signature);
  header.revision = revision;
  set_text(header.oem_id, "BLKHD");
  set_text(header.oem_table_id, "BULKHEAD");
  header.oem_revision = 1;
  set_text(header.creator_id, "BLKH");
  header.creator_revision = 1;
  return header;
}

template <typename Table>
std::vector<uint8_t> bytes_of(const Table& table) {
  const ByteSpan bytes = as_bytes(table);
  return {bytes.begin(), bytes.end()};
}

GenericAddress io_register(uint16_t port, uint8_t byte_count, AccessSize access) {
  return {kSystemIo, static_cast<uint8_t>(byte_count * 8), 0, access, port};
}

Fadt make_fadt() {
  constexpr uint16_t kEventPort = kPowerManagementPort + AcpiPm::kEventOffset;
  constexpr uint16_t kControlPort = kPowerManagementPort + AcpiPm::kControlOffset;
  constexpr uint16_t kTimerPort = kPowerManagementPort + AcpiPm::kTimerOffset;
  constexpr uint16_t kGpe0Port = kPowerManagementPort + AcpiPm::kGeneralEventOffset;
  Fadt fadt{};
  fadt.header = make_header("FACP", kFadtRevision);
  fadt.preferred_profile = kProfileDesktop;
  fadt.sci_interrupt = kAcpiIrq;
  // smi_command stays 0: the machine is always in ACPI mode, there is nothing to switch.
  fadt.pm1a_event_block = kEventPort;
  fadt.pm1a_control_block = kControlPort;
  fadt.pm_timer_block = kTimerPort;
  fadt.gpe0_block = kGpe0Port;
  fadt.pm1_event_length = AcpiPm::kEventSize;
  fadt.pm1_control_length = AcpiPm::kControlSize;
  fadt.pm_timer_length = AcpiPm::kTimerSize;
  fadt.gpe0_length = AcpiPm::kGeneralEventSize;
  fadt.c2_latency = 0xFFFF;  // no C2 and no C3
  fadt.c3_latency = 0xFFFF;
  fadt.century = kCenturyIndex;
  fadt.boot_architecture = kHasLegacyDevices | kHas8042 | kNoVga | kNoAspm;
  // The power button is the fixed one, in PM1.
  fadt.flags =
      kWbinvdWorks | kC1OnAllProcessors | kNoFixedSleepButton | kNoFixedRtcWake | kTimerIs32Bits | kHasResetRegister;
  fadt.reset_register = io_register(kResetPort, 1, kByte);
  fadt.reset_value = kResetValue;
  fadt.minor_version = kFadtMinorVersion;
  fadt.x_pm1a_event_block = io_register(kEventPort, AcpiPm::kEventSize, kWord);
  fadt.x_pm1a_control_block = io_register(kControlPort, AcpiPm::kControlSize, kWord);
  fadt.x_pm_timer_block = io_register(kTimerPort, AcpiPm::kTimerSize, kDword);
  fadt.x_gpe0_block = io_register(kGpe0Port, AcpiPm::kGeneralEventSize, kByte);
  std::memcpy(fadt.hypervisor_vendor, "Bulkhead", sizeof fadt.hypervisor_vendor);
  return fadt;
}

std::vector<uint8_t> make_madt(const BoardDescription& board) {
  Madt madt{};
  madt.header = make_header("APIC", kMadtRevision);
  madt.local_apic_address = static_cast<uint32_t>(kLocalApicAddress);
  madt.flags = kMadtHasPics;
  std::vector<uint8_t> table = bytes_of(madt);
  const auto add = [&](const auto& entry) {
    const ByteSpan bytes = as_bytes(entry);
    table.insert(table.end(), bytes.begin(), bytes.end());
  };
  for (uint32_t i = 0; i < board.vcpu_count; ++i) {
    const auto id = static_cast<uint8_t>(i);
    add(MadtLocalApic{0, sizeof(MadtLocalApic), id, id, kLocalApicEnabled});
  }
  add(MadtIoApic{1, sizeof(MadtIoApic), board.io_apic_id, 0, static_cast<uint32_t>(kIoApicAddress), 0});
  // Input 0 of the I/O APIC has no ISA interrupt: the timer's goes to input 2.
  add(MadtSourceOverride{2, sizeof(MadtSourceOverride), 0, 0, kTimerGsi, kConforms});
  add(MadtSourceOverride{2, sizeof(MadtSourceOverride), 0, kAcpiIrq, kAcpiIrq, kActiveHigh | kLevel});
  add(MadtLocalApicNmi{4, sizeof(MadtLocalApicNmi), kAllProcessors, kConforms, 1});
  return table;
}

Mcfg make_mcfg() {
  Mcfg mcfg{};
  mcfg.header = make_header("MCFG", 1);
  mcfg.base_address = kEcamStart;
  mcfg.last_bus = static_cast<uint8_t>((kEcamSize >> 20) - 1);
  return mcfg;
}

Hpet make_hpet() {
  Hpet hpet{};
  hpet.header = make_header("HPET", 1);
  hpet.event_timer_block_id = device::timer::Hpet::kEventTimerBlockId;
  hpet.base_address = {kSystemMemory, 0, 0, kUndefined, kHpetAddress};
  hpet.minimum_tick = kHpetMinimumTick;
  return hpet;
}

}  // namespace

TableSet make_tables(const BoardDescription& board) {
  TableSet set;
  Facs facs{};
  std::memcpy(facs.signature, "FACS", sizeof facs.signature);
  facs.length = sizeof facs;
  facs.version = 2;
  const uint32_t facs_at = set.add_plain(as_bytes(facs), kFacsAlignment);

  std::vector<uint8_t> dsdt = bytes_of(make_header("DSDT", kDsdtRevision));
  const aml::Code code = make_dsdt(board);
  dsdt.insert(dsdt.end(), code.begin(), code.end());
  const uint32_t dsdt_at = set.add_table(std::move(dsdt));

  const uint32_t fadt_at = set.add_table(bytes_of(make_fadt()));
  set.add_pointer(File::kTables, fadt_at + offsetof(Fadt, firmware_control), 4, File::kTables, facs_at);
  set.add_pointer(File::kTables, fadt_at + offsetof(Fadt, dsdt), 4, File::kTables, dsdt_at);
  set.add_pointer(File::kTables, fadt_at + offsetof(Fadt, x_dsdt), 8, File::kTables, dsdt_at);

  const std::initializer_list<uint32_t> listed{fadt_at, set.add_table(make_madt(board)),
                                               set.add_table(bytes_of(make_mcfg())),
                                               set.add_table(bytes_of(make_hpet()))};
  std::vector<uint8_t> xsdt = bytes_of(make_header("XSDT", 1));
  xsdt.resize(xsdt.size() + listed.size() * sizeof(uint64_t));
  const uint32_t xsdt_at = set.add_table(std::move(xsdt));
  uint32_t entry_at = xsdt_at + sizeof(TableHeader);
  for (const uint32_t table : listed) {
    set.add_pointer(File::kTables, entry_at, 8, File::kTables, table);
    entry_at += sizeof(uint64_t);
  }

  Rsdp rsdp{};
  std::memcpy(rsdp.signature, kRsdpSignature, sizeof rsdp.signature);
  set_text(rsdp.oem_id, "BLKHD");
  rsdp.revision = 2;
  rsdp.length = sizeof rsdp;
  set.set_rsdp(rsdp);
  set.add_pointer(File::kRsdp, offsetof(Rsdp, xsdt_address), 8, File::kTables, xsdt_at);
  return set;
}

}  // namespace bulkhead::machine::acpi
