// A controller with memory, disks and a driver, as the tests of the controller use them.
#pragma once

#include <gtest/gtest.h>

#include "device/nvme/testing/nvme_driver.h"
#include "device/test_wires.h"
#include "device/virtio/manual_worker.h"
#include "device/virtio/testing/memory_disk.h"

namespace bulkhead::device::nvme {

using spec::nvme::AdminOpcode;
using spec::nvme::CompletionEntry;
using spec::nvme::NvmOpcode;
using spec::nvme::Status;
using spec::nvme::SubmissionEntry;
using virtio::ManualWorker;
using virtio::MemoryDisk;

inline constexpr uint64_t kData = 0x80'0000;
inline constexpr uint64_t kList = 0x90'0000;
inline constexpr uint64_t kNowhere = 1ull << 40;

// A controller with its driver; the admin queue runs and I/O queue 1 unless told otherwise.
struct Machine {
  explicit Machine(bool read_only = false, bool up = true, bool two = false) : disk(1 << 22, read_only) {
    for (size_t i = 0; i < disk.bytes.size(); ++i) disk.bytes[i] = static_cast<uint8_t>(i / 512 + 1);
    auto made = std::make_unique<ManualWorker>();
    worker = made.get();
    std::vector<Namespace> namespaces{{disk, {1, 2, 3}}};
    if (two) namespaces.push_back({second, {4, 5, 6}});
    device =
        Controller::create({"nvme0", "SN-0042", {1, 2, 3}}, std::move(namespaces), *memory, messages, std::move(made))
            .value();
    device->attach(nullptr, irq.line());
    driver = std::make_unique<NvmeDriver>(*device, *memory);
    if (!up) return;
    start();
    create_queues(1, 64, 64);
  }
  ~Machine() {
    disk.complete_all();
    second.complete_all();
  }

  void start(uint32_t admin_size = 32) {
    driver->enable_msix();
    driver->set_admin_queues(admin_size);
    driver->enable();
    worker->run();
    EXPECT_EQ(driver->status(), spec::nvme::kStatusReady);
  }
  // Carries a command out; its status without the phase and "do not retry".
  Status run(uint16_t queue, const SubmissionEntry& entry) {
    const uint16_t id = driver->add(queue, entry);
    driver->ring(queue);
    worker->run();
    last = driver->take(queue);
    if (!last) {
      ADD_FAILURE() << "command " << id << " was not answered";
      return Status::kInternalError;
    }
    EXPECT_EQ(last->command_id, id);
    EXPECT_EQ(last->submission_id, queue);
    driver->acknowledge(queue);
    worker->run();
    return static_cast<Status>(last->status >> 1 & 0x7FF);
  }
  Status admin(AdminOpcode opcode, uint32_t dword10 = 0, uint32_t dword11 = 0, uint64_t prp1 = kData,
               uint32_t nsid = 0) {
    return run(0, {.opcode = static_cast<uint8_t>(opcode),
                   .namespace_id = nsid,
                   .prp1 = prp1,
                   .dword10 = dword10,
                   .dword11 = dword11});
  }
  void create_queues(uint16_t id, uint32_t size, uint32_t completion_size) {
    driver->know_queue(id, size, completion_size);
    EXPECT_EQ(admin(AdminOpcode::kCreateCompletionQueue, id | (completion_size - 1) << 16,
                    spec::nvme::kQueuePhysicallyContiguous | spec::nvme::kQueueInterruptsEnabled | uint32_t{id} << 16,
                    NvmeDriver::completion_base(id)),
              Status::kSuccess);
    EXPECT_EQ(admin(AdminOpcode::kCreateSubmissionQueue, id | (size - 1) << 16,
                    spec::nvme::kQueuePhysicallyContiguous | uint32_t{id} << 16, NvmeDriver::submission_base(id)),
              Status::kSuccess);
  }
  static SubmissionEntry io(NvmOpcode opcode, uint64_t block, uint32_t count, uint64_t prp1 = kData,
                            uint64_t prp2 = 0) {
    return {.opcode = static_cast<uint8_t>(opcode),
            .namespace_id = 1,
            .prp1 = prp1,
            .prp2 = prp2,
            .dword10 = static_cast<uint32_t>(block),
            .dword11 = static_cast<uint32_t>(block >> 32),
            .dword12 = count - 1};
  }
  Status read(uint64_t block, uint32_t count, uint64_t prp1 = kData, uint64_t prp2 = 0) {
    return run(1, io(NvmOpcode::kRead, block, count, prp1, prp2));
  }
  template <typename Structure>
  Structure identify(uint8_t what, uint32_t nsid) {
    EXPECT_EQ(admin(AdminOpcode::kIdentify, what, 0, kData, nsid), Status::kSuccess);
    return load<Structure>(driver->get(kData, sizeof(Structure)).data());
  }

  std::unique_ptr<memory::GuestMemory> memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  MemoryDisk disk;
  MemoryDisk second{1 << 20};
  RecordedMessages messages;
  RecordedIrq irq;
  ManualWorker* worker = nullptr;
  std::unique_ptr<Controller> device;
  std::unique_ptr<NvmeDriver> driver;
  std::optional<CompletionEntry> last;
};

}  // namespace bulkhead::device::nvme
