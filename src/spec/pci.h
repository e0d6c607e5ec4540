// Numbers out of the PCI Local Bus Specification 3.0 (chapter 6) and the PCI Code and ID Assignment Specification:
// offsets and bits of configuration space. No logic.
#pragma once

#include <cstdint>

namespace bulkhead::spec::pci {

// Conventional configuration space of one function, and its window in ECAM.
inline constexpr uint16_t kConfigSize = 256;
inline constexpr uint16_t kEcamFunctionSize = 4096;
inline constexpr unsigned kSlotCount = 32;
inline constexpr unsigned kFunctionCount = 8;
inline constexpr unsigned kBarCount = 6;

// Offsets of a type 0 header.
inline constexpr uint8_t kVendorId = 0x00;
inline constexpr uint8_t kDeviceId = 0x02;
inline constexpr uint8_t kCommand = 0x04;
inline constexpr uint8_t kStatus = 0x06;
inline constexpr uint8_t kRevisionId = 0x08;
inline constexpr uint8_t kClassCode = 0x09;  // 3 bytes
inline constexpr uint8_t kCacheLineSize = 0x0C;
inline constexpr uint8_t kLatencyTimer = 0x0D;
inline constexpr uint8_t kHeaderType = 0x0E;
inline constexpr uint8_t kBar0 = 0x10;
inline constexpr uint8_t kSubsystemVendorId = 0x2C;
inline constexpr uint8_t kSubsystemId = 0x2E;
inline constexpr uint8_t kCapabilityPointer = 0x34;
inline constexpr uint8_t kInterruptLine = 0x3C;
inline constexpr uint8_t kInterruptPin = 0x3D;
inline constexpr uint8_t kHeaderEnd = 0x40;

inline constexpr uint16_t kCommandIo = 1 << 0;
inline constexpr uint16_t kCommandMemory = 1 << 1;
inline constexpr uint16_t kCommandBusMaster = 1 << 2;
inline constexpr uint16_t kCommandParity = 1 << 6;
inline constexpr uint16_t kCommandSerr = 1 << 8;
inline constexpr uint16_t kCommandInterruptDisable = 1 << 10;
inline constexpr uint16_t kStatusInterrupt = 1 << 3;
inline constexpr uint16_t kStatusCapabilities = 1 << 4;
inline constexpr uint8_t kHeaderMultiFunction = 0x80;

inline constexpr uint32_t kBarIo = 1;
inline constexpr uint32_t kBarMemory64 = 4;
inline constexpr uint32_t kBarPrefetchable = 8;

inline constexpr uint8_t kCapabilityMsi = 0x05;
inline constexpr uint8_t kCapabilityVendor = 0x09;
inline constexpr uint8_t kCapabilityMsix = 0x11;

// MSI with 64-bit addresses and per-vector masking: offsets within the capability.
inline constexpr uint8_t kMsiControl = 0x02;
inline constexpr uint8_t kMsiAddressLow = 0x04;
inline constexpr uint8_t kMsiAddressHigh = 0x08;
inline constexpr uint8_t kMsiData = 0x0C;
inline constexpr uint8_t kMsiMask = 0x10;
inline constexpr uint8_t kMsiPending = 0x14;
inline constexpr uint8_t kMsiSize = 0x18;
inline constexpr uint16_t kMsiEnable = 1 << 0;
inline constexpr uint16_t kMsi64Bit = 1 << 7;
inline constexpr uint16_t kMsiPerVectorMask = 1 << 8;

inline constexpr uint8_t kMsixControl = 0x02;
inline constexpr uint8_t kMsixTable = 0x04;
inline constexpr uint8_t kMsixPending = 0x08;
inline constexpr uint8_t kMsixSize = 0x0C;
inline constexpr uint16_t kMsixEnable = 1 << 15;
inline constexpr uint16_t kMsixFunctionMask = 1 << 14;
inline constexpr unsigned kMsixEntrySize = 16;
inline constexpr unsigned kMsixMaximumVectors = 2048;

inline constexpr uint32_t kClassHostBridge = 0x060000;
inline constexpr uint32_t kClassIsaBridge = 0x060100;
inline constexpr uint32_t kClassStorageSata = 0x010601;  // AHCI
inline constexpr uint32_t kClassStorageNvme = 0x010802;
inline constexpr uint32_t kClassStorageOther = 0x018000;
inline constexpr uint32_t kClassNetworkEthernet = 0x020000;
inline constexpr uint32_t kClassCommunicationOther = 0x078000;
inline constexpr uint32_t kClassOther = 0xFF0000;

// Configuration mechanism #1.
inline constexpr uint16_t kConfigAddressPort = 0xCF8;
inline constexpr uint16_t kResetControlPort = 0xCF9;
inline constexpr uint16_t kConfigDataPort = 0xCFC;

}  // namespace bulkhead::spec::pci
