// What the controller says of itself: identify data and log pages (NVM Express 1.4, 5.15 and 5.14). Every structure
// begins as zeroes, so that no byte of the host's gets to the guest.
#include <algorithm>
#include <bit>

#include "device/nvme/controller.h"

namespace bulkhead::device::nvme {

using namespace spec::nvme;

namespace {

constexpr std::string_view kModel = "Bulkhead NVMe disk";
constexpr std::string_view kFirmware = "1.0";
constexpr uint16_t kTemperature = 273 + 30;

// Text fields are padded with spaces (1.5).
template <size_t kSize>
void put_text(char (&field)[kSize], std::string_view text) {
  std::fill(std::begin(field), std::end(field), ' ');
  std::copy_n(text.begin(), std::min(text.size(), kSize), field);
}

template <typename Structure>
std::vector<uint8_t> bytes_of(const Structure& structure) {
  const ByteSpan bytes = as_bytes(structure);
  return {bytes.begin(), bytes.end()};
}

uint64_t data_units(uint64_t bytes) {
  return (bytes / 512 + 999) / 1000;
}

}  // namespace

ControllerData Controller::controller_data() const {
  ControllerData data{};
  data.vendor_id = identity().vendor_id;
  data.subsystem_vendor_id = identity().subsystem_vendor_id;
  put_text(data.serial, naming_.serial);
  put_text(data.model, kModel);
  put_text(data.firmware, kFirmware);
  data.maximum_transfer = kTransferShift;
  data.controller_id = 1;
  data.version = kVersion14;
  data.controller_type = kControllerTypeIo;
  data.abort_limit = 3;
  data.optional_events = kNamespaceNotices;
  data.async_event_limit = kAsyncEventLimit - 1;
  data.firmware_slots = kFirmwareSlotOneReadOnly;
  data.log_attributes = kLogOffsetSupported;
  data.error_log_entries = kErrorLogLimit - 1;
  data.warning_temperature = 273 + 70;
  data.critical_temperature = 273 + 80;
  data.submission_entry_size = kSubmissionEntryShift << 4 | kSubmissionEntryShift;
  data.completion_entry_size = kCompletionEntryShift << 4 | kCompletionEntryShift;
  data.namespace_count = static_cast<uint32_t>(namespaces_.size());
  data.optional_commands = kOptionalDatasetManagement | kOptionalWriteZeroes;
  data.volatile_write_cache = kWriteCachePresent | kFlushOfAllNamespaces;
  data.power[0].maximum_power = 1000;
  // 7.9: a name made of a UUID.
  std::string name = "nqn.2014-08.org.nvmexpress:uuid:";
  for (size_t i = 0; i < naming_.uuid.size(); ++i) {
    name += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", naming_.uuid[i]);
  }
  std::copy_n(name.begin(), std::min(name.size(), sizeof data.subsystem_name - 1), data.subsystem_name);
  return data;
}

NamespaceData Controller::namespace_data(const Namespace& space) {
  const block::Geometry& geometry = space.disk.geometry();
  NamespaceData data{};
  data.size = geometry.size / geometry.sector_size;
  data.capacity = data.size;
  data.utilization = data.size;
  data.features = kNamespacePreferences;
  data.deallocation = kDeallocateInWriteZeroes;
  const uint32_t ratio = std::max(geometry.physical_block_size / geometry.sector_size, 1u);
  data.preferred_write_granularity = static_cast<uint16_t>(ratio - 1);
  data.preferred_write_alignment = static_cast<uint16_t>(ratio - 1);
  data.preferred_deallocate_granularity = static_cast<uint16_t>(ratio - 1);
  data.preferred_deallocate_alignment = static_cast<uint16_t>(ratio - 1);
  data.attributes = geometry.read_only ? kNamespaceWriteProtect : 0;
  data.formats[0] = static_cast<uint32_t>(std::bit_width(geometry.sector_size) - 1) << 16;
  return data;
}

std::vector<uint8_t> Controller::namespace_descriptors(const Namespace& space) {
  std::vector<uint8_t> data(kIdentifySize);
  data[0] = kDescriptorUuid;
  data[1] = static_cast<uint8_t>(space.uuid.size());
  std::ranges::copy(space.uuid, data.begin() + 4);
  return data;
}

// Empty: there is no such page.
std::vector<uint8_t> Controller::log_page(uint8_t id) const {
  switch (id) {
    case kLogErrors: {
      std::vector<uint8_t> page;
      for (const ErrorLogEntry& entry : error_log_) {
        const ByteSpan bytes = as_bytes(entry);
        page.insert(page.end(), bytes.begin(), bytes.end());
      }
      page.resize(kErrorLogLimit * sizeof(ErrorLogEntry));
      return page;
    }
    case kLogSmart: {
      SmartLog log{};
      // All of the media.
      const bool read_only =
          std::ranges::all_of(namespaces_, [](const Namespace& space) { return space.disk.geometry().read_only; });
      log.critical_warning = read_only ? kWarningReadOnly : 0;
      log.temperature = kTemperature;
      log.spare_percent = 100;
      log.spare_threshold_percent = 10;
      log.data_units_read[0] = data_units(counters_.bytes_read);
      log.data_units_written[0] = data_units(counters_.bytes_written);
      log.reads[0] = counters_.reads;
      log.writes[0] = counters_.writes;
      log.power_cycles[0] = 1;
      log.media_errors[0] = counters_.media_errors;
      log.error_log_entries[0] = counters_.errors;
      return bytes_of(log);
    }
    case kLogFirmware: {
      FirmwareLog log{};
      log.active = 1;
      put_text(log.slots[0], kFirmware);
      return bytes_of(log);
    }
    case kLogChangedNamespaces: {
      std::array<uint32_t, kIdentifySize / 4> list{};
      for (uint32_t i = 0, at = 0; i < namespaces_.size(); ++i) {
        if ((changed_namespaces_ >> i & 1) != 0) list[at++] = i + 1;
      }
      const ByteSpan bytes = as_bytes(list);
      return {bytes.begin(), bytes.end()};
    }
    default:
      return {};
  }
}

}  // namespace bulkhead::device::nvme
