#include "device/virtio/queue/queue.h"

#include <gtest/gtest.h>

#include <map>

#include "device/virtio/testing/driver_ring.h"
#include "device/virtio/testing/fake_driver.h"
#include "spec/virtio.h"
#include "support/random.h"

namespace bulkhead::device::virtio {
namespace {

using namespace spec::virtio;

constexpr uint64_t kRing = 0x10'0000;
constexpr uint64_t kData = 0x40'0000;

memory::GuestMemory& shared_memory() {
  static const auto memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  return *memory;
}

struct Fixture {
  explicit Fixture(RingKind kind, uint16_t size = 8)
      : ring(DriverRing::create(
            memory, {kRing},
            {.size = size, .packed = kind.packed, .indirect = kind.indirect, .event_index = kind.event_index})),
        queue(Queue::create(memory, ring->config())) {}

  PopResult pop() { return queue->pop(chain); }
  template <typename T>
  void put(GuestAddress address, const T& value) {
    ASSERT_TRUE(memory.write_object(address, value));
  }
  void put_split(uint16_t index, const SplitDescriptor& descriptor) {
    put(queue->config().descriptors + 16 * uint64_t{index}, descriptor);
  }
  void put_packed(uint16_t index, const PackedDescriptor& descriptor) {
    put(queue->config().descriptors + 16 * uint64_t{index}, descriptor);
  }
  // Makes head the first available entry of a split ring.
  void offer(uint16_t head) {
    put(queue->config().driver + kRingEntries, head);
    put(queue->config().driver + kRingIndex, uint16_t{1});
  }

