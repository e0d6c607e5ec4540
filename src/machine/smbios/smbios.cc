#include "machine/smbios/smbios.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string_view>

namespace bulkhead::machine::smbios {
namespace {

using namespace spec::smbios;

constexpr std::string_view kMaker = "Bulkhead";
constexpr std::string_view kProduct = "Bulkhead PC";
constexpr std::string_view kVersion = "1";
constexpr std::string_view kReleaseDate = "01/01/2026";
// A string the user chose never grows the tables beyond their area.
constexpr size_t kMaximumStringSize = 64;

enum Type : uint8_t {
  kFirmwareType = 0,
  kSystemType = 1,
  kChassisType = 3,
  kProcessorType = 4,
  kMemoryArrayType = 16,
  kMemoryDeviceType = 17,
  kMappedAddressType = 19,
  kBootStatusType = 32,
  kEndType = 127,
};
// Handles are free to choose: the type, and a number where there are several.
constexpr uint16_t handle_of(Type type, unsigned number = 0) {
  return static_cast<uint16_t>(type << 8 | number);
}

// The strings of one structure; each field that names one is filled with its number.
class Strings {
 public:
  uint8_t add(std::string_view text) {
    if (text.empty()) return 0;
    const std::string_view kept = text.substr(0, kMaximumStringSize);
    // A zero inside would end the string early and shift the numbers of the others.
    for (const char c : kept) bytes_.push_back(c == 0 ? uint8_t{'?'} : static_cast<uint8_t>(c));
    bytes_.push_back(0);
    return ++count_;
  }
  void append_to(std::vector<uint8_t>& out) const {
    out.insert(out.end(), bytes_.begin(), bytes_.end());
    // Two zeros end a structure without strings, one more after the last string's own.
    if (count_ == 0) out.push_back(0);
    out.push_back(0);
  }

