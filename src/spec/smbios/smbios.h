// SMBIOS 3.0 (DMTF DSP0134): the structures that the board shows, layouts only. A string field is the 1-based number of
// a string after the structure, 0 for none.
#pragma once

#include <cstdint>

namespace bulkhead::spec::smbios {

struct [[gnu::packed]] EntryPoint {
  char anchor[5];  // "_SM3_"
  uint8_t checksum;
  uint8_t length;
  uint8_t major_version;
  uint8_t minor_version;
  uint8_t document_revision;
  uint8_t entry_point_revision;
  uint8_t reserved;
  uint32_t maximum_size;
  uint64_t table_address;
};
static_assert(sizeof(EntryPoint) == 24);

struct [[gnu::packed]] Header {
  uint8_t type;
  uint8_t length;
  uint16_t handle;
};
static_assert(sizeof(Header) == 4);

struct [[gnu::packed]] Firmware {  // type 0
  Header header;
  uint8_t vendor;
  uint8_t version;
  uint16_t start_segment;
  uint8_t release_date;
  uint8_t rom_size;
  uint64_t characteristics;
  uint8_t characteristics_extension[2];
  uint8_t major_release;
  uint8_t minor_release;
  uint8_t controller_major_release;
  uint8_t controller_minor_release;
};
static_assert(sizeof(Firmware) == 24);
inline constexpr uint64_t kCharacteristicsNotSupported = 1u << 3;
inline constexpr uint8_t kExtensionIsVirtualMachine = 1u << 4;  // second byte

struct [[gnu::packed]] System {  // type 1
  Header header;
  uint8_t manufacturer;
  uint8_t product;
  uint8_t version;
  uint8_t serial_number;
  uint8_t uuid[16];  // the first three fields little-endian
  uint8_t wake_up;
  uint8_t sku;
  uint8_t family;
};
static_assert(sizeof(System) == 27);
inline constexpr uint8_t kWakeUpPowerSwitch = 6;

struct [[gnu::packed]] Chassis {  // type 3
  Header header;
  uint8_t manufacturer;
  uint8_t type;
  uint8_t version;
  uint8_t serial_number;
  uint8_t asset_tag;
  uint8_t boot_up_state;
  uint8_t power_supply_state;
  uint8_t thermal_state;
  uint8_t security;
  uint32_t oem;
  uint8_t height;
  uint8_t power_cords;
  uint8_t element_count;
  uint8_t element_length;
  uint8_t sku;
};
static_assert(sizeof(Chassis) == 22);
inline constexpr uint8_t kChassisOther = 1;
inline constexpr uint8_t kStateSafe = 3;
inline constexpr uint8_t kSecurityUnknown = 2;

struct [[gnu::packed]] Processor {  // type 4
  Header header;
  uint8_t socket;
  uint8_t type;
  uint8_t family;
  uint8_t manufacturer;
  uint64_t id;
  uint8_t version;
  uint8_t voltage;
  uint16_t external_clock;
  uint16_t maximum_mhz;
  uint16_t current_mhz;
  uint8_t status;
  uint8_t upgrade;
  uint16_t cache_handles[3];
  uint8_t serial_number;
  uint8_t asset_tag;
  uint8_t part_number;
  uint8_t core_count;
  uint8_t core_enabled;
  uint8_t thread_count;
  uint16_t characteristics;
  uint16_t family2;
  uint16_t core_count2;
  uint16_t core_enabled2;
  uint16_t thread_count2;
};
static_assert(sizeof(Processor) == 0x30);
inline constexpr uint8_t kCentralProcessor = 3;
inline constexpr uint8_t kOther = 1;
inline constexpr uint8_t kPopulatedAndEnabled = 0x41;
inline constexpr uint16_t k64BitCapable = 1u << 2;
inline constexpr uint16_t kNoHandle = 0xFFFF;

struct [[gnu::packed]] MemoryArray {  // type 16
  Header header;
  uint8_t location;
  uint8_t use;
  uint8_t error_correction;
  uint32_t maximum_kib;
  uint16_t error_handle;
  uint16_t device_count;
  uint64_t extended_maximum_bytes;
};
static_assert(sizeof(MemoryArray) == 0x17);
inline constexpr uint8_t kOnSystemBoard = 3;
inline constexpr uint8_t kSystemMemory = 3;
inline constexpr uint8_t kNoErrorCorrection = 3;
inline constexpr uint32_t kMaximumInExtension = 0x8000'0000;
inline constexpr uint16_t kNoErrorHandle = 0xFFFE;

struct [[gnu::packed]] MemoryDevice {  // type 17
  Header header;
  uint16_t array_handle;
  uint16_t error_handle;
  uint16_t total_width;
  uint16_t data_width;
  uint16_t size;
  uint8_t form_factor;
  uint8_t device_set;
  uint8_t device_locator;
  uint8_t bank_locator;
  uint8_t type;
  uint16_t type_detail;
  uint16_t speed;
  uint8_t manufacturer;
  uint8_t serial_number;
  uint8_t asset_tag;
  uint8_t part_number;
  uint8_t attributes;
  uint32_t extended_size_mib;
  uint16_t configured_speed;
  uint16_t minimum_voltage;
  uint16_t maximum_voltage;
  uint16_t configured_voltage;
};
static_assert(sizeof(MemoryDevice) == 0x28);
inline constexpr uint16_t kSizeInExtension = 0x7FFF;
inline constexpr uint16_t kUnknownWidth = 0xFFFF;
inline constexpr uint8_t kFormDimm = 9;
inline constexpr uint8_t kTypeRam = 7;
inline constexpr uint16_t kDetailOther = 1u << 1;

struct [[gnu::packed]] MappedAddress {  // type 19
  Header header;
  uint32_t first_kib;
  uint32_t last_kib;
  uint16_t array_handle;
  uint8_t partition_width;
  uint64_t extended_first;
  uint64_t extended_last;
};
static_assert(sizeof(MappedAddress) == 0x1F);

struct [[gnu::packed]] BootStatus {  // type 32
  Header header;
  uint8_t reserved[6];
  uint8_t status;
};
static_assert(sizeof(BootStatus) == 0x0B);

}  // namespace bulkhead::spec::smbios
