// Numbers and layouts out of the OASIS specification "Virtual I/O Device (VIRTIO) Version 1.2": features, status,
// rings, the PCI transport and the devices that Bulkhead has. No logic.
#pragma once

#include <cstdint>

namespace bulkhead::spec::virtio {

// ---- 2.1 Device status ----
inline constexpr uint8_t kStatusAcknowledge = 1;
inline constexpr uint8_t kStatusDriver = 2;
inline constexpr uint8_t kStatusDriverOk = 4;
inline constexpr uint8_t kStatusFeaturesOk = 8;
inline constexpr uint8_t kStatusNeedsReset = 64;
inline constexpr uint8_t kStatusFailed = 128;

// ---- 6 Reserved feature bits ----
inline constexpr uint64_t kFeatureIndirect = 1ull << 28;
inline constexpr uint64_t kFeatureEventIndex = 1ull << 29;
inline constexpr uint64_t kFeatureVersion1 = 1ull << 32;
inline constexpr uint64_t kFeatureRingPacked = 1ull << 34;

// ---- 2.7 Split virtqueues ----
inline constexpr uint16_t kMaximumQueueSize = 32768;
inline constexpr uint16_t kDescriptorNext = 1;
inline constexpr uint16_t kDescriptorWrite = 2;
inline constexpr uint16_t kDescriptorIndirect = 4;

struct SplitDescriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};
static_assert(sizeof(SplitDescriptor) == 16);

struct SplitUsedElement {
  uint32_t id;
  uint32_t length;
};
static_assert(sizeof(SplitUsedElement) == 8);

// The available ring: flags, index, ring[size], used event. The used ring: flags, index, ring[size], available event.
inline constexpr uint64_t kRingFlags = 0;
inline constexpr uint64_t kRingIndex = 2;
inline constexpr uint64_t kRingEntries = 4;
inline constexpr uint16_t kAvailableNoInterrupt = 1;
inline constexpr uint16_t kUsedNoNotify = 1;

// ---- 2.8 Packed virtqueues ----
inline constexpr uint16_t kPackedAvailable = 1 << 7;
inline constexpr uint16_t kPackedUsed = 1 << 15;

struct PackedDescriptor {
  uint64_t address;
  uint32_t length;
  uint16_t id;
  uint16_t flags;
};
static_assert(sizeof(PackedDescriptor) == 16);

struct PackedEvent {
  uint16_t offset_wrap;  // offset in bits 14:0, wrap counter in bit 15
  uint16_t flags;
};
static_assert(sizeof(PackedEvent) == 4);
inline constexpr uint16_t kEventEnable = 0;
inline constexpr uint16_t kEventDisable = 1;
inline constexpr uint16_t kEventDescriptor = 2;

// ---- 4.1 PCI ----
inline constexpr uint16_t kPciVendor = 0x1AF4;
inline constexpr uint16_t kPciDeviceBase = 0x1040;  // + device id
inline constexpr uint8_t kPciCommonConfig = 1;
inline constexpr uint8_t kPciNotifyConfig = 2;
inline constexpr uint8_t kPciIsrConfig = 3;
inline constexpr uint8_t kPciDeviceConfig = 4;
inline constexpr uint8_t kPciConfigAccess = 5;
inline constexpr uint8_t kIsrQueue = 1;
inline constexpr uint8_t kIsrConfig = 2;
inline constexpr uint16_t kNoVector = 0xFFFF;

// As in configuration space, from the capability's first byte.
struct PciCapability {
  uint8_t capability_id;
  uint8_t next;
  uint8_t length;
  uint8_t type;
  uint8_t bar;
  uint8_t id;
  uint8_t padding[2];
  uint32_t offset;
  uint32_t size;
};
static_assert(sizeof(PciCapability) == 16);

// virtio_pci_common_cfg.
struct CommonConfig {
  uint32_t device_feature_select;
  uint32_t device_feature;
  uint32_t driver_feature_select;
  uint32_t driver_feature;
  uint16_t config_msix_vector;
  uint16_t queue_count;
  uint8_t device_status;
  uint8_t config_generation;
  uint16_t queue_select;
  uint16_t queue_size;
  uint16_t queue_msix_vector;
  uint16_t queue_enable;
  uint16_t queue_notify_offset;
  uint64_t queue_descriptors;
  uint64_t queue_driver;
  uint64_t queue_device;
  uint16_t queue_notify_data;
  uint16_t queue_reset;
  uint32_t padding;
};
static_assert(sizeof(CommonConfig) == 0x40);

