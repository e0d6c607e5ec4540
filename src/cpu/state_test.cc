#include "cpu/state.h"

#include <gtest/gtest.h>

namespace bulkhead::cpu {
namespace {

Result<State> round_trip(const State& state) {
  StateWriter writer;
  save(state, writer);
  const auto bytes = writer.encode();
  return restore(TRY(StateReader::parse(bytes, "vcpu0")));
}

State long_mode_state() {
  State state = reset_state(0);
  state.cr0 = 0x80050033;
  state.cr4 = 0x6B0;
  state.efer = 0xD01;
  state.cr3 = 0x1234000;
  state.rip = 0xFFFFFFFF81000000;
  state.gpr[kR15] = 42;
  state.segments[kCs] = Segment{.base = 0, .limit = 0xFFFFFFFF, .selector = 0x10, .attributes = 0xA09B};
  state.event = {.kind = PendingEvent::Kind::kException, .vector = 14, .has_error_code = true, .error_code = 2};
  state.interrupt_shadow = true;
  return state;
}

TEST(CpuState, ComesBackAsItWasSaved) {
  for (const State& state : {reset_state(0), reset_state(3), long_mode_state()}) {
    const auto restored = round_trip(state);
    ASSERT_TRUE(restored) << restored.error().message;
    EXPECT_EQ(*restored, state);
  }
}

TEST(CpuState, StartsTheBootProcessorAndLeavesTheOthersWaiting) {
  EXPECT_EQ(reset_state(0).activity, Activity::kRunning);
  EXPECT_EQ(reset_state(1).activity, Activity::kWaitForSipi);
  EXPECT_EQ(reset_state(0).segments[kCs].base + reset_state(0).rip, 0xFFFFFFF0u);
}

TEST(CpuState, RefusesWhatNoProcessorCanBeIn) {
  State state = long_mode_state();
  state.cr4 = 0;
  EXPECT_FALSE(round_trip(state));
  state = long_mode_state();
  state.rflags = 0;
  EXPECT_FALSE(round_trip(state));
  state = long_mode_state();
  state.xcr0 = 5;
  EXPECT_FALSE(round_trip(state));
  state = long_mode_state();
  state.xsave[27] = 1;
  EXPECT_FALSE(round_trip(state));
  state = reset_state(0);
  state.cr8 = 16;
  EXPECT_FALSE(round_trip(state));
}

}  // namespace
}  // namespace bulkhead::cpu
