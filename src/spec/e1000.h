// Numbers and layouts out of Intel's PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual
// (317453): registers, descriptors, EEPROM and PHY of the 82540EM; and out of the 82574 GbE Controller Family Datasheet
// (317694) where the 82574L has more. No logic.
#pragma once

#include <cstdint>

namespace bulkhead::spec::e1000 {

// ---- 13.4 Registers ----
inline constexpr uint32_t kControl = 0x0000;
inline constexpr uint32_t kDeviceStatus = 0x0008;
inline constexpr uint32_t kEepromControl = 0x0010;
inline constexpr uint32_t kEepromRead = 0x0014;
inline constexpr uint32_t kControlExtended = 0x0018;
inline constexpr uint32_t kMdiControl = 0x0020;
inline constexpr uint32_t kFlowAddressLow = 0x0028;
inline constexpr uint32_t kFlowAddressHigh = 0x002C;
inline constexpr uint32_t kFlowType = 0x0030;
inline constexpr uint32_t kVlanType = 0x0038;
inline constexpr uint32_t kInterruptCause = 0x00C0;
inline constexpr uint32_t kInterruptThrottle = 0x00C4;
inline constexpr uint32_t kInterruptCauseSet = 0x00C8;
inline constexpr uint32_t kInterruptMaskSet = 0x00D0;
inline constexpr uint32_t kInterruptMaskClear = 0x00D8;
inline constexpr uint32_t kAutoClear = 0x00DC;        // EIAC, and what follows, of the 82574L
inline constexpr uint32_t kAutoMask = 0x00E0;         // IAM
inline constexpr uint32_t kVectors = 0x00E4;          // IVAR
inline constexpr uint32_t kVectorThrottles = 0x00E8;  // EITR, one for each of five vectors
inline constexpr uint32_t kReceiveControl = 0x0100;
inline constexpr uint32_t kFlowTimer = 0x0170;
inline constexpr uint32_t kTransmitConfiguration = 0x0178;
inline constexpr uint32_t kTransmitControl = 0x0400;
inline constexpr uint32_t kTransmitGap = 0x0410;
inline constexpr uint32_t kAdaptiveSpacing = 0x0458;
inline constexpr uint32_t kLedControl = 0x0E00;
inline constexpr uint32_t kConfigurationOwner = 0x0F00;  // EXTCNF_CTRL
inline constexpr uint32_t kPacketBuffer = 0x1000;
inline constexpr uint32_t kFlowThresholdLow = 0x2160;
inline constexpr uint32_t kFlowThresholdHigh = 0x2168;
inline constexpr uint32_t kReceiveBaseLow = 0x2800;
inline constexpr uint32_t kReceiveBaseHigh = 0x2804;
inline constexpr uint32_t kReceiveLength = 0x2808;
inline constexpr uint32_t kReceiveHead = 0x2810;
inline constexpr uint32_t kReceiveTail = 0x2818;
inline constexpr uint32_t kReceiveDelay = 0x2820;
inline constexpr uint32_t kReceiveThresholds = 0x2828;
inline constexpr uint32_t kReceiveAbsoluteDelay = 0x282C;
inline constexpr uint32_t kReceiveSmallPackets = 0x2C00;
inline constexpr uint32_t kTransmitBaseLow = 0x3800;
inline constexpr uint32_t kTransmitBaseHigh = 0x3804;
inline constexpr uint32_t kTransmitLength = 0x3808;
inline constexpr uint32_t kTransmitHead = 0x3810;
inline constexpr uint32_t kTransmitTail = 0x3818;
inline constexpr uint32_t kTransmitDelay = 0x3820;
inline constexpr uint32_t kTransmitThresholds = 0x3828;
inline constexpr uint32_t kTransmitAbsoluteDelay = 0x382C;
inline constexpr uint32_t kSegmentationPad = 0x3830;
inline constexpr uint32_t kStatistics = 0x4000;
inline constexpr uint32_t kSplitControl = 0x2170;         // PSRCTL
inline constexpr uint32_t kTransmitArbitration = 0x3840;  // TARC0
inline constexpr uint32_t kReceiveChecksum = 0x5000;
inline constexpr uint32_t kReceiveFilter = 0x5008;   // RFCTL
inline constexpr uint32_t kScalingControl = 0x5818;  // MRQC
inline constexpr uint32_t kPcieControl = 0x5B00;     // GCR
inline constexpr uint32_t kSemaphore = 0x5B50;       // SWSM
inline constexpr uint32_t kMulticastTable = 0x5200;
inline constexpr uint32_t kReceiveAddresses = 0x5400;
inline constexpr uint32_t kVlanTable = 0x5600;
inline constexpr uint32_t kWakeControl = 0x5800;
inline constexpr uint32_t kWakeFilter = 0x5808;
inline constexpr uint32_t kWakeStatus = 0x5810;
inline constexpr uint32_t kManagement = 0x5820;

inline constexpr unsigned kStatisticCount = 64;
inline constexpr unsigned kMulticastWords = 128;
inline constexpr unsigned kReceiveAddressWords = 32;  // a low and a high one for each of 16
inline constexpr unsigned kVlanWords = 128;

inline constexpr uint32_t kControlFullDuplex = 1u << 0;
inline constexpr uint32_t kControlNoMaster = 1u << 2;
inline constexpr uint32_t kControlSpeed1000 = 2u << 8;
inline constexpr uint32_t kControlReset = 1u << 26;
inline constexpr uint32_t kControlVlanMode = 1u << 30;
inline constexpr uint32_t kControlPhyReset = 1u << 31;

inline constexpr uint32_t kStatusFullDuplex = 1u << 0;
inline constexpr uint32_t kStatusLinkUp = 1u << 1;
inline constexpr uint32_t kStatusSpeed1000 = 2u << 6;
inline constexpr uint32_t kStatusDetected1000 = 2u << 8;
inline constexpr uint32_t kStatusMaster = 1u << 19;

inline constexpr uint32_t kEepromClock = 1u << 0;
inline constexpr uint32_t kEepromSelect = 1u << 1;
inline constexpr uint32_t kEepromIn = 1u << 2;
inline constexpr uint32_t kEepromOut = 1u << 3;
inline constexpr uint32_t kEepromRequest = 1u << 6;
inline constexpr uint32_t kEepromGrant = 1u << 7;
inline constexpr uint32_t kEepromPresent = 1u << 8;
inline constexpr uint32_t kEepromReadStart = 1u << 0;
inline constexpr uint32_t kEepromReadDone = 1u << 4;
inline constexpr unsigned kEepromReadAddressShift = 8;
inline constexpr uint32_t kEepromLoaded = 1u << 9;  // of the 82574L, as these
inline constexpr uint32_t kEepromReadDone74 = 1u << 1;
inline constexpr unsigned kEepromReadAddressShift74 = 2;

inline constexpr uint32_t kControlExtendedEepromReset = 1u << 13;
inline constexpr uint32_t kControlExtendedAutoMask = 1u << 27;  // IAME
inline constexpr uint32_t kControlExtendedClear = 1u << 31;     // PBA_CLR

inline constexpr unsigned kMdiRegisterShift = 16;
inline constexpr unsigned kMdiPhyShift = 21;
inline constexpr unsigned kMdiOperationShift = 26;
inline constexpr uint32_t kMdiWrite = 1;
inline constexpr uint32_t kMdiRead = 2;
inline constexpr uint32_t kMdiReady = 1u << 28;
inline constexpr uint32_t kMdiInterrupt = 1u << 29;
inline constexpr uint32_t kMdiError = 1u << 30;
inline constexpr uint32_t kMdiPhyAddress = 1;

// Causes of interrupts, in ICR, ICS, IMS and IMC.
inline constexpr uint32_t kCauseTransmitted = 1u << 0;
inline constexpr uint32_t kCauseTransmitEmpty = 1u << 1;
inline constexpr uint32_t kCauseLink = 1u << 2;
inline constexpr uint32_t kCauseReceiveThreshold = 1u << 4;
inline constexpr uint32_t kCauseReceived = 1u << 7;
inline constexpr uint32_t kCauseMdi = 1u << 9;
inline constexpr uint32_t kCauses = 0x0001'FFFF;
// Of the 82574L with MSI-X: what its vectors are for.
inline constexpr uint32_t kCauseReceiveQueue = 1u << 20;
inline constexpr uint32_t kCauseTransmitQueue = 1u << 22;
inline constexpr uint32_t kCauseOther = 1u << 24;
inline constexpr uint32_t kCausesWithQueues = kCauses | 0x01F0'0000;
inline constexpr uint32_t kCauseAsserted = 1u << 31;
inline constexpr unsigned kVectorCount = 5;
inline constexpr uint32_t kVectorValid = 1u << 3;
inline constexpr uint64_t kThrottleUnit_ns = 256;

inline constexpr uint32_t kReceiveEnable = 1u << 1;
inline constexpr uint32_t kReceiveAllUnicast = 1u << 3;
inline constexpr uint32_t kReceiveAllMulticast = 1u << 4;
inline constexpr uint32_t kReceiveLong = 1u << 5;
inline constexpr unsigned kReceiveThresholdShift = 8;
inline constexpr uint32_t kReceiveSplit = 1u << 10;
inline constexpr uint32_t kReceiveDescriptorKind = 3u << 10;  // of the 82574L
inline constexpr unsigned kReceiveMulticastShift = 12;
inline constexpr uint32_t kReceiveBroadcast = 1u << 15;
inline constexpr unsigned kReceiveBufferShift = 16;
inline constexpr uint32_t kReceiveVlanFilter = 1u << 18;
inline constexpr uint32_t kReceiveCanonicalFilter = 1u << 19;
inline constexpr uint32_t kReceiveCanonical = 1u << 20;
inline constexpr uint32_t kReceiveBufferExtended = 1u << 25;
inline constexpr uint32_t kReceiveStripChecksum = 1u << 26;

inline constexpr uint32_t kFilterExtended = 1u << 15;  // RFCTL.EXTEN

inline constexpr uint32_t kTransmitEnable = 1u << 1;

inline constexpr uint32_t kChecksumStart = 0xFF;
inline constexpr uint32_t kChecksumIpv4 = 1u << 8;
inline constexpr uint32_t kChecksumTransport = 1u << 9;
inline constexpr uint32_t kChecksumIpv6 = 1u << 10;

inline constexpr uint32_t kAddressValid = 1u << 31;
inline constexpr uint32_t kAddressSource = 1u << 16;
inline constexpr uint32_t kLengthMask = 0x000F'FF80;

// ---- 3.2, 3.3 Descriptors ----
struct ReceiveDescriptor {
  uint64_t address;
  uint16_t length;
  uint16_t checksum;
  uint8_t status;
  uint8_t errors;
  uint16_t special;
};
static_assert(sizeof(ReceiveDescriptor) == 16);

// One that names several buffers, of the 82574L; given back as an extended one with the lengths of the others behind.
inline constexpr unsigned kSplitBuffers = 4;
struct SplitDescriptor {
  uint64_t addresses[kSplitBuffers];
};
static_assert(sizeof(SplitDescriptor) == 32);

// What an extended one of the 82574L says when it is given back; it begins with an address as well.
struct ExtendedWriteBack {
  uint32_t queue;
  uint16_t identification;
  uint16_t checksum;
  uint32_t status;  // errors in the highest byte
  uint16_t length;
  uint16_t special;
};
static_assert(sizeof(ExtendedWriteBack) == 16);

inline constexpr uint8_t kReceiveDone = 1u << 0;
inline constexpr uint8_t kReceiveEnd = 1u << 1;
inline constexpr uint8_t kReceiveIgnoreChecksum = 1u << 2;
inline constexpr uint8_t kReceiveVlan = 1u << 3;
inline constexpr uint8_t kReceiveTransportChecked = 1u << 5;
inline constexpr uint8_t kReceiveIpChecked = 1u << 6;
inline constexpr uint8_t kReceiveNotExact = 1u << 7;
inline constexpr uint8_t kReceiveTransportError = 1u << 5;
inline constexpr uint8_t kReceiveIpError = 1u << 6;

// A legacy descriptor; the words of the extended kinds lie in the same places.
struct TransmitDescriptor {
  uint64_t address;  // of a context: where checksums begin, stand and end
  uint32_t command;  // 16 or 20 bits of length, the kind, the command
  uint32_t status;
};
static_assert(sizeof(TransmitDescriptor) == 16);

inline constexpr unsigned kTransmitKindShift = 20;
inline constexpr unsigned kTransmitCommandShift = 24;
inline constexpr uint8_t kTransmitEnd = 1u << 0;
inline constexpr uint8_t kTransmitInsertFcs = 1u << 1;
inline constexpr uint8_t kTransmitInsertChecksum = 1u << 2;  // of a legacy one
inline constexpr uint8_t kTransmitSegment = 1u << 2;         // of an extended one
inline constexpr uint8_t kTransmitReport = 1u << 3;
inline constexpr uint8_t kTransmitExtended = 1u << 5;
inline constexpr uint8_t kTransmitVlan = 1u << 6;
inline constexpr uint8_t kContextTcp = 1u << 0;
inline constexpr uint8_t kContextIpv4 = 1u << 1;
inline constexpr uint8_t kOptionIpChecksum = 1u << 0;
inline constexpr uint8_t kOptionTransportChecksum = 1u << 1;
inline constexpr uint8_t kTransmitDone = 1u << 0;

// ---- 13.7 Statistics: numbers of words from kStatistics ----
enum Statistic : uint8_t {
  kPacketsReceived64 = 0x5C / 4,  // then up to 127, 255, 511, 1023, and larger
  kGoodReceived = 0x74 / 4,
  kBroadcastReceived = 0x78 / 4,
  kMulticastReceived = 0x7C / 4,
  kGoodTransmitted = 0x80 / 4,
  kGoodOctetsReceived = 0x88 / 4,  // 64 bits
  kGoodOctetsTransmitted = 0x90 / 4,
  kOversized = 0xAC / 4,
  kOctetsReceived = 0xC0 / 4,
  kOctetsTransmitted = 0xC8 / 4,
  kTotalReceived = 0xD0 / 4,
  kTotalTransmitted = 0xD4 / 4,
  kPacketsTransmitted64 = 0xD8 / 4,
  kMulticastTransmitted = 0xF0 / 4,
  kBroadcastTransmitted = 0xF4 / 4,
  kSegmentationContexts = 0xF8 / 4,
};

// ---- 5.6 EEPROM ----
inline constexpr unsigned kEepromWords = 64;
inline constexpr uint16_t kEepromSum = 0xBABA;
inline constexpr unsigned kEepromControl1 = 0x0A;
inline constexpr unsigned kEepromSubsystem = 0x0B;
inline constexpr unsigned kEepromSubsystemVendor = 0x0C;
inline constexpr unsigned kEepromDevice = 0x0D;
inline constexpr unsigned kEepromVendor = 0x0E;
inline constexpr unsigned kEepromChecksum = 0x3F;

// ---- 8.x PHY registers (IEEE 802.3 22.2.4, and those of the 82540EM's own) ----
inline constexpr unsigned kPhyControl = 0;
inline constexpr unsigned kPhyStatus = 1;
inline constexpr unsigned kPhyId1 = 2;
inline constexpr unsigned kPhyId2 = 3;
inline constexpr unsigned kPhyAdvertised = 4;
inline constexpr unsigned kPhyPartner = 5;
inline constexpr unsigned kPhyExpansion = 6;
inline constexpr unsigned kPhy1000Control = 9;
inline constexpr unsigned kPhy1000Status = 10;
inline constexpr unsigned kPhyExtendedStatus = 15;
inline constexpr unsigned kPhySpecificControl = 16;
inline constexpr unsigned kPhySpecificStatus = 17;
inline constexpr unsigned kPhyInterruptEnable = 18;
inline constexpr unsigned kPhyInterruptStatus = 19;
inline constexpr unsigned kPhyExtendedControl = 20;
inline constexpr unsigned kPhyRegisterCount = 32;
inline constexpr unsigned kPhyPage = 22;  // of the 82574L: what 16 to 31 are
inline constexpr unsigned kPhyPagedFirst = 16;
inline constexpr uint16_t kPhyReset = 1u << 15;
inline constexpr uint16_t kPhyRestart = 1u << 9;

}  // namespace bulkhead::spec::e1000