  memory::GuestMemory& memory = shared_memory();
  std::unique_ptr<DriverRing> ring;
  std::unique_ptr<Queue> queue;
  Chain chain;
};

class EveryRing : public testing::TestWithParam<RingKind> {};

INSTANTIATE_TEST_SUITE_P(Kinds, EveryRing, testing::ValuesIn(kRingKinds), [](const auto& info) {
  return std::string(info.param.packed ? "Packed" : "Split") + (info.param.indirect ? "Indirect" : "") +
         (info.param.event_index ? "EventIndex" : "");
});

TEST_P(EveryRing, CarriesChainsManyTimesRoundTheRingInAnyOrder) {
  Fixture f(GetParam(), 16);
  SeededRandom random(7);
  std::vector<std::pair<Chain, uint32_t>> taken;
  std::map<uint16_t, uint32_t> expected;  // id to the length the device will report
  uint32_t next_value = 1;
  uint64_t completed = 0;
  for (int round = 0; round < 4000; ++round) {
    const size_t pieces = 2 + random.below(3);
    const bool indirect = GetParam().indirect && random.below(2) == 0;
    if (random.below(2) == 0 && f.ring->free_slots() >= (indirect ? 1 : pieces)) {
      std::vector<DriverBuffer> buffers;
      const uint64_t place = kData + 0x100 * (next_value % 64);
      for (size_t i = 0; i < pieces; ++i) buffers.push_back({place + 0x10 * i, 4, i != 0});
      ASSERT_TRUE(f.memory.write_object<uint32_t>({place}, next_value));
      const uint16_t id = f.ring->add(buffers, indirect);
      ASSERT_FALSE(expected.contains(id));
      expected[id] = next_value++;
    }
    while (f.pop() == PopResult::kChain) {
      uint32_t value = 0;
      ASSERT_TRUE(f.chain.read(0, as_mutable_bytes(value)));
      ASSERT_EQ(f.chain.readable_size(), 4u);
      ASSERT_EQ(f.chain.writable_size() % 4, 0u);
      taken.emplace_back(f.chain, value);
    }
    while (!taken.empty() && random.below(3) != 0) {
      const size_t pick = random.below(taken.size());
      f.queue->push(taken[pick].first, taken[pick].second);
      taken.erase(taken.begin() + static_cast<ptrdiff_t>(pick));
    }
    while (const auto used = f.ring->take_used()) {
      ASSERT_EQ(expected.at(used->id), used->length);
      expected.erase(used->id);
      ++completed;
    }
  }
  EXPECT_GT(completed, 1000u);
}

TEST_P(EveryRing, InterruptsOnlyWhenTheDriverWantsTo) {
  Fixture f(GetParam(), 4);
  const DriverBuffer buffer{kData, 16, true};
  for (int round = 0; round < 40; ++round) {
    const bool wanted = round % 3 != 0;
    f.ring->set_interrupts(wanted);
    EXPECT_FALSE(f.queue->take_interrupt());
    f.ring->add({&buffer, 1});
    ASSERT_EQ(f.pop(), PopResult::kChain);
    f.queue->push(f.chain, 1);
    EXPECT_EQ(f.queue->take_interrupt(), wanted) << round;
    ASSERT_TRUE(f.ring->take_used());
  }
}

TEST_P(EveryRing, AsksForANotificationOnlyWhenItHasLookedAtEverything) {
  Fixture f(GetParam(), 4);
  const DriverBuffer buffer{kData, 16, true};
  for (int round = 0; round < 40; ++round) {
    f.ring->add({&buffer, 1});
    EXPECT_TRUE(f.ring->take_notification()) << round;
    f.queue->disable_notifications();
    ASSERT_EQ(f.pop(), PopResult::kChain);
    f.queue->push(f.chain, 0);
    f.ring->add({&buffer, 1});
    EXPECT_FALSE(GetParam().event_index ? false : f.ring->take_notification());
    // One came between the last look and the request to be told.
    EXPECT_TRUE(f.queue->enable_notifications());
    ASSERT_EQ(f.pop(), PopResult::kChain);
    f.queue->push(f.chain, 0);
    EXPECT_FALSE(f.queue->enable_notifications());
    (void)f.ring->take_notification();
    while (f.ring->take_used()) {
    }
  }
}

TEST_P(EveryRing, GivesTheSameChainAgainAfterUnpop) {
  Fixture f(GetParam(), 4);
  for (int round = 0; round < 20; ++round) {
    const DriverBuffer buffers[] = {{kData, 4, false}, {kData + 8, 4, false}, {kData + 16, 4, true}};
    const uint16_t id = f.ring->add(buffers, GetParam().indirect && round % 2 == 0);
    ASSERT_EQ(f.pop(), PopResult::kChain);
    f.queue->unpop(f.chain);
    ASSERT_EQ(f.pop(), PopResult::kChain);
    EXPECT_EQ(f.pop(), PopResult::kEmpty);
    f.queue->push(f.chain, 0);
    EXPECT_EQ(f.ring->take_used()->id, id);
  }
}

TEST_P(EveryRing, GoesOnFromSavedState) {
  Fixture f(GetParam(), 4);
  const DriverBuffer buffer{kData, 16, true};
  for (int round = 0; round < 50; ++round) {
    StateWriter writer;
    f.queue->save_state(writer);
    auto restored = Queue::create(f.memory, f.queue->config());
    const auto result = restored->restore_state(StateReader::parse(writer.encode(), "ring").value());
    ASSERT_TRUE(result) << result.error().message;
    f.queue = std::move(restored);
    f.ring->add({&buffer, 1});
    ASSERT_EQ(f.pop(), PopResult::kChain);
    f.queue->push(f.chain, 5);
    EXPECT_TRUE(f.queue->take_interrupt());
    ASSERT_EQ(f.ring->take_used()->length, 5u);
  }
}

TEST_P(EveryRing, MarksWhatItWritesDirty) {
  Fixture f(GetParam(), 4);
  const DriverBuffer buffer{kData, 8192, true};
  f.ring->add({&buffer, 1});
  ASSERT_EQ(f.pop(), PopResult::kChain);
  f.memory.take_dirty([](uint64_t) {});
  const std::vector<uint8_t> bytes(5000, 1);
  EXPECT_TRUE(f.chain.write(0, bytes));
  f.queue->push(f.chain, 5000);
  std::vector<uint64_t> pages;
  f.memory.take_dirty([&](uint64_t page) { pages.push_back(page); });
  EXPECT_EQ(pages, (std::vector<uint64_t>{kRing / kPageSize, kData / kPageSize, kData / kPageSize + 1}));
}

TEST_P(EveryRing, RefusesBuffersThatAreNotAllRam) {
  const uint64_t end = shared_memory().low_size();
  for (const DriverBuffer bad : {DriverBuffer{end - 4, 8, true}, DriverBuffer{end, 1, false},
                                 DriverBuffer{UINT64_MAX - 3, 8, true}, DriverBuffer{0xFEE0'0000, 4, true}}) {
    for (const bool indirect : {false, GetParam().indirect}) {
      Fixture f(GetParam(), 4);
      f.ring->add({&bad, 1}, indirect);
      EXPECT_EQ(f.pop(), PopResult::kBroken);
      EXPECT_EQ(f.pop(), PopResult::kBroken);
    }
  }
}

TEST_P(EveryRing, RefusesReadableAfterWritable) {
  Fixture f(GetParam(), 4);
  const DriverBuffer buffers[] = {{kData, 4, true}, {kData + 8, 4, false}};
  f.ring->add(buffers, GetParam().indirect);
  EXPECT_EQ(f.pop(), PopResult::kBroken);
}

TEST_P(EveryRing, RefusesMoreBytesThanALengthCanTell) {
  Fixture f(GetParam(), 16);
  std::vector<DriverBuffer> buffers(16, {0, static_cast<uint32_t>(f.memory.low_size()), true});
  // 16 x 16 MiB are few; a table of 257 of them is more than 4 GiB.
  f.ring->add(buffers);
  ASSERT_EQ(f.pop(), PopResult::kChain);
  EXPECT_EQ(f.chain.writable_size(), 16u << 24);
  Chain chain;
  ChainBuilder builder(f.memory, chain);
  for (int i = 0; i < 255; ++i) ASSERT_TRUE(builder.add(0, 1u << 24, Direction::kWritable));
  EXPECT_FALSE(builder.add(0, 1u << 24, Direction::kWritable));
}

TEST_P(EveryRing, ReadsAndWritesNothingBeyondAChainsEnd) {
  Fixture f(GetParam(), 4);
  const DriverBuffer buffers[] = {{kData, 10, false}, {kData + 64, 10, true}};
  f.ring->add(buffers);
  ASSERT_EQ(f.pop(), PopResult::kChain);
  std::vector<uint8_t> bytes(11);
  EXPECT_FALSE(f.chain.read(0, bytes));
  EXPECT_FALSE(f.chain.write(0, bytes));
  EXPECT_FALSE(f.chain.read(UINT32_MAX, MutableByteSpan(bytes).first(1)));
  EXPECT_TRUE(f.chain.read(10, {}));
}

TEST(SplitQueue, RefusesAnIndexThatRunsAheadOfTheRing) {
  Fixture f(kRingKinds[0], 8);
  f.put(f.queue->config().driver + kRingIndex, uint16_t{9});
  EXPECT_EQ(f.pop(), PopResult::kBroken);
}

TEST(SplitQueue, RefusesMoreChainsInFlightThanTheRingHolds) {
  Fixture f(kRingKinds[0], 4);
  f.put_split(0, {kData, 4, kDescriptorWrite, 0});
  for (uint16_t i = 0; i < 4; ++i) f.put(f.queue->config().driver + kRingEntries + 2 * uint64_t{i}, uint16_t{0});
  f.put(f.queue->config().driver + kRingIndex, uint16_t{4});
  for (int i = 0; i < 4; ++i) ASSERT_EQ(f.pop(), PopResult::kChain);
  f.put(f.queue->config().driver + kRingIndex, uint16_t{5});
  EXPECT_EQ(f.pop(), PopResult::kBroken);
}

TEST(SplitQueue, RefusesHeadAndNextOutsideTheTable) {
  Fixture f(kRingKinds[0], 8);
  f.offer(8);
  EXPECT_EQ(f.pop(), PopResult::kBroken);
  Fixture g(kRingKinds[0], 8);
  g.put_split(0, {kData, 4, kDescriptorNext, 8});
  g.offer(0);
  EXPECT_EQ(g.pop(), PopResult::kBroken);
}

TEST(SplitQueue, RefusesADescriptorLoop) {
  Fixture f(kRingKinds[0], 8);
  f.put_split(0, {kData, 4, kDescriptorNext, 1});
  f.put_split(1, {kData, 4, kDescriptorNext, 0});
  f.offer(0);
  EXPECT_EQ(f.pop(), PopResult::kBroken);
  Fixture g(kRingKinds[1], 8);
  g.put_split(0, {kData, 32, kDescriptorIndirect, 0});
  g.put(GuestAddress{kData}, SplitDescriptor{kData, 0, kDescriptorNext, 1});
  g.put(GuestAddress{kData + 16}, SplitDescriptor{kData, 0, kDescriptorNext, 0});
  g.offer(0);
  EXPECT_EQ(g.pop(), PopResult::kBroken);
}

TEST(SplitQueue, RefusesIndirectTablesThatBreakTheRules) {
  const auto result = [](bool negotiated, const SplitDescriptor& descriptor, const SplitDescriptor& first) {
    Fixture f(kRingKinds[negotiated ? 1 : 0], 8);
    f.put(GuestAddress{kData}, first);
    f.put_split(0, descriptor);
    f.offer(0);
    return f.pop();
  };
  const SplitDescriptor good{kData, 16, kDescriptorIndirect, 0};
  const SplitDescriptor entry{kData + 64, 4, kDescriptorWrite, 0};
  EXPECT_EQ(result(true, good, entry), PopResult::kChain);
  EXPECT_EQ(result(false, good, entry), PopResult::kBroken);
  EXPECT_EQ(result(true, {kData, 17, kDescriptorIndirect, 0}, entry), PopResult::kBroken);
  EXPECT_EQ(result(true, {kData, 0, kDescriptorIndirect, 0}, entry), PopResult::kBroken);
  EXPECT_EQ(result(true, {kData, 16, kDescriptorIndirect | kDescriptorNext, 0}, entry), PopResult::kBroken);
  EXPECT_EQ(result(true, {0xF000'0000, 16, kDescriptorIndirect, 0}, entry), PopResult::kBroken);
  EXPECT_EQ(result(true, good, {kData, 16, kDescriptorIndirect, 0}), PopResult::kBroken);
  EXPECT_EQ(result(true, good, {kData + 64, 4, kDescriptorNext, 1}), PopResult::kBroken);
}

TEST(SplitQueue, BoundsTheWorkForATableOfEmptyDescriptors) {
  Fixture f(kRingKinds[1], 8);
  const uint32_t count = 0x4000;
  f.put_split(0, {kData, count * 16, kDescriptorIndirect, 0});
  for (uint32_t i = 0; i < count; ++i) {
    f.put(GuestAddress{kData + 16 * uint64_t{i}},
          SplitDescriptor{kData, 0, kDescriptorNext, static_cast<uint16_t>(i + 1)});
  }
  f.offer(0);
  EXPECT_EQ(f.pop(), PopResult::kBroken);
}

TEST(PackedQueue, RefusesAChainLongerThanTheRing) {
  Fixture f(kRingKinds[4], 4);
  for (uint16_t i = 0; i < 4; ++i) f.put_packed(i, {kData, 4, 0, kDescriptorNext | kPackedAvailable});
  EXPECT_EQ(f.pop(), PopResult::kBroken);
}

TEST(PackedQueue, RefusesAChainThatRunsIntoSlotsInFlight) {
  Fixture f(kRingKinds[4], 4);
  const DriverBuffer buffers[] = {{kData, 4, false}, {kData + 8, 4, true}};
  f.ring->add(buffers);
  ASSERT_EQ(f.pop(), PopResult::kChain);
  f.put_packed(2, {kData, 4, 7, kDescriptorNext | kPackedAvailable});
  f.put_packed(3, {kData, 4, 7, kDescriptorNext | kPackedAvailable});
  f.put_packed(0, {kData, 4, 7, 0});
  EXPECT_EQ(f.pop(), PopResult::kBroken);
}

TEST(PackedQueue, TakesNothingMoreWhileEverySlotIsInFlight) {
  Fixture f(kRingKinds[4], 2);
  const DriverBuffer buffer{kData, 4, true};
  f.ring->add({&buffer, 1});
  f.ring->add({&buffer, 1});
  ASSERT_EQ(f.pop(), PopResult::kChain);
  ASSERT_EQ(f.pop(), PopResult::kChain);
  f.put_packed(0, {kData, 4, 0, kPackedUsed});
  EXPECT_EQ(f.pop(), PopResult::kEmpty);
}

TEST(Queue, RefusesGeometryThatTheSpecificationForbids) {
  memory::GuestMemory& memory = shared_memory();
  const QueueConfig good{.size = 8, .descriptors = {0x1000}, .driver = {0x2000}, .device = {0x3000}};
  const auto accepted = [&](auto change) {
    QueueConfig config = good;
    change(config);
    return Queue::create(memory, config) != nullptr;
  };
  EXPECT_TRUE(accepted([](QueueConfig&) {}));
  EXPECT_FALSE(accepted([](QueueConfig& c) { c.size = 0; }));
  EXPECT_FALSE(accepted([](QueueConfig& c) { c.size = 7; }));
  EXPECT_FALSE(accepted([](QueueConfig& c) { c.size = 0xFFFF; }));
  EXPECT_TRUE(accepted([](QueueConfig& c) { c.size = 7, c.packed = true; }));
  EXPECT_FALSE(accepted([](QueueConfig& c) { c.descriptors = {0x1008}; }));
  EXPECT_FALSE(accepted([](QueueConfig& c) { c.driver = {0x2001}; }));
  EXPECT_FALSE(accepted([](QueueConfig& c) { c.device = {0x3002}; }));
  EXPECT_FALSE(accepted([](QueueConfig& c) { c.driver = {0x2002}, c.packed = true; }));
  EXPECT_FALSE(accepted([&](QueueConfig& c) { c.device = {memory.low_size() - 8}; }));
  EXPECT_FALSE(accepted([](QueueConfig& c) { c.descriptors = {UINT64_MAX & ~0xFull}; }));
}

TEST(Queue, RefusesSavedStateThatDoesNotFitTheRing) {
  Fixture f(kRingKinds[4], 4);
  StateWriter writer;
  writer.put("next_available", 4)
      .put("next_used", 4)
      .put("signalled_used", 0)
      .put("slots_since_signalled", 0)
      .put("broken", 0);
  EXPECT_FALSE(f.queue->restore_state(StateReader::parse(writer.encode(), "ring").value()));
  Fixture g(kRingKinds[0], 4);
  StateWriter split;
  split.put("next_available", 4).put("next_used", 3).put("signalled_used", 0).put("broken", 0);
  EXPECT_FALSE(g.queue->restore_state(StateReader::parse(split.encode(), "ring").value()));
}

}  // namespace
}  // namespace bulkhead::device::virtio
