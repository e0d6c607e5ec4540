// What the board is told of a disk: where its bytes are, on which bus the guest finds it, and how it calls itself.
#pragma once

#include <cstdint>
#include <string>

#include "block/disk.h"

namespace bulkhead::machine {

enum class DiskBus : uint8_t {
  kVirtio,  // a virtio-block device of its own
  kNvme,    // an NVMe controller of its own, or a namespace of one that it shares
  kSata,    // a port of the AHCI adapter
};

enum class DiskMedium : uint8_t { kFixed, kCdrom };  // a CD drive is on SATA

struct DiskWires {
  block::Disk& disk;
  std::string serial;  // at most 20 bytes
  DiskBus bus = DiskBus::kVirtio;
  DiskMedium medium = DiskMedium::kFixed;
  uint16_t queue_count = 1;  // of a virtio disk: 1 to BlockModel::kMaximumQueues
  std::string controller;    // of NVMe: disks that name the same one share it; empty: one of its own
};

}  // namespace bulkhead::machine
