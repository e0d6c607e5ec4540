#include "device/timer/pit.h"

#include <gtest/gtest.h>

#include "device/test_wires.h"
#include "support/time/fake_clock.h"

namespace bulkhead::device::timer {
namespace {

class PitTest : public testing::Test {
 protected:
  void control(uint8_t value) { pit_.ports().write_port(3, 1, value); }
  void write(unsigned channel, uint16_t count) {
    pit_.ports().write_port(static_cast<uint16_t>(channel), 1, count & 0xFF);
    pit_.ports().write_port(static_cast<uint16_t>(channel), 1, count >> 8);
  }
  uint32_t read_byte(unsigned channel) { return pit_.ports().read_port(static_cast<uint16_t>(channel), 1); }
  uint32_t read(unsigned channel) {
    const uint32_t low = read_byte(channel);
    return low | read_byte(channel) << 8;
  }
  void advance_ticks(uint64_t ticks) {
    ticks_ += ticks;
    clock_.advance_to(Clock::scale(ticks_, Clock::kNanosecondsPerSecond, Pit::kFrequencyHz) + 1);
  }
  bool output2() { return (pit_.control_port().read_port(0, 1) & 0x20) != 0; }

  uint64_t ticks_ = 0;
  FakeClock clock_;
  RecordedIrq irq_;
  Pit pit_{clock_, irq_.line()};
};

TEST_F(PitTest, ReloadsInModeTwoWithoutLosingTime) {
  control(0x34);
  write(0, 11932);  // about 100 Hz
  clock_.advance(10 * Clock::kNanosecondsPerSecond);
  EXPECT_EQ(irq_.take_rises(), 10 * Pit::kFrequencyHz / 11932);
}

TEST_F(PitTest, CountsDownAndStartsAgainInModeTwo) {
  control(0x34);
  write(0, 1000);
  advance_ticks(1);
  EXPECT_EQ(read(0), 999u);
  advance_ticks(998);
  EXPECT_EQ(read(0), 1u);
  advance_ticks(1);
  EXPECT_EQ(read(0), 1000u);
}

TEST_F(PitTest, ANewCountInModeTwoWaitsForTheEndOfThePeriod) {
  control(0x34);
  write(0, 1000);
  advance_ticks(400);
  write(0, 500);
  EXPECT_EQ(read(0), 600u);
  advance_ticks(600);
  EXPECT_EQ(irq_.take_rises(), 1u);
  EXPECT_EQ(read(0), 500u);
  advance_ticks(500);
  EXPECT_EQ(irq_.take_rises(), 1u);
}

TEST_F(PitTest, InterruptsOnceInModeZero) {
  control(0x30);
  write(0, 100);
  advance_ticks(99);
  EXPECT_EQ(irq_.take_rises(), 0u);
  advance_ticks(1);
  EXPECT_EQ(irq_.take_rises(), 1u);
  advance_ticks(200'000);
  EXPECT_EQ(irq_.take_rises(), 0u);
  write(0, 100);
  advance_ticks(100);
  EXPECT_EQ(irq_.take_rises(), 1u) << "a new count starts it again";
}

TEST_F(PitTest, StrobesOnceInModeFour) {
  control(0x38);
  write(0, 100);
  advance_ticks(100);
  EXPECT_EQ(irq_.take_rises(), 0u);
  advance_ticks(1);
  EXPECT_EQ(irq_.take_rises(), 1u);
  advance_ticks(1000);
  EXPECT_EQ(irq_.take_rises(), 0u);
}

TEST_F(PitTest, ModeThreeCountsByTwoAndIsHighForHalfThePeriod) {
  pit_.control_port().write_port(0, 1, 1);
  control(0xB6);
  write(2, 1000);
  EXPECT_TRUE(output2());
  advance_ticks(100);
  EXPECT_EQ(read(2), 800u);
  advance_ticks(400);
  EXPECT_FALSE(output2());
  EXPECT_EQ(read(2), 1000u);
  advance_ticks(500);
  EXPECT_TRUE(output2());
}

TEST_F(PitTest, ModeOneWaitsForTheGate) {
  control(0xB2);
  write(2, 100);
  EXPECT_TRUE(output2());
  advance_ticks(500);
  EXPECT_TRUE(output2());
  pit_.control_port().write_port(0, 1, 1);
  EXPECT_FALSE(output2());
  advance_ticks(99);
  EXPECT_FALSE(output2());
  advance_ticks(1);
  EXPECT_TRUE(output2());
}

TEST_F(PitTest, ModeFiveStrobesAfterTheGate) {
  control(0xBA);
  write(2, 100);
  pit_.control_port().write_port(0, 1, 1);
  advance_ticks(99);
  EXPECT_TRUE(output2());
  advance_ticks(1);
  EXPECT_FALSE(output2());
  advance_ticks(1);
  EXPECT_TRUE(output2());
}

// As Linux calibrates the TSC: channel 2, mode 0, gate on, wait for OUT2 in port 0x61.
TEST_F(PitTest, SpeakerChannelMeasuresTimeForCalibration) {
  pit_.control_port().write_port(0, 1, (pit_.control_port().read_port(0, 1) & ~2u) | 1u);
  control(0xB0);
  write(2, 59659);  // 50 ms
  EXPECT_FALSE(output2());
  clock_.advance(49'990'000);
  EXPECT_FALSE(output2());
  clock_.advance(20'000);
  EXPECT_TRUE(output2());
}

TEST_F(PitTest, TheGateHoldsModeZero) {
  pit_.control_port().write_port(0, 1, 1);
  control(0xB0);
  write(2, 1000);
  advance_ticks(300);
  pit_.control_port().write_port(0, 1, 0);
  advance_ticks(5000);
  EXPECT_EQ(read(2), 700u);
  pit_.control_port().write_port(0, 1, 1);
  advance_ticks(100);
  EXPECT_EQ(read(2), 600u);
}

TEST_F(PitTest, LatchedCountStandsStillUntilRead) {
  control(0x34);
  write(0, 0);
  advance_ticks(0x100);
  control(0x00);
  advance_ticks(0x100);
  EXPECT_EQ(read(0), 0xFF00u);
  EXPECT_EQ(read(0), 0xFE00u);
}

TEST_F(PitTest, ReadBackLatchesStatusBeforeCount) {
  control(0x34);
  control(0xE2);
  EXPECT_EQ(read_byte(0), 0xF4u) << "output high, no count yet, both bytes, mode 2";
  write(0, 1000);
  advance_ticks(10);
  control(0xC2);
  advance_ticks(10);
  EXPECT_EQ(read_byte(0), 0xB4u);
  EXPECT_EQ(read(0), 990u);
}

TEST_F(PitTest, CountsInDecimal) {
  control(0x35);
  write(0, 0x1000);
  advance_ticks(1);
  EXPECT_EQ(read(0), 0x0999u);
  write(0, 0x0000);
  advance_ticks(999);
  EXPECT_EQ(read(0), 0x0000u) << "10000 shows as 0";
  advance_ticks(1);
  EXPECT_EQ(read(0), 0x9999u);
}

TEST_F(PitTest, OneByteAccessCountsInThatByte) {
  control(0x14);
  pit_.ports().write_port(0, 1, 200);
  advance_ticks(50);
  EXPECT_EQ(read_byte(0), 150u);
  EXPECT_EQ(read_byte(0), 150u);
  control(0x24);
  pit_.ports().write_port(0, 1, 2);
  advance_ticks(1);
  EXPECT_EQ(read_byte(0), 1u);
}

TEST_F(PitTest, ATinyCountDoesNotOccupyTheHost) {
  control(0x34);
  write(0, 1);
  clock_.advance(Clock::kNanosecondsPerSecond);
  const uint64_t interrupts = irq_.take_rises();
  EXPECT_GT(interrupts, 1000u);
  EXPECT_LE(interrupts, 60'000u);
}

TEST_F(PitTest, LegacyReplacementCutsTheInterruptOff) {
  control(0x34);
  write(0, 1000);
  pit_.set_irq(0, true);
  advance_ticks(5000);
  EXPECT_EQ(irq_.take_rises(), 0u);
  pit_.set_irq(0, false);
  advance_ticks(1000);
  EXPECT_EQ(irq_.take_rises(), 1u);
}

TEST_F(PitTest, RefreshBitToggles) {
  const uint32_t first = pit_.control_port().read_port(0, 1) & 0x10;
  clock_.advance(15'085);
  EXPECT_NE(pit_.control_port().read_port(0, 1) & 0x10, first);
}

TEST_F(PitTest, RestoresInMidWork) {
  control(0x34);
  write(0, 10'000);
  control(0xB0);
  write(2, 500);
  advance_ticks(4'000);
  write(0, 20'000);
  control(0x00);
  read_byte(0);
  pit_.ports().write_port(2, 1, 0x12);
  RecordedIrq irq;
  Pit other(clock_, irq.line());
  expect_round_trip(pit_, other);
  EXPECT_EQ(other.ports().read_port(0, 1), 6000u >> 8) << "the other half of the latched count";
  advance_ticks(6'000);
  EXPECT_EQ(irq.take_rises(), 1u);
  advance_ticks(20'000);
  EXPECT_EQ(irq.take_rises(), 1u);
  EXPECT_FALSE(restore(other, {}));
}

TEST_F(PitTest, ResetStopsTheInterrupts) {
  const auto fresh = saved(pit_);
  control(0x34);
  write(0, 10'000);
  pit_.reset();
  EXPECT_EQ(clock_.armed_count(), 0u);
  EXPECT_EQ(saved(pit_), fresh);
}

}  // namespace
}  // namespace bulkhead::device::timer
