// Several queues: each request is answered on the queue it came from, and the life of the device is that of all of
// them.
#include <gtest/gtest.h>

#include "device/virtio/testing/block_machine.h"

namespace bulkhead::device::virtio {
namespace {

using namespace spec::virtio;

struct ManyQueues : BlockMachine {
  explicit ManyQueues(uint16_t queue_count, RingKind kind = kRingKinds[7])
      : BlockMachine(kind, false, 1 << 20, 0, queue_count) {}
  [[nodiscard]] size_t interrupts(unsigned queue) const { return sink.count(FakeDriver::kQueueData + queue); }
};

TEST(BlockQueues, AreToldWhereThereAreSeveral) {
  ManyQueues one(1);
  EXPECT_EQ(one.driver->offered() & kBlockMultiqueue, 0u);
  ManyQueues machine(6);
  EXPECT_NE(machine.driver->offered() & kBlockMultiqueue, 0u);
  BlockConfig config{};
  machine.device->read_mmio(PciTransport::kDeviceOffset, as_mutable_bytes(config));
  EXPECT_EQ(config.queue_count, 6u);
  EXPECT_EQ(machine.device->msix_vector_count(), 7u);
  const BlockModel most("disk1", machine.disk, "", BlockModel::kMaximumQueues);
  EXPECT_EQ(most.queue_sizes(), std::vector<uint16_t>(16, BlockModel::kQueueSize));
}

class BlockQueuesOnEveryRing : public testing::TestWithParam<RingKind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, BlockQueuesOnEveryRing, testing::ValuesIn(kRingKinds));

TEST_P(BlockQueuesOnEveryRing, EachGetsItsOwnAnswersAndInterrupts) {
  ManyQueues machine(3, GetParam());
  machine.disk.hold = true;
  std::vector<uint16_t> ids;
  for (unsigned i = 0; i < 12; ++i) {
    ids.push_back(machine.add(kBlockIn, i, 512, i, i % 3));
    machine.driver->kick(i % 3);
    machine.worker->run();
  }
  ASSERT_EQ(machine.disk.held.size(), 12u);
  // Those of the second queue, backwards: nobody else hears of it.
  for (const size_t i : {10, 7, 4, 1}) machine.disk.complete(i);
  machine.worker->run();
  EXPECT_FALSE(machine.driver->ring(0).take_used());
  EXPECT_FALSE(machine.driver->ring(2).take_used());
  for (const size_t i : {10, 7, 4, 1}) EXPECT_EQ(machine.driver->ring(1).take_used()->id, ids[i]);
  EXPECT_FALSE(machine.driver->ring(1).take_used());
  EXPECT_EQ(machine.interrupts(0) + machine.interrupts(2), 0u);
  EXPECT_EQ(machine.interrupts(1), 1u);
  machine.disk.complete_all();
  machine.worker->run();
  for (const unsigned queue : {0, 2}) {
    for (unsigned i = queue; i < 12; i += 3) EXPECT_EQ(machine.driver->ring(queue).take_used()->id, ids[i]);
    EXPECT_EQ(machine.interrupts(queue), 1u);
  }
  for (unsigned i = 0; i < 12; ++i) {
    EXPECT_EQ(machine.status(i), kBlockStatusOk);
    EXPECT_EQ(machine.driver->get(kData + 0x1'0000 * i, 1)[0], i + 1);
  }
}

TEST(BlockQueues, HoldAsManyRequestsAsTheyHaveEntries) {
  ManyQueues machine(2);
  machine.disk.hold = true;
  constexpr unsigned kEach = BlockModel::kQueueSize;
  machine.driver->set_status(0);
  ASSERT_TRUE(machine.driver->negotiate(kFeatureVersion1 | kFeatureIndirect | kBlockMultiqueue));
  for (const uint16_t queue : {0, 1}) machine.driver->set_up_queue(queue, kEach);
  machine.driver->go();
  // All of them to one place: what they read is not looked at.
  const DriverBuffer buffers[] = {{kHeader, 16, false}, {kData, 512, true}, {kStatus, 1, true}};
  machine.driver->put(kHeader, as_bytes(BlockRequestHeader{kBlockIn, 0, 0}));
  for (unsigned life = 0; life < 2; ++life) {
    for (unsigned i = 0; i < kEach; ++i) {
      for (const unsigned queue : {0, 1}) machine.driver->ring(queue).add(buffers, true);
    }
    for (const unsigned queue : {0, 1}) machine.driver->kick(queue);
    machine.worker->run();
    ASSERT_EQ(machine.disk.held.size(), 2 * kEach);
    machine.disk.complete_all();
    machine.worker->run();
    for (const unsigned queue : {0, 1}) {
      for (unsigned i = 0; i < kEach; ++i) ASSERT_TRUE(machine.driver->ring(queue).take_used());
    }
  }
}

TEST(BlockQueues, OneThatIsNotEnabledIsLeftAlone) {
  ManyQueues machine(3);
  machine.driver->set_status(0);
  ASSERT_TRUE(machine.driver->negotiate(machine.kind.features() | kBlockMultiqueue));
  for (const uint16_t queue : {0, 2}) machine.driver->set_up_queue(queue, 16);
  machine.driver->go();
  machine.driver->kick(1);
  machine.worker->run();
  machine.add(kBlockIn, 5, 512, 0, 2);
  machine.driver->kick(2);
  machine.worker->run();
  EXPECT_TRUE(machine.driver->ring(2).take_used());
  EXPECT_EQ(machine.driver->get(kData, 1)[0], 6);
  EXPECT_EQ(machine.run(kBlockIn, 7, 512), kBlockStatusOk);
  EXPECT_EQ(machine.driver->status() & kStatusNeedsReset, 0);
}

TEST(BlockQueues, AResetWaitsForTheRequestsOfAll) {
  ManyQueues machine(2);
  machine.disk.hold = true;
  for (const unsigned queue : {0, 1}) {
    for (unsigned i = 0; i < 3; ++i) machine.add(kBlockIn, i, 512, 3 * queue + i, queue);
    machine.driver->kick(queue);
  }
  machine.worker->run();
  ASSERT_EQ(machine.disk.held.size(), 6u);
  machine.driver->set_status(0);
  while (machine.disk.held.size() > 1) {
    machine.disk.complete(0);
    machine.worker->run();
    EXPECT_NE(machine.driver->status(), 0);
  }
  machine.disk.complete_all();
  machine.worker->run();
  EXPECT_EQ(machine.driver->status(), 0);
  EXPECT_EQ(machine.interrupts(0) + machine.interrupts(1), 0u);
  // The next driver uses the second queue alone.
  machine.disk.hold = false;
  machine.driver->enable_msix();
  ASSERT_TRUE(machine.driver->negotiate(machine.kind.features() | kBlockMultiqueue));
  machine.driver->set_up_queue(1, 16);
  machine.driver->go();
  machine.add(kBlockIn, 8, 512, 0, 1);
  machine.driver->kick(1);
  machine.worker->run();
  EXPECT_TRUE(machine.driver->ring(1).take_used());
  EXPECT_EQ(machine.driver->get(kData, 1)[0], 9);
  EXPECT_EQ(machine.interrupts(1), 1u);
}

TEST(BlockQueues, WhatIsToBeRepeatedGoesBackToItsQueue) {
  ManyQueues machine(2);
  machine.disk.forced = block::Status::kRetry;
  const uint16_t ids[] = {machine.add(kBlockIn, 3, 512, 0, 0), machine.add(kBlockIn, 4, 512, 1, 1)};
  for (const unsigned queue : {0, 1}) machine.driver->kick(queue);
  machine.worker->run();
  machine.device->pause();
  machine.disk.forced = block::Status::kOk;
  machine.device->resume();
  machine.worker->run();
  for (const unsigned queue : {0, 1}) {
    EXPECT_EQ(machine.driver->ring(queue).take_used()->id, ids[queue]);
    EXPECT_EQ(machine.status(queue), kBlockStatusOk);
    EXPECT_EQ(machine.driver->get(kData + 0x1'0000 * queue, 1)[0], 4 + queue);
    EXPECT_EQ(machine.interrupts(queue), 1u);
  }
}

// What completes while the worker looks at another queue is taken up at the end of that look: nobody wakes it.
TEST(BlockQueues, TheLookAtOneAnswersTheOthersToo) {
  ManyQueues machine(2);
  machine.disk.hold = true;
  machine.add(kBlockIn, 3, 512, 0, 1);
  machine.driver->kick(1);
  EXPECT_EQ(machine.worker->run(), 1u);
  machine.disk.before_submit = [&] {
    Thread elsewhere("elsewhere", [&] { machine.disk.complete(0); });
    elsewhere.join();
  };
  machine.add(kBlockIn, 4, 512, 1, 0);
  machine.driver->kick(0);
  EXPECT_EQ(machine.worker->run(), 1u);
  EXPECT_TRUE(machine.driver->ring(1).take_used());
  EXPECT_EQ(machine.driver->get(kData, 1)[0], 4);
  EXPECT_EQ(machine.interrupts(1), 1u);
  EXPECT_FALSE(machine.driver->ring(0).take_used());
  EXPECT_EQ(machine.interrupts(0), 0u);
  // After the look there is somebody to be woken.
  machine.disk.complete(0);
  EXPECT_EQ(machine.worker->run(), 1u);
  EXPECT_TRUE(machine.driver->ring(0).take_used());
  EXPECT_EQ(machine.interrupts(0), 1u);
}

TEST(BlockQueues, GoOnFromSavedStateOfAsMany) {
  ManyQueues machine(2);
  for (const unsigned queue : {0, 1}) machine.add(kBlockIn, 7 + queue, 512, queue, queue);
  machine.device->pause();
  StateWriter writer;
  machine.device->save_state(writer);
  const std::vector<uint8_t> state = writer.encode();
  ManyQueues other(2);
  std::vector<uint8_t> ram(machine.memory->size());
  ASSERT_TRUE(machine.memory->read({0}, ram));
  ASSERT_TRUE(other.memory->write({0}, ram));
  const auto restored = other.device->restore_state(StateReader::parse(state, "disk0").value());
  ASSERT_TRUE(restored) << restored.error().message;
  other.worker->run();
  for (const unsigned queue : {0, 1}) {
    EXPECT_EQ(other.driver->get(kData + 0x1'0000 * queue, 1)[0], 8 + queue);
    EXPECT_EQ(other.interrupts(queue), 1u);
  }
  ManyQueues fewer(1);
  const auto refused = fewer.device->restore_state(StateReader::parse(state, "disk0").value());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "disk0: 2 queues, the device has 1");
}

}  // namespace
}  // namespace bulkhead::device::virtio
