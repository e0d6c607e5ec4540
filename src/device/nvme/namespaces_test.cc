// Several disks behind one controller.
#include "device/nvme/controller.h"

#include <gtest/gtest.h>

#include "device/nvme/testing/nvme_machine.h"

namespace bulkhead::device::nvme {
namespace {

using namespace spec::nvme;

constexpr bool kWritable = false, kUp = true, kTwo = true;

SubmissionEntry of_namespace(uint32_t id, SubmissionEntry entry) {
  entry.namespace_id = id;
  return entry;
}

TEST(NvmeNamespaces, IdentifiesEachOfItsNamespaces) {
  Machine machine(kWritable, kUp, kTwo);
  EXPECT_EQ(machine.identify<ControllerData>(kIdentifyController, 0).namespace_count, 2u);
  EXPECT_EQ(machine.identify<NamespaceData>(kIdentifyNamespace, 1).size, (1u << 22) / 512);
  EXPECT_EQ(machine.identify<NamespaceData>(kIdentifyNamespace, 2).size, (1u << 20) / 512);
  using List = std::array<uint32_t, 3>;
  EXPECT_EQ((machine.identify<List>(kIdentifyActiveNamespaces, 0)), (List{1, 2, 0}));
  EXPECT_EQ((machine.identify<List>(kIdentifyActiveNamespaces, 1)), (List{2, 0, 0}));
  EXPECT_EQ((machine.identify<List>(kIdentifyActiveNamespaces, 2)), (List{}));
  EXPECT_EQ((machine.identify<std::array<uint8_t, 6>>(kIdentifyDescriptors, 1)),
            (std::array<uint8_t, 6>{kDescriptorUuid, 16, 0, 0, 1, 2}));
  EXPECT_EQ((machine.identify<std::array<uint8_t, 6>>(kIdentifyDescriptors, 2)),
            (std::array<uint8_t, 6>{kDescriptorUuid, 16, 0, 0, 4, 5}));
  for (const uint8_t what : {kIdentifyNamespace, kIdentifyDescriptors}) {
    for (const uint32_t id : {0u, 3u, kAllNamespaces - 1, kAllNamespaces}) {
      EXPECT_EQ(machine.admin(AdminOpcode::kIdentify, what, 0, kData, id), Status::kInvalidNamespace) << id;
    }
  }
}

TEST(NvmeNamespaces, EachNamespaceIsADiskOfItsOwn) {
  Machine machine(kWritable, kUp, kTwo);
  machine.driver->put(kData, std::vector<uint8_t>(512, 0xC3));
  EXPECT_EQ(machine.run(1, of_namespace(2, Machine::io(NvmOpcode::kWrite, 5, 1))), Status::kSuccess);
  EXPECT_EQ(machine.second.bytes[5 * 512], 0xC3);
  EXPECT_EQ(machine.disk.bytes[5 * 512], 6);
  EXPECT_EQ(machine.run(1, of_namespace(1, Machine::io(NvmOpcode::kRead, 5, 1))), Status::kSuccess);
  EXPECT_EQ(machine.driver->get(kData, 1)[0], 6);
  EXPECT_EQ(machine.run(1, of_namespace(2, Machine::io(NvmOpcode::kRead, 5, 1))), Status::kSuccess);
  EXPECT_EQ(machine.driver->get(kData, 1)[0], 0xC3);
  EXPECT_EQ(machine.run(1, of_namespace(2, Machine::io(NvmOpcode::kRead, (1 << 20) / 512, 1))), Status::kLbaOutOfRange);
  EXPECT_EQ(machine.run(1, of_namespace(1, Machine::io(NvmOpcode::kRead, (1 << 20) / 512, 1))), Status::kSuccess);
  EXPECT_EQ(machine.run(1, of_namespace(2, Machine::io(NvmOpcode::kWriteZeroes, 5, 1))), Status::kSuccess);
  EXPECT_EQ(machine.second.bytes[5 * 512], 0);
  for (const NvmOpcode opcode : {NvmOpcode::kRead, NvmOpcode::kWrite, NvmOpcode::kWriteZeroes, NvmOpcode::kFlush,
                                 NvmOpcode::kDatasetManagement}) {
    for (const uint32_t id : {0u, 3u, kAllNamespaces - 1}) {
      EXPECT_EQ(machine.run(1, of_namespace(id, Machine::io(opcode, 0, 1))), Status::kInvalidNamespace) << id;
    }
  }
  EXPECT_EQ(machine.run(1, of_namespace(kAllNamespaces, Machine::io(NvmOpcode::kRead, 0, 1))),
            Status::kInvalidNamespace);
}

TEST(NvmeNamespaces, AFlushIsOfOneNamespaceOrOfAll) {
  Machine machine(kWritable, kUp, kTwo);
  EXPECT_EQ(machine.run(1, {.opcode = 0, .namespace_id = 2}), Status::kSuccess);
  EXPECT_EQ(machine.disk.flushes, 0);
  EXPECT_EQ(machine.second.flushes, 1);
  EXPECT_EQ(machine.run(1, {.opcode = 0, .namespace_id = kAllNamespaces}), Status::kSuccess);
  EXPECT_EQ(machine.disk.flushes, 1);
  EXPECT_EQ(machine.second.flushes, 2);
  machine.second.forced = block::Status::kIoError;
  EXPECT_EQ(machine.run(1, {.opcode = 0, .namespace_id = 1}), Status::kSuccess);
  EXPECT_EQ(machine.run(1, {.opcode = 0, .namespace_id = kAllNamespaces}), Status::kWriteFault)
      << "one of them is not safe";
}

TEST(NvmeNamespaces, AShutdownFlushesEveryNamespace) {
  Machine machine(kWritable, kUp, kTwo);
  machine.second.hold = true;
  machine.driver->write(kConfiguration, machine.driver->read(kConfiguration) | 1u << kConfigShutdownShift);
  machine.worker->run();
  EXPECT_EQ(machine.disk.flushes, 1);
  EXPECT_EQ(machine.driver->status() & kStatusShutdownMask, kStatusShutdownOccurring);
  machine.second.complete_all();
  machine.worker->run();
  EXPECT_EQ(machine.second.flushes, 1);
  EXPECT_EQ(machine.driver->status() & kStatusShutdownMask, kStatusShutdownComplete);
}

TEST(NvmeNamespaces, SeveralNamespacesGoOnAfterTheirStateWasCarriedOver) {
  Machine machine(kWritable, kUp, kTwo);
  machine.second.forced = block::Status::kRetry;
  machine.driver->add(1, of_namespace(2, Machine::io(NvmOpcode::kRead, 3, 1)));
  machine.driver->ring(1);
  machine.worker->run();
  EXPECT_FALSE(machine.driver->take(1));
  machine.device->pause();
  Machine one(kWritable, !kUp), two(kWritable, !kUp, kTwo);
  StateWriter writer;
  machine.device->save_state(writer);
  const auto reader = StateReader::parse(writer.encode(), "test").value();
  EXPECT_FALSE(one.device->restore_state(reader)) << "there is no second namespace";
  two.second.bytes[3 * 512] = 0x77;
  std::vector<uint8_t> ram(machine.memory->low_size());
  ASSERT_TRUE(machine.memory->read({0}, ram));
  ASSERT_TRUE(two.memory->write({0}, ram));
  expect_round_trip(*machine.device, *two.device);
  two.driver->adopt(*machine.driver);
  two.device->resume();
  two.worker->run();
  ASSERT_TRUE(two.driver->take(1));
  EXPECT_EQ(two.driver->get(kData, 1)[0], 0x77);
}

}  // namespace
}  // namespace bulkhead::device::nvme
