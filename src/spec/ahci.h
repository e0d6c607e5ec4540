// Numbers out of the Serial ATA AHCI specification 1.3.1 (registers, command list, received FIS), ATA/ATAPI Command Set
// (ACS-3) and SCSI Multi-Media Commands (MMC-6), as far as a disk and a CD drive need them. No logic.
#pragma once

#include <cstdint>

namespace bulkhead::spec::ahci {

// ---- 3.1 Generic host control ----
inline constexpr uint32_t kCapabilities = 0x00;
inline constexpr uint32_t kControl = 0x04;  // GHC
inline constexpr uint32_t kInterruptStatus = 0x08;
inline constexpr uint32_t kPortsImplemented = 0x0C;
inline constexpr uint32_t kVersion = 0x10;
inline constexpr uint32_t kPorts = 0x100;
inline constexpr uint32_t kPortSize = 0x80;
inline constexpr unsigned kMaximumPorts = 32;
inline constexpr unsigned kSlotCount = 32;

inline constexpr uint32_t kVersion131 = 0x0001'0301;
inline constexpr uint32_t kCapSlots = (kSlotCount - 1) << 8;
inline constexpr uint32_t kCapAhciOnly = 1u << 18;
inline constexpr uint32_t kCapThirdGeneration = 3u << 20;
inline constexpr uint32_t kCapCommandListOverride = 1u << 24;
inline constexpr uint32_t kCapNativeQueueing = 1u << 30;
inline constexpr uint32_t kCap64Bit = 1u << 31;
inline constexpr uint32_t kControlReset = 1u << 0;
inline constexpr uint32_t kControlInterrupts = 1u << 1;
inline constexpr uint32_t kControlAhci = 1u << 31;

// ---- 3.3 Port registers ----
inline constexpr uint32_t kListBase = 0x00;
inline constexpr uint32_t kListBaseHigh = 0x04;
inline constexpr uint32_t kFisBase = 0x08;
inline constexpr uint32_t kFisBaseHigh = 0x0C;
inline constexpr uint32_t kPortInterruptStatus = 0x10;
inline constexpr uint32_t kPortInterruptEnable = 0x14;
inline constexpr uint32_t kPortCommand = 0x18;
inline constexpr uint32_t kTaskFile = 0x20;
inline constexpr uint32_t kSignature = 0x24;
inline constexpr uint32_t kSataStatus = 0x28;
inline constexpr uint32_t kSataControl = 0x2C;
inline constexpr uint32_t kSataError = 0x30;
inline constexpr uint32_t kSataActive = 0x34;
inline constexpr uint32_t kCommandIssue = 0x38;

inline constexpr uint32_t kInterruptRegisterFis = 1u << 0;
inline constexpr uint32_t kInterruptPioSetup = 1u << 1;
inline constexpr uint32_t kInterruptSetDeviceBits = 1u << 3;
inline constexpr uint32_t kInterruptConnectChange = 1u << 6;
inline constexpr uint32_t kInterruptHostFatal = 1u << 29;
inline constexpr uint32_t kInterruptTaskFileError = 1u << 30;
inline constexpr uint32_t kInterruptWritable = 0xFDC0'00FF;

inline constexpr uint32_t kCommandStart = 1u << 0;
inline constexpr uint32_t kCommandSpinUp = 1u << 1;
inline constexpr uint32_t kCommandPowerOn = 1u << 2;
inline constexpr uint32_t kCommandListOverride = 1u << 3;
inline constexpr uint32_t kCommandFisReceive = 1u << 4;
inline constexpr uint32_t kCommandFisRunning = 1u << 14;
inline constexpr uint32_t kCommandListRunning = 1u << 15;
inline constexpr uint32_t kCommandAtapi = 1u << 24;

inline constexpr uint32_t kLinkUp = 0x133;  // device present, third generation, active
inline constexpr uint32_t kErrorExchanged = 1u << 26;
inline constexpr uint32_t kDiskSignature = 0x0000'0101;
inline constexpr uint32_t kAtapiSignature = 0xEB14'0101;

// ---- 4.2 Structures in memory ----
struct CommandHeader {
  uint16_t flags;  // FIS length in doublewords in bits 4:0
  uint16_t table_entries;
  uint32_t transferred;
  uint64_t table;
  uint32_t reserved[4];
};
static_assert(sizeof(CommandHeader) == 32);
inline constexpr uint16_t kHeaderAtapi = 1 << 5;
inline constexpr uint32_t kPacketOffset = 0x40;
inline constexpr uint32_t kRegionTableOffset = 0x80;
struct Region {
  uint64_t address;
  uint32_t reserved;
  uint32_t size;  // less one, in bits 21:0
};
static_assert(sizeof(Region) == 16);
inline constexpr uint32_t kRegionSizeMask = 0x3F'FFFF;
// Within the received FIS area.
inline constexpr uint32_t kReceivedPioSetup = 0x20;
inline constexpr uint32_t kReceivedRegister = 0x40;
inline constexpr uint32_t kReceivedSetDeviceBits = 0x58;

// ---- Serial ATA 10.5: frame information structures ----
inline constexpr uint8_t kFisHostToDevice = 0x27;
inline constexpr uint8_t kFisDeviceToHost = 0x34;
inline constexpr uint8_t kFisPioSetup = 0x5F;
inline constexpr uint8_t kFisSetDeviceBits = 0xA1;
inline constexpr uint8_t kFisInterrupt = 0x40;
struct HostFis {
  uint8_t type;
  uint8_t flags;  // bit 7: a command, else device control
  uint8_t command;
  uint8_t features;
  uint8_t lba_low[3];
  uint8_t device;
  uint8_t lba_high[3];
  uint8_t features_high;
  uint16_t count;
  uint8_t auxiliary;
  uint8_t control;
  uint8_t reserved[4];
};
static_assert(sizeof(HostFis) == 20);
inline constexpr uint8_t kFisIsCommand = 0x80;
inline constexpr uint8_t kControlSoftReset = 0x04;
struct DeviceFis {
  uint8_t type;
  uint8_t flags;
  uint8_t status;
  uint8_t error;
  uint8_t lba_low[3];
  uint8_t device;
  uint8_t lba_high[3];
  uint8_t reserved_11;
  uint16_t count;
  uint8_t reserved_14;
  uint8_t end_status;  // of a PIO setup
  uint16_t transfer_count;
  uint8_t reserved_18[2];
};
static_assert(sizeof(DeviceFis) == 20);

// ---- ACS-3: status, error, commands ----
inline constexpr uint8_t kStatusError = 0x01;
inline constexpr uint8_t kStatusDataRequest = 0x08;
inline constexpr uint8_t kStatusSeekComplete = 0x10;
inline constexpr uint8_t kStatusReady = 0x40;
inline constexpr uint8_t kStatusBusy = 0x80;
inline constexpr uint8_t kErrorAbort = 0x04;
inline constexpr uint8_t kErrorNoSector = 0x10;
inline constexpr uint8_t kErrorUncorrectable = 0x40;

enum class Command : uint8_t {
  kDataSetManagement = 0x06,
  kDeviceReset = 0x08,
  kReadSectors = 0x20,
  kReadSectorsExt = 0x24,
  kReadDmaExt = 0x25,
  kReadLogExt = 0x2F,
  kWriteSectors = 0x30,
  kWriteSectorsExt = 0x34,
  kWriteDmaExt = 0x35,
  kWriteDmaFuaExt = 0x3D,
  kReadVerify = 0x40,
  kReadVerifyExt = 0x42,
  kReadQueued = 0x60,
  kWriteQueued = 0x61,
  kPacket = 0xA0,
  kIdentifyPacket = 0xA1,
  kReadDma = 0xC8,
  kWriteDma = 0xCA,
  kStandbyImmediate = 0xE0,
  kIdleImmediate = 0xE1,
  kStandby = 0xE2,
  kIdle = 0xE3,
  kCheckPower = 0xE5,
  kSleep = 0xE6,
  kFlush = 0xE7,
  kFlushExt = 0xEA,
  kIdentify = 0xEC,
  kSetFeatures = 0xEF,
};
inline constexpr uint8_t kForceUnitAccess = 0x80;  // of the device register of a queued write
inline constexpr uint8_t kTrim = 0x01;
inline constexpr uint8_t kSetTransferMode = 0x03;
inline constexpr uint8_t kEnableWriteCache = 0x02;
inline constexpr uint8_t kDisableWriteCache = 0x82;
inline constexpr uint8_t kLogQueuedError = 0x10;

// ---- MMC-6: packet commands ----
enum class Packet : uint8_t {
  kTestUnitReady = 0x00,
  kRequestSense = 0x03,
  kInquiry = 0x12,
  kModeSense6 = 0x1A,
  kStartStop = 0x1B,
  kPreventRemoval = 0x1E,
  kReadCapacity = 0x25,
  kRead10 = 0x28,
  kReadToc = 0x43,
  kGetConfiguration = 0x46,
  kGetEventStatus = 0x4A,
  kReadDiscInformation = 0x51,
  kModeSense10 = 0x5A,
  kRead12 = 0xA8,
  kMechanismStatus = 0xBD,
};
inline constexpr uint32_t kCdSectorSize = 2048;

}  // namespace bulkhead::spec::ahci
