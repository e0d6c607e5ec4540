// Numbers and layouts out of the NVM Express Base Specification, revision 1.4: controller registers, queue entries,
// commands, status codes, identify data and log pages. No logic.
#pragma once

#include <cstdint>

namespace bulkhead::spec::nvme {

// ---- 3.1 Controller registers ----
inline constexpr uint32_t kCapabilities = 0x00;  // CAP, 8 bytes
inline constexpr uint32_t kVersion = 0x08;
inline constexpr uint32_t kInterruptMaskSet = 0x0C;
inline constexpr uint32_t kInterruptMaskClear = 0x10;
inline constexpr uint32_t kConfiguration = 0x14;  // CC
inline constexpr uint32_t kControllerStatus = 0x1C;
inline constexpr uint32_t kAdminQueueAttributes = 0x24;
inline constexpr uint32_t kAdminSubmissionBase = 0x28;  // 8 bytes
inline constexpr uint32_t kAdminCompletionBase = 0x30;  // 8 bytes
inline constexpr uint32_t kRegistersEnd = 0x38;
inline constexpr uint32_t kDoorbells = 0x1000;

inline constexpr uint32_t kVersion14 = 0x0001'0400;

inline constexpr uint64_t kCapContiguousQueues = 1ull << 16;
inline constexpr unsigned kCapTimeoutShift = 24;  // in 500 ms
inline constexpr uint64_t kCapNvmCommandSet = 1ull << 37;
inline constexpr unsigned kCapMaximumPageShift = 52;

inline constexpr uint32_t kConfigEnable = 1u << 0;
inline constexpr unsigned kConfigCommandSetShift = 4;
inline constexpr unsigned kConfigPageSizeShift = 7;
inline constexpr unsigned kConfigArbitrationShift = 11;
inline constexpr unsigned kConfigShutdownShift = 14;
inline constexpr unsigned kConfigSubmissionEntryShift = 16;
inline constexpr unsigned kConfigCompletionEntryShift = 20;
inline constexpr uint32_t kConfigWritable = 0x00FF'FFF1;

inline constexpr uint32_t kStatusReady = 1u << 0;
inline constexpr uint32_t kStatusFatal = 1u << 1;
inline constexpr uint32_t kStatusShutdownOccurring = 1u << 2;
inline constexpr uint32_t kStatusShutdownComplete = 2u << 2;
inline constexpr uint32_t kStatusShutdownMask = 3u << 2;

// ---- 4.2 Submission queue entry, 4.6 completion queue entry ----
inline constexpr unsigned kSubmissionEntryShift = 6;
inline constexpr unsigned kCompletionEntryShift = 4;

struct SubmissionEntry {
  uint8_t opcode;
  uint8_t flags;  // fused operation in bits 1:0, PRP or SGL in bits 7:6
  uint16_t command_id;
  uint32_t namespace_id;
  uint64_t reserved;
  uint64_t metadata;
  uint64_t prp1;
  uint64_t prp2;
  uint32_t dword10;
  uint32_t dword11;
  uint32_t dword12;
  uint32_t dword13;
  uint32_t dword14;
  uint32_t dword15;
};
static_assert(sizeof(SubmissionEntry) == 64);
inline constexpr uint8_t kFusedMask = 0x03;
inline constexpr uint8_t kTransferMask = 0xC0;

struct CompletionEntry {
  uint32_t result;
  uint32_t reserved;
  uint16_t submission_head;
  uint16_t submission_id;
  uint16_t command_id;
  uint16_t status;  // phase tag in bit 0
};
static_assert(sizeof(CompletionEntry) == 16);

// ---- 4.6.1 Status: code in bits 7:0, code type in bits 10:8, as in this enumeration; shifted by one in the entry ----
enum class Status : uint16_t {
  kSuccess = 0x000,
  kInvalidOpcode = 0x001,
  kInvalidField = 0x002,
  kDataTransferError = 0x004,
  kInternalError = 0x006,
  kAbortRequested = 0x007,
  kInvalidNamespace = 0x00B,
  kCommandSequenceError = 0x00C,
  kInvalidPrpOffset = 0x013,
  kNamespaceWriteProtected = 0x020,
  kLbaOutOfRange = 0x080,
  kCapacityExceeded = 0x081,
  kCompletionQueueInvalid = 0x100,
  kInvalidQueueIdentifier = 0x101,
  kInvalidQueueSize = 0x102,
  kAsyncEventLimitExceeded = 0x105,
  kInvalidInterruptVector = 0x108,
  kInvalidLogPage = 0x109,
  kInvalidQueueDeletion = 0x10C,
  kFeatureNotSaveable = 0x10D,
  kFeatureNotChangeable = 0x10E,
  kWriteFault = 0x280,
  kUnrecoveredReadError = 0x281,
};
inline constexpr uint16_t kStatusMore = 1 << 13;        // more in the error information log
inline constexpr uint16_t kStatusDoNotRetry = 1 << 14;  // of the status field, without the phase tag

// ---- 5 Admin command set ----
enum class AdminOpcode : uint8_t {
  kDeleteSubmissionQueue = 0x00,
  kCreateSubmissionQueue = 0x01,
  kGetLogPage = 0x02,
  kDeleteCompletionQueue = 0x04,
  kCreateCompletionQueue = 0x05,
  kIdentify = 0x06,
  kAbort = 0x08,
  kSetFeatures = 0x09,
  kGetFeatures = 0x0A,
  kAsyncEventRequest = 0x0C,
};
inline constexpr uint32_t kQueuePhysicallyContiguous = 1u << 0;
inline constexpr uint32_t kQueueInterruptsEnabled = 1u << 1;

// 5.15 Identify: controller or namespace structure
inline constexpr uint8_t kIdentifyNamespace = 0x00;
inline constexpr uint8_t kIdentifyController = 0x01;
inline constexpr uint8_t kIdentifyActiveNamespaces = 0x02;
inline constexpr uint8_t kIdentifyDescriptors = 0x03;
inline constexpr uint32_t kIdentifySize = 4096;

// 5.14 Get Log Page
inline constexpr uint8_t kLogErrors = 0x01;
inline constexpr uint8_t kLogSmart = 0x02;
inline constexpr uint8_t kLogFirmware = 0x03;
inline constexpr uint8_t kLogChangedNamespaces = 0x04;
inline constexpr uint32_t kLogRetainEvent = 1u << 15;

// 5.21 Features
inline constexpr uint8_t kFeatureArbitration = 0x01;
inline constexpr uint8_t kFeaturePowerManagement = 0x02;
inline constexpr uint8_t kFeatureTemperatureThreshold = 0x04;
inline constexpr uint8_t kFeatureErrorRecovery = 0x05;
inline constexpr uint8_t kFeatureWriteCache = 0x06;
inline constexpr uint8_t kFeatureQueueCount = 0x07;
inline constexpr uint8_t kFeatureInterruptCoalescing = 0x08;
inline constexpr uint8_t kFeatureInterruptVector = 0x09;
inline constexpr uint8_t kFeatureWriteAtomicity = 0x0A;
inline constexpr uint8_t kFeatureAsyncEvents = 0x0B;
inline constexpr uint32_t kFeatureSave = 1u << 31;

// 5.2 Asynchronous event: type in bits 2:0, information in bits 15:8, log page in bits 23:16
inline constexpr uint32_t kEventInvalidDoorbell = 0x0001'0000;
inline constexpr uint32_t kEventInvalidDoorbellValue = 0x0001'0100;
inline constexpr uint32_t kEventNamespaceChanged = 0x0004'0002;
inline constexpr uint32_t kEventTypeMask = 7;
inline constexpr uint32_t kEventTypeError = 0;
inline constexpr uint32_t kEventTypeNotice = 2;
// Of OAES (5.15.2.2) and of the feature's value (5.21.1.11).
inline constexpr uint32_t kNamespaceNotices = 1u << 8;

// ---- 6 NVM command set ----
enum class NvmOpcode : uint8_t {
  kFlush = 0x00,
  kWrite = 0x01,
  kRead = 0x02,
  kWriteZeroes = 0x08,
  kDatasetManagement = 0x09,
};
inline constexpr uint32_t kForceUnitAccess = 1u << 30;  // of dword 12
inline constexpr uint32_t kDeallocate = 1u << 25;       // of dword 12 of write zeroes
inline constexpr uint32_t kDatasetDeallocate = 1u << 2;
inline constexpr uint32_t kMaximumDatasetRanges = 256;
inline constexpr uint32_t kAllNamespaces = 0xFFFF'FFFF;

struct DatasetRange {  // 6.7
  uint32_t attributes;
  uint32_t block_count;
  uint64_t first_block;
};
static_assert(sizeof(DatasetRange) == 16);

// ---- 5.15.2.2 Identify controller: what a controller without optional features fills in ----
struct [[gnu::packed]] PowerState {
  uint16_t maximum_power;  // in 0.01 W
  uint8_t reserved[2];
  uint32_t entry_latency_us;
  uint32_t exit_latency_us;
  uint8_t rest[20];
};
static_assert(sizeof(PowerState) == 32);

struct [[gnu::packed]] ControllerData {
  uint16_t vendor_id;
  uint16_t subsystem_vendor_id;
  char serial[20];
  char model[40];
  char firmware[8];
  uint8_t arbitration_burst;
  uint8_t oui[3];
  uint8_t multi_path;
  uint8_t maximum_transfer;  // power of two of the least page size
  uint16_t controller_id;
  uint32_t version;
  uint32_t resume_latency;
  uint32_t entry_latency;
  uint32_t optional_events;
  uint32_t attributes;
  uint8_t reserved_100[11];
  uint8_t controller_type;
  uint8_t reserved_112[144];
  uint16_t optional_admin;
  uint8_t abort_limit;
  uint8_t async_event_limit;
  uint8_t firmware_slots;
  uint8_t log_attributes;
  uint8_t error_log_entries;
  uint8_t power_states;
  uint8_t vendor_admin;
  uint8_t autonomous_power;
  uint16_t warning_temperature;  // Kelvin
  uint16_t critical_temperature;
  uint8_t reserved_270[242];
  uint8_t submission_entry_size;
  uint8_t completion_entry_size;
  uint16_t maximum_commands;
  uint32_t namespace_count;
  uint16_t optional_commands;
  uint16_t fused_operations;
  uint8_t format_attributes;
  uint8_t volatile_write_cache;
  uint16_t atomic_write_unit;
  uint16_t atomic_write_unit_power_fail;
  uint8_t vendor_commands;
  uint8_t write_protection;
  uint16_t atomic_compare_unit;
  uint8_t reserved_534[2];
  uint32_t sgl_support;
  uint32_t maximum_allowed_namespaces;
  uint8_t reserved_544[224];
  char subsystem_name[256];
  uint8_t reserved_1024[1024];
  PowerState power[32];
  uint8_t vendor[1024];
};
static_assert(sizeof(ControllerData) == kIdentifySize);

inline constexpr uint16_t kOptionalDatasetManagement = 1 << 2;
inline constexpr uint16_t kOptionalWriteZeroes = 1 << 3;
inline constexpr uint8_t kWriteCachePresent = 1 << 0;
inline constexpr uint8_t kFlushOfAllNamespaces = 3 << 1;
inline constexpr uint8_t kLogOffsetSupported = 1 << 2;
inline constexpr uint8_t kFirmwareSlotOneReadOnly = 1 << 0 | 1 << 1;
inline constexpr uint8_t kControllerTypeIo = 1;

// ---- 5.15.2.1 Identify namespace ----
struct [[gnu::packed]] NamespaceData {
  uint64_t size;  // in blocks
  uint64_t capacity;
  uint64_t utilization;
  uint8_t features;
  uint8_t format_count;  // less one
  uint8_t current_format;
  uint8_t metadata;
  uint8_t protection;
  uint8_t protection_settings;
  uint8_t sharing;
  uint8_t reservations;
  uint8_t format_progress;
  uint8_t deallocation;
  uint16_t atomics[7];
  uint8_t capacity_bytes[16];
  uint16_t preferred_write_granularity;  // the five of 4.9, in blocks, less one
  uint16_t preferred_write_alignment;
  uint16_t preferred_deallocate_granularity;
  uint16_t preferred_deallocate_alignment;
  uint16_t optimal_write_size;
  uint8_t reserved_74[18];
  uint32_t group;
  uint8_t reserved_96[3];
  uint8_t attributes;
  uint16_t set;
  uint16_t endurance_group;
  uint8_t guid[16];
  uint8_t eui64[8];
  uint32_t formats[16];  // power of two of the block size in bits 23:16
  uint8_t rest[3904];
};
static_assert(sizeof(NamespaceData) == kIdentifySize);
inline constexpr uint8_t kNamespaceThin = 1 << 0;
inline constexpr uint8_t kNamespacePreferences = 1 << 4;
inline constexpr uint8_t kDeallocatedReadsZero = 1;
inline constexpr uint8_t kDeallocateInWriteZeroes = 1 << 3;
inline constexpr uint8_t kNamespaceWriteProtect = 1 << 0;

// 5.15.2.4 Namespace identification descriptor
inline constexpr uint8_t kDescriptorUuid = 3;

// ---- 5.14.1.1 Error information, 5.14.1.2 SMART ----
struct [[gnu::packed]] ErrorLogEntry {
  uint64_t error_count;
  uint16_t submission_id;
  uint16_t command_id;
  uint16_t status;
  uint16_t parameter;
  uint64_t block;
  uint32_t namespace_id;
  uint8_t rest[36];
};
static_assert(sizeof(ErrorLogEntry) == 64);

struct [[gnu::packed]] SmartLog {
  uint8_t critical_warning;
  uint16_t temperature;  // Kelvin
  uint8_t spare_percent;
  uint8_t spare_threshold_percent;
  uint8_t used_percent;
  uint8_t reserved_6[26];
  uint64_t data_units_read[2];  // thousands of 512 bytes
  uint64_t data_units_written[2];
  uint64_t reads[2];
  uint64_t writes[2];
  uint64_t busy_minutes[2];
  uint64_t power_cycles[2];
  uint64_t power_on_hours[2];
  uint64_t unsafe_shutdowns[2];
  uint64_t media_errors[2];
  uint64_t error_log_entries[2];
  uint8_t rest[320];
};
static_assert(sizeof(SmartLog) == 512);
inline constexpr uint8_t kWarningReadOnly = 1 << 3;

struct [[gnu::packed]] FirmwareLog {  // 5.14.1.3
  uint8_t active;
  uint8_t reserved[7];
  char slots[7][8];
  uint8_t rest[448];
};
static_assert(sizeof(FirmwareLog) == 512);

}  // namespace bulkhead::spec::nvme
