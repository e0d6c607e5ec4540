#include "machine/board/firmware.h"

#include <algorithm>
#include <array>

#include "machine/board/irq_router.h"
#include "machine/boot/linux.h"
#include "spec/boot/linux_boot.h"
#include "spec/firmware/fw_cfg.h"

namespace bulkhead::machine {
namespace {

// Both need 16-byte alignment, and operating systems look for them on 16-byte boundaries.
constexpr uint64_t kRsdpAddress = kFirmwareTablesStart;
constexpr uint64_t kAcpiTablesAddress = kFirmwareTablesStart + 0x40;
constexpr uint64_t kSmbiosEntryAddress = kSmbiosStart;
constexpr uint64_t kSmbiosTablesAddress = kSmbiosStart + 0x20;

// The BIOS data area, of which kernels still read these fields.
struct [[gnu::packed]] BiosDataArea {
  std::array<uint16_t, 4> serial_ports;  // at 0x400
  std::array<uint16_t, 3> parallel_ports;
  uint16_t extended_data_segment;  // at 0x40E
  uint16_t equipment;
  uint8_t reserved;
  uint16_t memory_kib;  // at 0x413
};
static_assert(offsetof(BiosDataArea, memory_kib) == 0x13);
constexpr uint64_t kBiosDataAddress = 0x400;

Result<> write(memory::GuestMemory& memory, std::string_view what, uint64_t address, uint64_t end, ByteSpan bytes) {
  if (address + bytes.size() > end || !memory.write({address}, bytes)) {
    return fail("{}: {} bytes do not fit between {:#x} and {:#x}", what, bytes.size(), address, end);
  }
  return {};
}

std::vector<uint8_t> to_vector(ByteSpan bytes) {
  return {bytes.begin(), bytes.end()};
}

}  // namespace

Firmware::Firmware(const acpi::BoardDescription& board, const smbios::Description& identity,
                   memory::GuestMemory& memory)
    : memory_(memory),
      board_(board),
      identity_(identity),
      memory_map_(boot::make_memory_map(memory)),
      acpi_tables_(acpi::make_tables(board)),
      smbios_tables_(smbios::make_tables(identity, memory)) {}

uint64_t Firmware::rsdp_address() const {
  return kRsdpAddress;
}

void Firmware::describe(device::FwCfg& fw_cfg) const {
  using namespace spec::fw_cfg;
  fw_cfg.set_item(kUuid, to_vector(identity_.uuid));
  fw_cfg.set_number<uint64_t>(kRamSize, memory_.low_size() + memory_.high_size());
  fw_cfg.set_number<uint16_t>(kNoGraphic, 1);
  fw_cfg.set_number<uint16_t>(kBootMenu, 0);
  fw_cfg.set_number(kCpuCount, static_cast<uint16_t>(board_.vcpu_count));
  fw_cfg.set_number(kMaximumCpuCount, static_cast<uint16_t>(board_.vcpu_count));
  fw_cfg.set_number<uint32_t>(kIrq0Override, 1);

  std::vector<uint8_t> e820;
  for (const boot::MemoryRange& range : memory_map_) {
    const spec::linux_boot::E820Entry entry{range.start, range.size, static_cast<uint32_t>(range.type)};
    const ByteSpan bytes = as_bytes(entry);
    e820.insert(e820.end(), bytes.begin(), bytes.end());
  }
  fw_cfg.add_file("etc/e820", std::move(e820));
  fw_cfg.add_file(acpi::kRsdpFileName, acpi_tables_.file(acpi::File::kRsdp));
  fw_cfg.add_file(acpi::kTablesFileName, acpi_tables_.file(acpi::File::kTables));
  fw_cfg.add_file(acpi::kLoaderFileName, acpi_tables_.loader_script());
  fw_cfg.add_file("etc/smbios/smbios-anchor", to_vector(as_bytes(smbios_tables_.entry_point)));
  fw_cfg.add_file("etc/smbios/smbios-tables", smbios_tables_.structures);
}

void Firmware::offer_kernel(device::FwCfg& fw_cfg, const boot::Request& kernel) const {
  using namespace spec::fw_cfg;
  ByteSpan code = kernel.kernel;
  ByteSpan setup;
  // A bzImage comes in two items; for anything else setup is empty.
  if (const auto image = boot::parse_linux(kernel.kernel)) {
    code = image->code;
    setup = kernel.kernel.first(kernel.kernel.size() - code.size());
  }
  const ByteSpan initrd = kernel.modules.empty() ? ByteSpan() : kernel.modules.front().bytes;
  fw_cfg.set_number(kKernelSize, static_cast<uint32_t>(code.size()));
  fw_cfg.set_borrowed_item(kKernelData, code);
  fw_cfg.set_number(kSetupSize, static_cast<uint32_t>(setup.size()));
  fw_cfg.set_borrowed_item(kSetupData, setup);
  fw_cfg.set_number(kInitrdSize, static_cast<uint32_t>(initrd.size()));
  fw_cfg.set_borrowed_item(kInitrdData, initrd);
  std::vector<uint8_t> command_line(kernel.command_line.begin(), kernel.command_line.end());
  command_line.push_back(0);
  fw_cfg.set_number(kCommandLineSize, static_cast<uint32_t>(command_line.size()));
  fw_cfg.set_item(kCommandLineData, std::move(command_line));
}

Result<> Firmware::write_tables() const {
  const acpi::TableSet::Placed acpi = acpi_tables_.place(kRsdpAddress, kAcpiTablesAddress);
  TRY(write(memory_, "ACPI root pointer", kRsdpAddress, kAcpiTablesAddress, acpi.rsdp));
  TRY(write(memory_, "ACPI tables", kAcpiTablesAddress, kSmbiosStart, acpi.tables));
  const auto entry = smbios::place(smbios_tables_, kSmbiosTablesAddress);
  TRY(write(memory_, "SMBIOS entry point", kSmbiosEntryAddress, kSmbiosTablesAddress, as_bytes(entry)));
  TRY(write(memory_, "SMBIOS structures", kSmbiosTablesAddress, kHighMemoryStart, smbios_tables_.structures));

  BiosDataArea data{};
  for (size_t i = 0; i < board_.serial_ports.size(); ++i) data.serial_ports[i] = board_.serial_ports[i].port;
  data.extended_data_segment = static_cast<uint16_t>(kExtendedBiosDataStart >> 4);
  data.memory_kib = static_cast<uint16_t>(kExtendedBiosDataStart / 1024);
  TRY(write(memory_, "BIOS data area", kBiosDataAddress, kBiosDataAddress + 0x100, as_bytes(data)));
  // The extended area begins with its own size in KiB.
  return write(memory_, "extended BIOS data area", kExtendedBiosDataStart, kVideoMemoryStart,
               std::array<uint8_t, 1>{1});
}

// PCI lines and the SCI are levels at the PIC; the edge/level control registers say so, one bit an input.
void Firmware::set_up_pic(device::interrupt::Pic& pic) const {
  uint16_t level_inputs = uint16_t{1} << kAcpiIrq;
  for (const uint8_t irq : board_.pci_isa_irqs) level_inputs = static_cast<uint16_t>(level_inputs | 1u << irq);
  pic.edge_level_ports().write_port(0, 1, level_inputs & 0xFF);
  pic.edge_level_ports().write_port(1, 1, level_inputs >> 8);
}

void Firmware::set_up_cmos(device::legacy::Rtc& rtc) const {
  constexpr uint64_t kMebibyte = 1 << 20;
  constexpr uint64_t k64Kibibytes = 1 << 16;
  // Number of bytes and what they hold, least significant first.
  const auto set = [&](uint8_t index, unsigned size, uint64_t value) {
    for (unsigned i = 0; i < size; ++i)
      rtc.set_memory(static_cast<uint8_t>(index + i), static_cast<uint8_t>(value >> (8 * i)));
  };
  const uint64_t low = memory_.low_size();
  const uint64_t above_1_mib = std::min<uint64_t>((low - kMebibyte) / 1024, UINT16_MAX);
  const uint64_t above_16_mib = low > 16 * kMebibyte ? (low - 16 * kMebibyte) / k64Kibibytes : 0;
  set(0x15, 2, kExtendedBiosDataStart / 1024);
  set(0x17, 2, above_1_mib);
  set(0x30, 2, above_1_mib);
  set(0x34, 2, std::min<uint64_t>(above_16_mib, UINT16_MAX));
  set(0x5B, 3, memory_.high_size() / k64Kibibytes);
  set(0x5F, 1, board_.vcpu_count - 1);
}

}  // namespace bulkhead::machine
