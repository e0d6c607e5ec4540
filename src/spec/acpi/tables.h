// ACPI 6.5 static tables: layouts only. Multi-byte fields are little-endian.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bulkhead::spec::acpi {

// 5.2.5.3
struct [[gnu::packed]] Rsdp {
  char signature[8];
  uint8_t checksum;  // of the first 20 bytes
  char oem_id[6];
  uint8_t revision;
  uint32_t rsdt_address;
  uint32_t length;
  uint64_t xsdt_address;
  uint8_t extended_checksum;  // of all
  uint8_t reserved[3];
};
static_assert(sizeof(Rsdp) == 36);
inline constexpr char kRsdpSignature[] = "RSD PTR ";
inline constexpr uint32_t kRsdpFirstPart = 20;

// 5.2.6
struct [[gnu::packed]] TableHeader {
  char signature[4];
  uint32_t length;
  uint8_t revision;
  uint8_t checksum;
  char oem_id[6];
  char oem_table_id[8];
  uint32_t oem_revision;
  char creator_id[4];
  uint32_t creator_revision;
};
static_assert(sizeof(TableHeader) == 36);

// 5.2.3.2
struct [[gnu::packed]] GenericAddress {
  uint8_t space;
  uint8_t bit_width;
  uint8_t bit_offset;
  uint8_t access_size;
  uint64_t address;
};
static_assert(sizeof(GenericAddress) == 12);
enum AddressSpace : uint8_t { kSystemMemory = 0, kSystemIo = 1 };
enum AccessSize : uint8_t { kUndefined = 0, kByte = 1, kWord = 2, kDword = 3 };

// 5.2.9
struct [[gnu::packed]] Fadt {
  TableHeader header;
  uint32_t firmware_control;
  uint32_t dsdt;
  uint8_t reserved_44;
  uint8_t preferred_profile;
  uint16_t sci_interrupt;
  uint32_t smi_command;
  uint8_t acpi_enable;
  uint8_t acpi_disable;
  uint8_t s4bios_request;
  uint8_t pstate_control;
  uint32_t pm1a_event_block;
  uint32_t pm1b_event_block;
  uint32_t pm1a_control_block;
  uint32_t pm1b_control_block;
  uint32_t pm2_control_block;
  uint32_t pm_timer_block;
  uint32_t gpe0_block;
  uint32_t gpe1_block;
  uint8_t pm1_event_length;
  uint8_t pm1_control_length;
  uint8_t pm2_control_length;
  uint8_t pm_timer_length;
  uint8_t gpe0_length;
  uint8_t gpe1_length;
  uint8_t gpe1_base;
  uint8_t cst_control;
  uint16_t c2_latency;
  uint16_t c3_latency;
  uint16_t flush_size;
  uint16_t flush_stride;
  uint8_t duty_offset;
  uint8_t duty_width;
  uint8_t day_alarm;
  uint8_t month_alarm;
  uint8_t century;
  uint16_t boot_architecture;
  uint8_t reserved_111;
  uint32_t flags;
  GenericAddress reset_register;
  uint8_t reset_value;
  uint16_t arm_boot_architecture;
  uint8_t minor_version;
  uint64_t x_firmware_control;
  uint64_t x_dsdt;
  GenericAddress x_pm1a_event_block;
  GenericAddress x_pm1b_event_block;
  GenericAddress x_pm1a_control_block;
  GenericAddress x_pm1b_control_block;
  GenericAddress x_pm2_control_block;
  GenericAddress x_pm_timer_block;
  GenericAddress x_gpe0_block;
  GenericAddress x_gpe1_block;
  GenericAddress sleep_control;
  GenericAddress sleep_status;
  char hypervisor_vendor[8];
};
static_assert(offsetof(Fadt, boot_architecture) == 109);
static_assert(offsetof(Fadt, reset_register) == 116);
static_assert(offsetof(Fadt, x_dsdt) == 140);
static_assert(sizeof(Fadt) == 276);

inline constexpr uint8_t kProfileDesktop = 1;
enum FadtFlags : uint32_t {
  kWbinvdWorks = 1u << 0,
  kC1OnAllProcessors = 1u << 2,
  kNoFixedPowerButton = 1u << 4,
  kNoFixedSleepButton = 1u << 5,
  kNoFixedRtcWake = 1u << 6,
  kTimerIs32Bits = 1u << 8,
  kHasResetRegister = 1u << 10,
};
enum BootArchitecture : uint16_t {
  kHasLegacyDevices = 1u << 0,
  kHas8042 = 1u << 1,
  kNoVga = 1u << 2,
  kNoAspm = 1u << 4,
};

// 5.2.10
struct [[gnu::packed]] Facs {
  char signature[4];
  uint32_t length;
  uint32_t hardware_signature;
  uint32_t waking_vector;
  uint32_t global_lock;
  uint32_t flags;
  uint64_t x_waking_vector;
  uint8_t version;
  uint8_t reserved_33[3];
  uint32_t ospm_flags;
  uint8_t reserved_40[24];
};
static_assert(sizeof(Facs) == 64);
inline constexpr uint32_t kFacsAlignment = 64;

// 5.2.12
struct [[gnu::packed]] Madt {
  TableHeader header;
  uint32_t local_apic_address;
  uint32_t flags;
};
static_assert(sizeof(Madt) == 44);
inline constexpr uint32_t kMadtHasPics = 1;

struct [[gnu::packed]] MadtLocalApic {
  uint8_t type;  // 0
  uint8_t length;
  uint8_t processor_uid;
  uint8_t apic_id;
  uint32_t flags;
};
static_assert(sizeof(MadtLocalApic) == 8);
inline constexpr uint32_t kLocalApicEnabled = 1;

struct [[gnu::packed]] MadtIoApic {
  uint8_t type;  // 1
  uint8_t length;
  uint8_t id;
  uint8_t reserved;
  uint32_t address;
  uint32_t gsi_base;
};
static_assert(sizeof(MadtIoApic) == 12);

struct [[gnu::packed]] MadtSourceOverride {
  uint8_t type;  // 2
  uint8_t length;
  uint8_t bus;  // 0: ISA
  uint8_t source;
  uint32_t gsi;
  uint16_t flags;
};
static_assert(sizeof(MadtSourceOverride) == 10);
enum MpsFlags : uint16_t { kConforms = 0, kActiveHigh = 1, kActiveLow = 3, kEdge = 1 << 2, kLevel = 3 << 2 };

struct [[gnu::packed]] MadtLocalApicNmi {
  uint8_t type;  // 4
  uint8_t length;
  uint8_t processor_uid;  // 0xFF: all
  uint16_t flags;
  uint8_t lint;
};
static_assert(sizeof(MadtLocalApicNmi) == 6);
inline constexpr uint8_t kAllProcessors = 0xFF;

// PCI Firmware Specification 3.3, 4.1.2
struct [[gnu::packed]] Mcfg {
  TableHeader header;
  uint64_t reserved;
  uint64_t base_address;
  uint16_t segment;
  uint8_t first_bus;
  uint8_t last_bus;
  uint32_t reserved_56;
};
static_assert(sizeof(Mcfg) == 60);

// IA-PC HPET Specification 1.0a, 3.2.4
struct [[gnu::packed]] Hpet {
  TableHeader header;
  uint32_t event_timer_block_id;
  GenericAddress base_address;
  uint8_t number;
  uint16_t minimum_tick;
  uint8_t page_protection;
};
static_assert(sizeof(Hpet) == 56);

}  // namespace bulkhead::spec::acpi
