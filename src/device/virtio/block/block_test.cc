#include "device/virtio/block/block.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include <unistd.h>

#include "block/store/file/file_store.h"
#include "device/virtio/queue/ring_access.h"
#include "device/virtio/testing/block_machine.h"

namespace bulkhead::device::virtio {
namespace {

using namespace spec::virtio;
using Machine = BlockMachine;

class BlockOnEveryRing : public testing::TestWithParam<RingKind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, BlockOnEveryRing, testing::ValuesIn(kRingKinds));

TEST_P(BlockOnEveryRing, ReadsAndWritesManyTimes) {
  Machine machine(GetParam());
  for (unsigned round = 0; round < 200; ++round) {
    const uint64_t sector = round * 7 % 2000;
    ASSERT_EQ(machine.run(kBlockIn, sector, 1024), kBlockStatusOk);
    EXPECT_EQ(machine.last_used->length, 1025u);
    const auto read = machine.driver->get(kData, 1024);
    ASSERT_EQ(read[0], machine.disk.bytes[sector * 512]);
    ASSERT_EQ(read[1023], machine.disk.bytes[sector * 512 + 1023]);
    machine.driver->put(kData, std::vector<uint8_t>(512, static_cast<uint8_t>(round)));
    ASSERT_EQ(machine.run(kBlockOut, sector, 512), kBlockStatusOk);
    ASSERT_EQ(machine.disk.bytes[sector * 512 + 511], static_cast<uint8_t>(round));
  }
  EXPECT_GE(machine.sink.count(FakeDriver::kQueueData), 400u);
}

TEST(Block, TellsItsSizeAndLimits) {
  Machine machine;
  BlockConfig config{};
  machine.device->read_mmio(PciTransport::kDeviceOffset, as_mutable_bytes(config));
  EXPECT_EQ(config.capacity, 2048u);
  EXPECT_EQ(config.seg_max, 254u);
  EXPECT_EQ(config.block_size, 512u);
  EXPECT_EQ(config.physical_block_exponent, 3u);
  EXPECT_EQ(config.max_discard_segments, 16u);
  uint64_t beyond = 1;
  machine.device->read_mmio(PciTransport::kDeviceOffset + sizeof config + 4, as_mutable_bytes(beyond));
  EXPECT_EQ(beyond, 0u);
}

TEST(Block, TellsTheDriverOfADiskThatGrew) {
  Machine machine;
  const auto generation = machine.driver->read(offsetof(CommonConfig, config_generation), 1);
  EXPECT_EQ(machine.run(kBlockIn, 4096, 512), kBlockStatusIoError);
  machine.disk.grow(4 << 20);
  machine.model->disk_grew();
  machine.worker->run();
  EXPECT_NE(machine.driver->read(offsetof(CommonConfig, config_generation), 1), generation);
  EXPECT_EQ(machine.sink.count(FakeDriver::kConfigData), 1u);
  EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset, 8), (4u << 20) / 512);
  EXPECT_EQ(machine.run(kBlockIn, 4096, 512), kBlockStatusOk);
}

// A driver reads the capacity in two pieces, and again when the generation is another one afterwards.
TEST(Block, ADriverThatReadsThePiecesOfTwoCapacitiesSeesAnotherGeneration) {
  Machine machine;
  constexpr uint64_t kOld = (uint64_t{2} << 40) - 512, kNew = (uint64_t{2} << 40) + 512;
  const auto generation = [&] { return machine.driver->read(offsetof(CommonConfig, config_generation), 1); };
  const auto piece = [&](unsigned index) { return machine.driver->read(PciTransport::kDeviceOffset + 4 * index, 4); };
  machine.disk.claim(kOld);
  machine.model->disk_grew();
  machine.worker->run();
  const auto before = generation();
  const uint64_t low = piece(0);
  machine.disk.claim(kNew);
  // The job that makes it larger has not come to its end.
  EXPECT_EQ(piece(1) << 32 | low, kOld / 512);
  EXPECT_EQ(generation(), before);
  machine.model->disk_grew();
  machine.worker->run();
  EXPECT_EQ(piece(1) << 32 | piece(0), kNew / 512);
  EXPECT_NE(generation(), before);
}