// ---- 5 Device types ----
inline constexpr uint16_t kDeviceNet = 1;
inline constexpr uint16_t kDeviceBlock = 2;
inline constexpr uint16_t kDeviceConsole = 3;
inline constexpr uint16_t kDeviceEntropy = 4;

// ---- 5.1 Network device ----
inline constexpr uint64_t kNetChecksum = 1ull << 0;       // the driver may leave checksums open
inline constexpr uint64_t kNetGuestChecksum = 1ull << 1;  // the device may
inline constexpr uint64_t kNetControlGuestOffloads = 1ull << 2;
inline constexpr uint64_t kNetMtu = 1ull << 3;
inline constexpr uint64_t kNetMac = 1ull << 5;
inline constexpr uint64_t kNetGuestTcp4 = 1ull << 7;  // the device may leave streams uncut
inline constexpr uint64_t kNetGuestTcp6 = 1ull << 8;
inline constexpr uint64_t kNetHostTcp4 = 1ull << 11;  // the driver may
inline constexpr uint64_t kNetHostTcp6 = 1ull << 12;
inline constexpr uint64_t kNetMergeableBuffers = 1ull << 15;
inline constexpr uint64_t kNetStatus = 1ull << 16;
inline constexpr uint64_t kNetControlQueue = 1ull << 17;
inline constexpr uint64_t kNetControlReceive = 1ull << 18;
inline constexpr uint64_t kNetControlVlan = 1ull << 19;
inline constexpr uint64_t kNetControlReceiveExtra = 1ull << 20;
inline constexpr uint64_t kNetGuestAnnounce = 1ull << 21;
inline constexpr uint64_t kNetMultiqueue = 1ull << 22;
inline constexpr uint64_t kNetControlMac = 1ull << 23;
inline constexpr uint64_t kNetGuestUdp4 = 1ull << 54;
inline constexpr uint64_t kNetGuestUdp6 = 1ull << 55;
inline constexpr uint64_t kNetHostUdp = 1ull << 56;
inline constexpr uint64_t kNetScaling = 1ull << 60;  // RSS

inline constexpr uint16_t kNetLinkUp = 1;
inline constexpr uint16_t kNetAnnounce = 2;
inline constexpr uint8_t kNetNeedsChecksum = 1;
inline constexpr uint8_t kNetDataValid = 2;
inline constexpr uint8_t kNetGsoNone = 0;
inline constexpr uint8_t kNetGsoTcp4 = 1;
inline constexpr uint8_t kNetGsoTcp6 = 4;
inline constexpr uint8_t kNetGsoUdp = 5;

// 5.1.6.5 Control: a class, a command, its data, and an answer.
inline constexpr uint8_t kNetControlOk = 0;
inline constexpr uint8_t kNetControlError = 1;
inline constexpr uint8_t kNetClassReceive = 0;
inline constexpr uint8_t kNetClassMac = 1;
inline constexpr uint8_t kNetControlMacTable = 0;
inline constexpr uint8_t kNetControlMacAddress = 1;
inline constexpr uint8_t kNetClassVlan = 2;
inline constexpr uint8_t kNetControlVlanAdd = 0;
inline constexpr uint8_t kNetControlVlanDelete = 1;
inline constexpr uint8_t kNetClassAnnounce = 3;
inline constexpr uint8_t kNetControlAnnounceDone = 0;
inline constexpr uint8_t kNetClassMultiqueue = 4;
inline constexpr uint8_t kNetControlPairs = 0;
inline constexpr uint8_t kNetControlScaling = 1;
inline constexpr uint8_t kNetClassGuestOffloads = 5;
inline constexpr uint8_t kNetControlOffloadsSet = 0;

