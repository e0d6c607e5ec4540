// A disk device on a disk in memory, with its driver up and running on all its queues.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <vector>

#include "device/virtio/block/block.h"
#include "device/virtio/testing/fake_driver.h"
#include "device/virtio/testing/memory_disk.h"

namespace bulkhead::device::virtio {

inline constexpr uint64_t kHeader = 0x80'0000;
inline constexpr uint64_t kData = 0x81'0000;
inline constexpr uint64_t kStatus = 0x80'F000;

struct BlockMachine {
  explicit BlockMachine(RingKind kind = kRingKinds[7], bool read_only = false, uint64_t disk_size = 1 << 20,
                        uint64_t refused_features = 0, uint16_t queue_count = 1)
      : kind(kind), disk(disk_size, read_only) {
    for (size_t i = 0; i < disk.bytes.size(); ++i) disk.bytes[i] = static_cast<uint8_t>(i / 512 + 1);
    auto made = std::make_unique<ManualWorker>();
    worker = made.get();
    auto block = std::make_unique<BlockModel>("disk0", disk, "SN-0042", queue_count);
    model = block.get();
    device = PciTransport::create(std::move(block), *memory, sink, std::move(made)).value();
    driver = std::make_unique<FakeDriver>(*device, *memory);
    driver->enable_msix();
    EXPECT_TRUE(driver->negotiate(kind.features() | (driver->offered() & 0xFFFFFF & ~refused_features)));
    for (uint16_t i = 0; i < queue_count; ++i) driver->set_up_queue(i, 64);
    driver->go();
  }
  ~BlockMachine() { disk.complete_all(); }

  // Puts a request on the ring; slot keeps requests apart.
  uint16_t add(uint32_t type, uint64_t sector, uint32_t size, unsigned slot = 0, unsigned queue = 0) {
    const uint64_t header = kHeader + 64 * slot;
    driver->put(header, as_bytes(spec::virtio::BlockRequestHeader{type, 0, sector}));
    driver->put(kStatus + slot, std::vector<uint8_t>{0xEE});
    const bool reads = type == spec::virtio::kBlockIn || type == spec::virtio::kBlockGetId;
    std::vector<DriverBuffer> buffers{{header, 16, false}};
    const uint64_t data = kData + 0x1'0000 * slot;
    if (size > 1) buffers.push_back({data, size / 2, reads});
    if (size != 0) buffers.push_back({data + size / 2, size - size / 2, reads});
    buffers.push_back({kStatus + slot, 1, true});
    return driver->ring(queue).add(buffers, kind.indirect);
  }
  uint8_t status(unsigned slot = 0) { return driver->get(kStatus + slot, 1)[0]; }
  // Carries a request out and returns its status.
  uint8_t run(uint32_t type, uint64_t sector, uint32_t size) {
    add(type, sector, size);
    driver->kick(0);
    worker->run();
    last_used = driver->ring(0).take_used();
    EXPECT_TRUE(last_used);
    return status();
  }
  uint8_t run_range(uint32_t type, std::vector<spec::virtio::BlockRange> ranges) {
    driver->put(kData,
                {reinterpret_cast<const uint8_t*>(ranges.data()), ranges.size() * sizeof(spec::virtio::BlockRange)});
    return run(type, 0, static_cast<uint32_t>(ranges.size() * sizeof(spec::virtio::BlockRange)));
  }

  const RingKind kind;
  std::unique_ptr<memory::GuestMemory> memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  MemoryDisk disk;
  RecordingSink sink;
  ManualWorker* worker = nullptr;
  BlockModel* model = nullptr;
  std::unique_ptr<PciTransport> device;
  std::unique_ptr<FakeDriver> driver;
  std::optional<DriverUsed> last_used;
};

}  // namespace bulkhead::device::virtio
