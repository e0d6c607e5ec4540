#include "engine/engine.h"

#include <gtest/gtest.h>

#include "engine/soft_vcpu.h"
#include "engine/testing.h"

namespace bulkhead::engine {
namespace {

using testing::Machine;

// Two vCPUs that run, as far as the engine knows.
struct TwoRunning {
  TwoRunning() {
    for (uint32_t i = 0; i < 2; ++i) machine.engine->enter(cpu(i));
  }
  ~TwoRunning() {
    for (uint32_t i = 0; i < 2; ++i) machine.engine->leave(cpu(i));
  }
  Cpu& cpu(uint32_t index) { return static_cast<SoftVcpu&>(*machine.vcpus[index]).cpu(); }

  Machine machine{2};
};

TEST(EngineWriteFlush, IsDoneWhenTheOtherHasAnswered) {
  TwoRunning two;
  Engine& engine = *two.machine.engine;
  const uint64_t epoch = engine.request_write_flush(two.cpu(0));
  EXPECT_NE(two.cpu(1).attention.load() & kAttentionFlush, 0u);
  EXPECT_FALSE(engine.write_flush_done(two.cpu(0), epoch));
  engine.attend_flush(two.cpu(1));
  EXPECT_TRUE(engine.write_flush_done(two.cpu(0), epoch));
}

TEST(EngineWriteFlush, OwesNobodyAnAnswerForItsOwnRequest) {
  TwoRunning two;
  Engine& engine = *two.machine.engine;
  (void)engine.request_write_flush(two.cpu(0));
  // The other vCPU makes a block: all that has been asked for so far must have been answered.
  engine.attend_flush(two.cpu(1));
  EXPECT_TRUE(engine.write_flush_done(two.cpu(1), engine.write_epoch()));
}

TEST(EngineWriteFlush, StillWaitsForAnAnswerThatTheAskerOwes) {
  TwoRunning two;
  Engine& engine = *two.machine.engine;
  const uint64_t first = engine.request_write_flush(two.cpu(0));
  const uint64_t second = engine.request_write_flush(two.cpu(1));
  EXPECT_FALSE(engine.write_flush_done(two.cpu(0), first));
  EXPECT_FALSE(engine.write_flush_done(two.cpu(1), second));
  engine.attend_flush(two.cpu(1));
  EXPECT_TRUE(engine.write_flush_done(two.cpu(0), first));
  engine.attend_flush(two.cpu(0));
  EXPECT_TRUE(engine.write_flush_done(two.cpu(1), second));
}

TEST(EngineWriteFlush, CodeStaysSharedUntilTheVcpuThatFoundItHasAnswered) {
  TwoRunning two;
  two.machine.put(testing::kCode, {0x90, 0xF4});
  for (uint32_t i = 0; i < 2; ++i) two.machine.set(two.machine.long_mode(), i);
  ASSERT_NE(two.cpu(1).blocks->find(two.cpu(1), testing::kCode), nullptr);
  const Block* block = two.cpu(0).blocks->find(two.cpu(0), testing::kCode);
  ASSERT_NE(block, nullptr);
  EXPECT_TRUE(block->is_shared);
  two.machine.engine->attend_flush(two.cpu(0));
  EXPECT_FALSE(two.cpu(0).blocks->find(two.cpu(0), testing::kCode)->is_shared);
}

TEST(EngineWriteFlush, DoesNotWaitForOneThatStands) {
  TwoRunning two;
  Engine& engine = *two.machine.engine;
  engine.leave(two.cpu(1));
  const uint64_t epoch = engine.request_write_flush(two.cpu(0));
  EXPECT_TRUE(engine.write_flush_done(two.cpu(0), epoch));
  engine.enter(two.cpu(1));
  EXPECT_TRUE(engine.write_flush_done(two.cpu(0), epoch));
}

}  // namespace
}  // namespace bulkhead::engine