TEST(Block, TellsOfADiskThatGrewDuringAPauseWhenTheMachineGoesOn) {
  Machine machine;
  machine.device->pause();
  machine.disk.grow(4 << 20);
  machine.model->disk_grew();
  machine.worker->run();
  EXPECT_EQ(machine.sink.count(FakeDriver::kConfigData), 0u);
  EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset, 8), (1u << 20) / 512);
  StateWriter writer;
  machine.device->save_state(writer);
  machine.device->resume();
  EXPECT_EQ(machine.sink.count(FakeDriver::kConfigData), 1u);
  EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset, 8), (4u << 20) / 512);

  // So it is in a machine that goes on from what was saved meanwhile.
  Machine other(kRingKinds[7], false, 4 << 20);
  std::vector<uint8_t> ram(machine.memory->size());
  ASSERT_TRUE(machine.memory->read({0}, ram));
  ASSERT_TRUE(other.memory->write({0}, ram));
  const auto restored = other.device->restore_state(StateReader::parse(writer.encode(), "disk0").value());
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_EQ(other.driver->read(PciTransport::kDeviceOffset, 8), (1u << 20) / 512);
  other.worker->run();
  EXPECT_EQ(other.sink.count(FakeDriver::kConfigData), 1u);
  EXPECT_EQ(other.driver->read(PciTransport::kDeviceOffset, 8), (4u << 20) / 512);
}