 private:
  std::vector<uint8_t> bytes_;
  uint8_t count_ = 0;
};

template <typename Structure>
Structure make(Type type, unsigned number = 0) {
  Structure structure{};
  Header header{static_cast<uint8_t>(type), sizeof(Structure), handle_of(type, number)};
  std::memcpy(&structure, &header, sizeof header);
  return structure;
}

template <typename Structure>
void append(std::vector<uint8_t>& out, const Structure& structure, const Strings& strings = {}) {
  const ByteSpan bytes = as_bytes(structure);
  out.insert(out.end(), bytes.begin(), bytes.end());
  strings.append_to(out);
}

void append_firmware(std::vector<uint8_t>& out) {
  auto firmware = make<Firmware>(kFirmwareType);
  Strings strings;
  firmware.vendor = strings.add(kMaker);
  firmware.version = strings.add(kVersion);
  firmware.release_date = strings.add(kReleaseDate);
  firmware.start_segment = 0xE000;
  firmware.characteristics = kCharacteristicsNotSupported;
  firmware.characteristics_extension[1] = kExtensionIsVirtualMachine;
  firmware.controller_major_release = 0xFF;
  firmware.controller_minor_release = 0xFF;
  append(out, firmware, strings);
}

void append_system(std::vector<uint8_t>& out, const Description& description) {
  auto system = make<System>(kSystemType);
  Strings strings;
  system.manufacturer = strings.add(kMaker);
  system.product = strings.add(kProduct);
  system.version = strings.add(kVersion);
  system.serial_number = strings.add(description.serial_number);
  std::ranges::copy(description.uuid, system.uuid);
  std::reverse(system.uuid, system.uuid + 4);
  std::reverse(system.uuid + 4, system.uuid + 6);
  std::reverse(system.uuid + 6, system.uuid + 8);
  system.wake_up = kWakeUpPowerSwitch;
  append(out, system, strings);

  auto chassis = make<Chassis>(kChassisType);
  Strings chassis_strings;
  chassis.manufacturer = chassis_strings.add(kMaker);
  chassis.type = kChassisOther;
  chassis.boot_up_state = kStateSafe;
  chassis.power_supply_state = kStateSafe;
  chassis.thermal_state = kStateSafe;
  chassis.security = kSecurityUnknown;
  append(out, chassis, chassis_strings);
}

void append_processor(std::vector<uint8_t>& out, uint32_t vcpu_count) {
  auto processor = make<Processor>(kProcessorType);
  Strings strings;
  processor.socket = strings.add("CPU 0");
  processor.manufacturer = strings.add(kMaker);
  processor.type = kCentralProcessor;
  processor.family = kOther;
  processor.family2 = kOther;
  processor.status = kPopulatedAndEnabled;
  processor.upgrade = kOther;
  for (size_t i = 0; i < std::size(processor.cache_handles); ++i) processor.cache_handles[i] = kNoHandle;
  const auto count = static_cast<uint8_t>(std::min<uint32_t>(vcpu_count, 0xFF));
  processor.core_count = processor.core_enabled = processor.thread_count = count;
  const auto count2 = static_cast<uint16_t>(vcpu_count);
  processor.core_count2 = processor.core_enabled2 = processor.thread_count2 = count2;
  processor.characteristics = k64BitCapable;
  append(out, processor, strings);
}

void append_mapped_address(std::vector<uint8_t>& out, unsigned number, uint64_t start, uint64_t size) {
  auto mapped = make<MappedAddress>(kMappedAddressType, number);
  const uint64_t last_kib = (start + size) / 1024 - 1;
  if (last_kib < UINT32_MAX) {
    mapped.first_kib = static_cast<uint32_t>(start / 1024);
    mapped.last_kib = static_cast<uint32_t>(last_kib);
  } else {
    mapped.first_kib = mapped.last_kib = UINT32_MAX;
    mapped.extended_first = start;
    mapped.extended_last = start + size - 1;
  }
  mapped.array_handle = handle_of(kMemoryArrayType);
  mapped.partition_width = 1;
  append(out, mapped);
}

void append_memory(std::vector<uint8_t>& out, const memory::GuestMemory& memory) {
  auto array = make<MemoryArray>(kMemoryArrayType);
  array.location = kOnSystemBoard;
  array.use = kSystemMemory;
  array.error_correction = kNoErrorCorrection;
  array.maximum_kib = kMaximumInExtension;
  array.extended_maximum_bytes = memory.size();
  array.error_handle = kNoErrorHandle;
  array.device_count = 1;
  append(out, array);

  auto device = make<MemoryDevice>(kMemoryDeviceType);
  Strings strings;
  device.array_handle = handle_of(kMemoryArrayType);
  device.error_handle = kNoErrorHandle;
  device.total_width = kUnknownWidth;
  device.data_width = kUnknownWidth;
  const uint64_t size_mib = memory.size() >> 20;
  device.size = static_cast<uint16_t>(std::min<uint64_t>(size_mib, kSizeInExtension));
  if (size_mib >= kSizeInExtension) device.extended_size_mib = static_cast<uint32_t>(size_mib);
  device.form_factor = kFormDimm;
  device.device_locator = strings.add("DIMM 0");
  device.manufacturer = strings.add(kMaker);
  device.type = kTypeRam;
  device.type_detail = kDetailOther;
  append(out, device, strings);

  append_mapped_address(out, 0, 0, memory.low_size());
  if (memory.high_size() != 0) append_mapped_address(out, 1, memory::GuestMemory::kHoleEnd, memory.high_size());
}

}  // namespace

Tables make_tables(const Description& description, const memory::GuestMemory& memory) {
  Tables tables{};
  std::vector<uint8_t>& out = tables.structures;
  append_firmware(out);
  append_system(out, description);
  append_processor(out, description.vcpu_count);
  append_memory(out, memory);
  append(out, make<BootStatus>(kBootStatusType));
  append(out, make<Header>(kEndType));

  EntryPoint& entry = tables.entry_point;
  std::memcpy(entry.anchor, "_SM3_", sizeof entry.anchor);
  entry.length = sizeof entry;
  entry.major_version = 3;
  entry.entry_point_revision = 1;
  entry.maximum_size = static_cast<uint32_t>(out.size());
  return tables;
}

EntryPoint place(const Tables& tables, uint64_t structures_address) {
  EntryPoint entry = tables.entry_point;
  entry.table_address = structures_address;
  entry.checksum = 0;
  const ByteSpan bytes = as_bytes(entry);
  const auto sum = std::accumulate(bytes.begin(), bytes.end(), 0u);
  entry.checksum = static_cast<uint8_t>(0 - sum);
  return entry;
}

}  // namespace bulkhead::machine::smbios
