// The firmware configuration interface that SeaBIOS, OVMF and Linux know (QEMU's docs/specs/fw_cfg.rst): layouts only.
// Multi-byte fields of the structures are big-endian; the values of numeric items are little-endian.
#pragma once

#include <cstdint>

namespace bulkhead::spec::fw_cfg {

inline constexpr uint16_t kSelectorPort = 0x510;  // 16 bits, written
inline constexpr uint16_t kDataPort = 0x511;      // 8 bits
inline constexpr uint16_t kDmaPort = 0x514;       // 64 bits in two big-endian halves; the low one starts the transfer

enum Key : uint16_t {
  kSignature = 0x00,
  kInterfaceVersion = 0x01,
  kUuid = 0x02,
  kRamSize = 0x03,
  kNoGraphic = 0x04,
  kCpuCount = 0x05,
  kKernelSize = 0x08,
  kInitrdSize = 0x0B,
  kBootMenu = 0x0E,
  kMaximumCpuCount = 0x0F,
  kKernelData = 0x11,
  kInitrdData = 0x12,
  kCommandLineSize = 0x14,
  kCommandLineData = 0x15,
  kSetupSize = 0x17,
  kSetupData = 0x18,
  kFileDirectory = 0x19,
  kFirstFile = 0x20,
  kIrq0Override = 0x8002,
};

inline constexpr uint8_t kSignatureBytes[4] = {'Q', 'E', 'M', 'U'};
inline constexpr uint32_t kVersionTraditional = 1;
inline constexpr uint32_t kVersionDma = 2;
inline constexpr uint64_t kDmaSignature = 0x5145'4D55'2043'4647;  // "QEMU CFG", what the DMA register reads as

inline constexpr uint64_t kFileNameSize = 56;  // with its terminating zero
struct [[gnu::packed]] FileEntry {
  uint32_t size;
  uint16_t key;
  uint16_t reserved;
  char name[kFileNameSize];
};
static_assert(sizeof(FileEntry) == 64);

enum DmaControl : uint32_t { kDmaError = 1, kDmaRead = 2, kDmaSkip = 4, kDmaSelect = 8, kDmaWrite = 16 };
inline constexpr unsigned kDmaKeyShift = 16;
struct [[gnu::packed]] DmaAccess {
  uint32_t control;
  uint32_t length;
  uint64_t address;
};
static_assert(sizeof(DmaAccess) == 16);

}  // namespace bulkhead::spec::fw_cfg