TEST(Block, KeepsManyRequestsInFlightAndAnswersInTheDisksOrder) {
  Machine machine;
  machine.disk.hold = true;
  std::vector<uint16_t> ids;
  for (unsigned i = 0; i < 10; ++i) ids.push_back(machine.add(kBlockIn, i, 512, i));
  machine.driver->kick(0);
  machine.worker->run();
  ASSERT_EQ(machine.disk.held.size(), 10u);
  EXPECT_FALSE(machine.driver->ring(0).take_used());
  for (size_t i = 10; i-- > 0;) machine.disk.complete(i);
  machine.worker->run();
  for (size_t i = 10; i-- > 0;) EXPECT_EQ(machine.driver->ring(0).take_used()->id, ids[i]);
  for (unsigned i = 0; i < 10; ++i) EXPECT_EQ(machine.driver->get(kData + 0x1'0000 * i, 1)[0], i + 1);
}

TEST(Block, AWriteIsSafeWhenItIsAnsweredToADriverThatCannotFlush) {
  Machine machine(kRingKinds[7], false, 1 << 20, kBlockFlush);
  EXPECT_EQ(machine.run(kBlockOut, 0, 512), kBlockStatusOk);
  EXPECT_EQ(machine.disk.flushes, 1);
  EXPECT_EQ(machine.run_range(kBlockWriteZeroesRequest, {{0, 8, 0}, {16, 8, 0}}), kBlockStatusOk);
  EXPECT_EQ(machine.disk.flushes, 2);
  EXPECT_EQ(machine.run(kBlockIn, 0, 512), kBlockStatusOk);
  EXPECT_EQ(machine.disk.flushes, 2);
  machine.disk.forced = block::Status::kIoError;
  EXPECT_EQ(machine.run(kBlockOut, 0, 512), kBlockStatusIoError);
  machine.disk.forced = block::Status::kOk;
  // The flush fails, and so does the write.
  machine.disk.hold = true;
  machine.add(kBlockOut, 0, 512);
  machine.driver->kick(0);
  machine.worker->run();
  machine.disk.complete(0);
  machine.worker->run();
  ASSERT_EQ(machine.disk.held.size(), 1u);
  EXPECT_FALSE(machine.driver->ring(0).take_used());
  machine.disk.forced = block::Status::kIoError;
  machine.disk.complete(0);
  machine.worker->run();
  EXPECT_TRUE(machine.driver->ring(0).take_used());
  EXPECT_EQ(machine.status(), kBlockStatusIoError);
}

TEST(Block, WhatIsToBeRepeatedWaitsForTheMachineToGoOn) {
  Machine machine;
  machine.disk.forced = block::Status::kRetry;
  machine.driver->put(kData, std::vector<uint8_t>(512, 0x5A));
  machine.add(kBlockOut, 0, 512);
  machine.driver->kick(0);
  machine.worker->run();
  EXPECT_FALSE(machine.driver->ring(0).take_used());
  EXPECT_EQ(machine.status(), 0xEE);
  // Nothing is in flight, so the machine can be paused, as often as there is no room.
  for (int i = 0; i < 3; ++i) {
    machine.device->pause();
    machine.device->resume();
    machine.worker->run();
    EXPECT_FALSE(machine.driver->ring(0).take_used());
  }
  machine.device->pause();
  machine.disk.forced = block::Status::kOk;
  machine.device->resume();
  machine.worker->run();
  EXPECT_TRUE(machine.driver->ring(0).take_used());
  EXPECT_EQ(machine.status(), kBlockStatusOk);
  EXPECT_EQ(machine.disk.bytes[511], 0x5A);
  EXPECT_EQ(machine.run(kBlockIn, 0, 512), kBlockStatusOk);
}

TEST(Block, ARequestOfManyRangesIsRepeatedAsAWhole) {
  Machine machine;
  machine.disk.hold = true;
  std::vector<BlockRange> ranges{{1, 1, 0}, {3, 1, 0}};
  machine.driver->put(kData, {reinterpret_cast<const uint8_t*>(ranges.data()), ranges.size() * sizeof(BlockRange)});
  machine.add(kBlockWriteZeroesRequest, 0, static_cast<uint32_t>(ranges.size() * sizeof(BlockRange)));
  machine.driver->kick(0);
  machine.worker->run();
  ASSERT_EQ(machine.disk.held.size(), 2u);
  machine.disk.complete(0);
  machine.disk.forced = block::Status::kRetry;
  machine.disk.complete(0);
  machine.worker->run();
  EXPECT_FALSE(machine.driver->ring(0).take_used());
  machine.disk.forced = block::Status::kOk;
  machine.disk.hold = false;
  machine.device->pause();
  machine.device->resume();
  machine.worker->run();
  EXPECT_TRUE(machine.driver->ring(0).take_used());
  EXPECT_EQ(machine.status(), kBlockStatusOk);
  EXPECT_EQ(machine.disk.bytes[512], 0);
  EXPECT_EQ(machine.disk.bytes[1536], 0);
}

TEST(Block, AResetForgetsWhatWaits) {
  Machine machine;
  machine.disk.forced = block::Status::kRetry;
  machine.add(kBlockOut, 0, 512);
  machine.driver->kick(0);
  machine.worker->run();
  machine.device->reset();
  machine.disk.forced = block::Status::kOk;
  machine.disk.bytes[0] = 7;
  machine.device->resume();
  machine.worker->run();
  EXPECT_EQ(machine.disk.bytes[0], 7);
}

TEST(Block, FlushesDiscardsAndZeroes) {
  Machine machine;
  EXPECT_EQ(machine.run(kBlockFlushRequest, 0, 0), kBlockStatusOk);
  EXPECT_EQ(machine.disk.flushes, 1);
  EXPECT_EQ(machine.run_range(kBlockDiscardRequest, {{0, 8, 0}, {16, 8, 0}}), kBlockStatusOk);
  EXPECT_EQ(machine.disk.discards, 2);
  EXPECT_EQ(machine.run_range(kBlockWriteZeroesRequest, {{1, 1, kBlockUnmap}, {3, 1, 0}}), kBlockStatusOk);
  EXPECT_EQ(machine.disk.bytes[512], 0);
  EXPECT_EQ(machine.disk.bytes[1024], 3);
  EXPECT_EQ(machine.disk.bytes[1536], 0);
}

TEST(Block, RefusesRangesThatBreakTheRules) {
  Machine machine;
  EXPECT_EQ(machine.run_range(kBlockDiscardRequest, {{0, 8, kBlockUnmap}}), kBlockStatusUnsupported);
  EXPECT_EQ(machine.run_range(kBlockWriteZeroesRequest, {{0, 8, 2}}), kBlockStatusUnsupported);
  EXPECT_EQ(machine.run_range(kBlockWriteZeroesRequest, {{2047, 2, 0}}), kBlockStatusIoError);
  EXPECT_EQ(machine.run_range(kBlockWriteZeroesRequest, {{UINT64_MAX, 1, 0}}), kBlockStatusIoError);
  EXPECT_EQ(machine.run_range(kBlockWriteZeroesRequest, {{0, UINT32_MAX, 0}}), kBlockStatusIoError);
  EXPECT_EQ(machine.run_range(kBlockDiscardRequest, std::vector<BlockRange>(17, {0, 1, 0})), kBlockStatusUnsupported);
  EXPECT_EQ(machine.run(kBlockDiscardRequest, 0, 15), kBlockStatusUnsupported);
  EXPECT_EQ(machine.run(kBlockDiscardRequest, 0, 0), kBlockStatusUnsupported);
  EXPECT_EQ(machine.disk.discards, 0);
  EXPECT_EQ(machine.disk.bytes[0], 1);
}

TEST(Block, AnswersItsSerialNumberPaddedWithZeroes) {
  Machine machine;
  machine.driver->put(kData, std::vector<uint8_t>(24, 0xFF));
  EXPECT_EQ(machine.run(kBlockGetId, 0, 20), kBlockStatusOk);
  const auto id = machine.driver->get(kData, 21);
  EXPECT_EQ(std::string(id.begin(), id.begin() + 7), "SN-0042");
  for (int i = 7; i < 20; ++i) EXPECT_EQ(id[i], 0);
  EXPECT_EQ(id[20], 0xFF);
  EXPECT_EQ(machine.run(kBlockGetId, 0, 19), kBlockStatusIoError);
}

TEST(Block, FailsRequestsOutsideTheDiskAndUnknownOnes) {
  Machine machine;
  EXPECT_EQ(machine.run(kBlockIn, 2047, 1024), kBlockStatusIoError);
  EXPECT_EQ(machine.run(kBlockIn, UINT64_MAX / 512, 512), kBlockStatusIoError);
  EXPECT_EQ(machine.run(kBlockOut, UINT64_MAX, 512), kBlockStatusIoError);
  EXPECT_EQ(machine.run(kBlockIn, 0, 100), kBlockStatusIoError);
  EXPECT_EQ(machine.run(99, 0, 512), kBlockStatusUnsupported);
  machine.disk.forced = block::Status::kNoSpace;
  EXPECT_EQ(machine.run(kBlockOut, 0, 512), kBlockStatusIoError);
  EXPECT_EQ(machine.driver->status() & kStatusNeedsReset, 0);
}

TEST(Block, WritesNothingToAReadOnlyDisk) {
  Machine machine(kRingKinds[0], true);
  EXPECT_NE(machine.driver->offered() & kBlockReadOnly, 0u);
  EXPECT_EQ(machine.driver->offered() & (kBlockDiscard | kBlockWriteZeroes), 0u);
  EXPECT_EQ(machine.run(kBlockOut, 0, 512), kBlockStatusIoError);
  EXPECT_EQ(machine.run_range(kBlockWriteZeroesRequest, {{0, 1, 0}}), kBlockStatusIoError);
  EXPECT_EQ(machine.run(kBlockIn, 0, 512), kBlockStatusOk);
  EXPECT_EQ(machine.disk.bytes[0], 1);
}

TEST(Block, NeedsResetWhenThereIsNoRoomForAStatus) {
  Machine machine;
  const DriverBuffer only{kHeader, 16, false};
  machine.driver->ring(0).add({&only, 1});
  machine.driver->kick(0);
  machine.worker->run();
  EXPECT_NE(machine.driver->status() & kStatusNeedsReset, 0);
  EXPECT_EQ(machine.sink.count(FakeDriver::kConfigData), 1u);
  // And nothing more happens until the reset.
  machine.add(kBlockIn, 0, 512);
  machine.driver->kick(0);
  machine.worker->run();
  EXPECT_FALSE(machine.driver->ring(0).take_used());
  machine.driver->set_status(0);
  EXPECT_EQ(machine.driver->status(), 0);
}

TEST(Block, KeepsTheOldStatusUntilWhatIsInFlightHasCompleted) {
  Machine machine;
  machine.disk.hold = true;
  machine.add(kBlockIn, 0, 512);
  machine.driver->kick(0);
  machine.worker->run();
  machine.driver->set_status(0);
  EXPECT_NE(machine.driver->status(), 0);
  // Nothing that is written meanwhile has an effect.
  machine.driver->write(0x16, 2, 77);
  machine.driver->set_status(kStatusAcknowledge);
  machine.disk.complete_all();
  machine.worker->run();
  EXPECT_EQ(machine.driver->status(), 0);
  EXPECT_EQ(machine.driver->read(0x16, 2), 0u);
  // The driver may begin anew at once.
  machine.disk.hold = false;
  machine.driver->enable_msix();
  ASSERT_TRUE(machine.driver->negotiate(machine.kind.features()));
  machine.driver->set_up_queue(0, 16);
  machine.driver->go();
  EXPECT_EQ(machine.run(kBlockIn, 3, 512), kBlockStatusOk);
}

TEST(Block, PausesOnlyWhenNothingIsInFlightAndGoesOnAfterwards) {
  Machine machine;
  machine.disk.hold = true;
  machine.add(kBlockIn, 0, 512);
  machine.driver->kick(0);
  machine.worker->run();
  Thread completer("completer", [&] { machine.disk.complete_all(); });
  machine.device->pause();
  completer.join();
  EXPECT_EQ(machine.status(), kBlockStatusOk);
  machine.disk.hold = false;
  machine.add(kBlockIn, 1, 512, 1);
  machine.driver->kick(0);
  machine.worker->run();
  EXPECT_EQ(machine.status(1), 0xEE);
  machine.device->resume();
  machine.worker->run();
  EXPECT_EQ(machine.status(1), kBlockStatusOk);
}

TEST_P(BlockOnEveryRing, GoesOnFromSavedStateInMidWork) {
  Machine machine(GetParam());
  for (unsigned i = 0; i < 100; ++i) ASSERT_EQ(machine.run(kBlockIn, i, 512), kBlockStatusOk);
  // One request is answered but not yet seen by the driver, one is available but not yet taken.
  machine.add(kBlockIn, 7, 512, 1);
  machine.driver->kick(0);
  machine.worker->run();
  machine.device->pause();
  machine.add(kBlockIn, 9, 512, 2);
  StateWriter writer;
  machine.device->save_state(writer);

  Machine other(GetParam());
  std::vector<uint8_t> ram(machine.memory->size());
  ASSERT_TRUE(machine.memory->read({0}, ram));
  ASSERT_TRUE(other.memory->write({0}, ram));
  const auto restored = other.device->restore_state(StateReader::parse(writer.encode(), "disk0").value());
  ASSERT_TRUE(restored) << restored.error().message;
  other.worker->run();
  EXPECT_EQ(other.status(1), kBlockStatusOk);
  EXPECT_EQ(other.status(2), kBlockStatusOk);
  EXPECT_EQ(other.driver->get(kData + 0x2'0000, 1)[0], 10);
  // With event indices the driver was told of the first answer before and has not asked again.
  EXPECT_EQ(other.sink.count(FakeDriver::kQueueData), GetParam().event_index ? 0u : 1u);
}

TEST(Block, RefusesSavedStateOfALargerDisk) {
  Machine machine;
  StateWriter writer;
  machine.device->save_state(writer);
  Machine other(kRingKinds[7], false, 1 << 19);
  const auto restored = other.device->restore_state(StateReader::parse(writer.encode(), "disk0").value());
  ASSERT_FALSE(restored);
  EXPECT_NE(restored.error().message.find("1048576"), std::string::npos);
}

// Waits as a driver does: asks for an interrupt, looks once more, sleeps.
void wait_for_used(FakeDriver& driver, RecordingSink& sink, unsigned queue, size_t wanted) {
  size_t seen = 0;
  while (seen < wanted) {
    const size_t interrupts = sink.count(FakeDriver::kQueueData + queue);
    driver.ring(queue).set_interrupts(true);
    full_barrier();
    if (driver.ring(queue).take_used()) {
      ++seen;
    } else {
      sink.wait_for(FakeDriver::kQueueData + queue, interrupts + 1);
    }
  }
}

TEST_P(BlockOnEveryRing, WorksOnAFileWithAllItsThreadsAndIsResetInMidWork) {
  std::string path = testing::TempDir() + "virtio-block-XXXXXX";
  const Fd file(::mkstemp(path.data()));
  ASSERT_EQ(::ftruncate(file.get(), 1 << 20), 0);
  const auto store = block::file::FileStore::open(path, block::file::Access::kReadWrite).value();
  ASSERT_EQ(::unlink(path.c_str()), 0);
  const auto memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  RecordingSink sink;
  constexpr uint16_t kQueues = 2;
  const auto device =
      PciTransport::create(std::make_unique<BlockModel>("disk0", *store, "", kQueues), *memory, sink).value();
  FakeDriver driver(*device, *memory);
  driver.enable_msix();
  const auto add = [&](uint32_t type, unsigned slot) {
    const uint64_t header = kHeader + 64 * slot;
    driver.put(header, as_bytes(BlockRequestHeader{type, 0, slot * 8}));
    const DriverBuffer buffers[] = {
        {header, 16, false}, {kData + 4096 * slot, 4096, type == kBlockIn}, {kStatus + slot, 1, true}};
    driver.ring(slot % kQueues).add(buffers, GetParam().indirect && slot % 3 == 0);
  };
  constexpr unsigned kSlots = 16;
  const auto wait_for_all = [&] {
    for (unsigned queue = 0; queue < kQueues; ++queue) wait_for_used(driver, sink, queue, kSlots / kQueues);
  };
  for (uint8_t life = 1; life <= 4; ++life) {
    ASSERT_TRUE(driver.negotiate(GetParam().features() | kBlockMultiqueue));
    for (uint16_t queue = 0; queue < kQueues; ++queue) driver.set_up_queue(queue, 64);
    driver.go();
    for (unsigned slot = 0; slot < kSlots; ++slot) {
      driver.put(kData + 4096 * slot, std::vector<uint8_t>(4096, static_cast<uint8_t>(life * 16 + slot)));
      add(kBlockOut, slot);
      driver.kick(slot % kQueues);
    }
    wait_for_all();
    driver.put(kData, std::vector<uint8_t>(4096 * kSlots));
    for (unsigned slot = 0; slot < kSlots; ++slot) add(kBlockIn, slot);
    for (unsigned queue = 0; queue < kQueues; ++queue) driver.kick(queue);
    wait_for_all();
    for (unsigned slot = 0; slot < kSlots; ++slot) {
      ASSERT_EQ(driver.get(kStatus + slot, 1)[0], kBlockStatusOk);
      ASSERT_EQ(driver.get(kData + 4096 * slot, 4096),
                std::vector<uint8_t>(4096, static_cast<uint8_t>(life * 16 + slot)));
    }
    for (unsigned slot = 0; slot < kSlots; ++slot) add(kBlockIn, slot);
    for (unsigned queue = 0; queue < kQueues; ++queue) driver.kick(queue);
    driver.set_status(0);
    while (driver.status() != 0) std::this_thread::yield();
  }
}

}  // namespace
}  // namespace bulkhead::device::virtio
