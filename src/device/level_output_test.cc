#include "device/level_output.h"

#include <gtest/gtest.h>

#include "device/test_wires.h"
#include "support/os/mutex.h"
#include "support/os/thread.h"

namespace bulkhead::device {
namespace {

TEST(LevelOutput, DrivesOnlyChanges) {
  RecordedIrq irq;
  LevelOutput output(irq.line());
  EXPECT_TRUE(output.want(true));
  output.settle();
  EXPECT_FALSE(output.want(true));
  output.settle();
  EXPECT_EQ(irq.take_rises(), 1u);
  EXPECT_TRUE(output.want(false));
  EXPECT_TRUE(irq.level()) << "before settling";
  output.settle();
  EXPECT_FALSE(irq.level());
}

TEST(LevelOutput, EndsAtTheLastLevelWhicheverThreadDrives) {
  struct Wire {
    std::atomic<bool>* level;
    void set(bool asserted) const { level->store(asserted); }
  };
  for (int round = 0; round < 50; ++round) {
    std::atomic<bool> level{false};
    BasicLevelOutput<Wire> output(Wire{&level});
    Mutex device;
    uint64_t events = 0;
    const auto work = [&] {
      for (int i = 0; i < 1001; ++i) {
        bool changed = false;
        {
          LockGuard lock(device);
          changed = output.want(++events % 2 != 0);
        }
        if (changed) output.settle();
      }
    };
    {
      Thread first("first", work);
      Thread second("second", work);
    }
    EXPECT_EQ(level, output.wanted());
    EXPECT_FALSE(level) << "2002 events";
  }
}

}  // namespace
}  // namespace bulkhead::device