// 5.1.6.4.3.1 What a hash is made of.
inline constexpr uint32_t kNetHashIpv4 = 1 << 0;
inline constexpr uint32_t kNetHashTcpIpv4 = 1 << 1;
inline constexpr uint32_t kNetHashUdpIpv4 = 1 << 2;
inline constexpr uint32_t kNetHashIpv6 = 1 << 3;
inline constexpr uint32_t kNetHashTcpIpv6 = 1 << 4;
inline constexpr uint32_t kNetHashUdpIpv6 = 1 << 5;
inline constexpr uint32_t kNetHashTypes = 0x3F;

struct NetHeader {
  uint8_t flags;
  uint8_t gso_type;
  uint16_t header_size;
  uint16_t gso_size;
  uint16_t checksum_start;
  uint16_t checksum_offset;
  uint16_t buffer_count;
};
static_assert(sizeof(NetHeader) == 12);

struct __attribute__((packed)) NetConfig {
  uint8_t mac[6];
  uint16_t status;
  uint16_t max_queue_pairs;
  uint16_t mtu;
  uint32_t speed;
  uint8_t duplex;
  uint8_t rss_max_key_size;
  uint16_t rss_max_indirection_table_length;
  uint32_t supported_hash_types;
};
static_assert(sizeof(NetConfig) == 24);

// ---- 5.2 Block device ----
inline constexpr uint64_t kBlockSizeMax = 1ull << 1;
inline constexpr uint64_t kBlockSegMax = 1ull << 2;
inline constexpr uint64_t kBlockReadOnly = 1ull << 5;
inline constexpr uint64_t kBlockBlockSize = 1ull << 6;
inline constexpr uint64_t kBlockFlush = 1ull << 9;
inline constexpr uint64_t kBlockTopology = 1ull << 10;
inline constexpr uint64_t kBlockMultiqueue = 1ull << 12;
inline constexpr uint64_t kBlockDiscard = 1ull << 13;
inline constexpr uint64_t kBlockWriteZeroes = 1ull << 14;

inline constexpr uint32_t kBlockIn = 0;
inline constexpr uint32_t kBlockOut = 1;
inline constexpr uint32_t kBlockFlushRequest = 4;
inline constexpr uint32_t kBlockGetId = 8;
inline constexpr uint32_t kBlockDiscardRequest = 11;
inline constexpr uint32_t kBlockWriteZeroesRequest = 13;
inline constexpr uint8_t kBlockStatusOk = 0;
inline constexpr uint8_t kBlockStatusIoError = 1;
inline constexpr uint8_t kBlockStatusUnsupported = 2;
inline constexpr uint32_t kBlockSectorSize = 512;
inline constexpr uint32_t kBlockIdSize = 20;
inline constexpr uint32_t kBlockUnmap = 1;

struct BlockRequestHeader {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
static_assert(sizeof(BlockRequestHeader) == 16);

struct BlockRange {
  uint64_t sector;
  uint32_t sector_count;
  uint32_t flags;
};
static_assert(sizeof(BlockRange) == 16);

struct __attribute__((packed)) BlockConfig {
  uint64_t capacity;  // sectors of 512 bytes
  uint32_t size_max;
  uint32_t seg_max;
  uint16_t cylinders;
  uint8_t heads;
  uint8_t sectors;
  uint32_t block_size;
  uint8_t physical_block_exponent;
  uint8_t alignment_offset;
  uint16_t minimum_io_size;
  uint32_t optimal_io_size;
  uint8_t writeback;
  uint8_t unused0;
  uint16_t queue_count;
  uint32_t max_discard_sectors;
  uint32_t max_discard_segments;
  uint32_t discard_sector_alignment;
  uint32_t max_write_zeroes_sectors;
  uint32_t max_write_zeroes_segments;
  uint8_t write_zeroes_may_unmap;
  uint8_t unused1[3];
};
static_assert(sizeof(BlockConfig) == 60);

// ---- 5.3 Console device ----
inline constexpr uint64_t kConsoleSize = 1ull << 0;

struct ConsoleConfig {
  uint16_t columns;
  uint16_t rows;
  uint32_t max_ports;
  uint32_t emergency_write;
};
static_assert(sizeof(ConsoleConfig) == 12);

}  // namespace bulkhead::spec::virtio
