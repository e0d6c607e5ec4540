#include "device/timer/hpet.h"

#include <gtest/gtest.h>

#include "device/test_wires.h"
#include "support/time/fake_clock.h"

namespace bulkhead::device::timer {
namespace {

constexpr uint64_t kEnableBit = 1, kLegacyBit = 2;
constexpr uint64_t kLevelBit = 1 << 1, kInterruptBit = 1 << 2, kPeriodicBit = 1 << 3, kSetValueBit = 1 << 6,
                   k32Bit = 1 << 8;
constexpr uint64_t route(uint64_t input) {
  return input << 9;
}

class HpetTest : public testing::Test {
 protected:
  // Inputs of the recorded wires: 0 and 8 the legacy ones, 20 to 23 the routes, 30 and 31 PIT and RTC cut off.
  static Hpet::Wires wires(RecordedIrq& irq) {
    return {.irq0 = irq.line(0),
            .irq8 = irq.line(8),
            .routes = {irq.line(20), irq.line(21), irq.line(22), irq.line(23)},
            .cut_off_pit = irq.line(30),
            .cut_off_rtc = irq.line(31)};
  }
  uint64_t read(uint64_t offset) {
    uint64_t value = 0;
    hpet_.read_mmio(offset, as_mutable_bytes(value));
    return value;
  }
  void write(uint64_t offset, uint64_t value) { hpet_.write_mmio(offset, as_bytes(value)); }
  void write32(uint64_t offset, uint32_t value) { hpet_.write_mmio(offset, as_bytes(value)); }
  void advance_ticks(uint64_t ticks) { clock_.advance(ticks * Hpet::kTickNs); }

  FakeClock clock_;
  RecordedIrq irq_;
  Hpet hpet_{clock_, wires(irq_)};
};

TEST_F(HpetTest, ShowsItsCapabilities) {
  EXPECT_EQ(read(0), 0x009896808086A201u);
  EXPECT_EQ(read(0x100), 0x00F0000000000030u);
  uint32_t period = 0;
  hpet_.read_mmio(4, as_mutable_bytes(period));
  EXPECT_EQ(period, 10'000'000u);
}

TEST_F(HpetTest, CountsOnlyWhileEnabled) {
  advance_ticks(100);
  EXPECT_EQ(read(0xF0), 0u);
  write(0xF0, 0x1'0000'0000 - 50);
  write(0x10, kEnableBit);
  advance_ticks(100);
  EXPECT_EQ(read(0xF0), 0x1'0000'0000u + 50);
  write(0x10, 0);
  advance_ticks(100);
  EXPECT_EQ(read(0xF0), 0x1'0000'0000u + 50);
}

TEST_F(HpetTest, ChangingTheConfigurationLosesNoPartOfATick) {
  write(0x10, kEnableBit);
  for (int i = 0; i < 100; ++i) {
    clock_.advance(15);
    write(0x10, kEnableBit);
  }
  EXPECT_EQ(read(0xF0), 150u);
}

// As Linux sets up its tick: periodic, 32 bits, comparator first, then the period, in legacy replacement.
TEST_F(HpetTest, LegacyPeriodicTickGoesToIrq0) {
  write32(0x10, kEnableBit | kLegacyBit);
  EXPECT_TRUE(irq_.level(30));
  EXPECT_TRUE(irq_.level(31));
  write32(0x100, kInterruptBit | kPeriodicBit | kSetValueBit | k32Bit);
  write32(0x108, static_cast<uint32_t>(read(0xF0)) + 400'000);
  write32(0x108, 400'000);
  clock_.advance(Clock::kNanosecondsPerSecond);
  EXPECT_EQ(irq_.take_rises(0), 250u);
  write32(0x10, kEnableBit);
  EXPECT_FALSE(irq_.level(30));
}

TEST_F(HpetTest, WakesNobodyForAPeriodThatNobodyHears) {
  write(0x10, kEnableBit);
  write(0x100, kInterruptBit | kPeriodicBit | kSetValueBit | route(20));
  write(0x108, 5000);
  write(0x108, 5000);
  EXPECT_EQ(clock_.armed_count(), 1u);
  // As Linux leaves it behind.
  write(0x100, kPeriodicBit | route(20));
  EXPECT_EQ(clock_.armed_count(), 0u);
  advance_ticks(10'300);
  EXPECT_EQ(irq_.take_rises(20), 0u);
  // It has gone on all the same, saved and restored in between or not.
  RecordedIrq irq;
  Hpet other(clock_, wires(irq));
  expect_round_trip(hpet_, other);
  uint64_t value = 0;
  advance_ticks(5'000);
  other.read_mmio(0x108, as_mutable_bytes(value));
  EXPECT_EQ(value, 20'000u);
  EXPECT_EQ(read(0x108), 20'000u);
  EXPECT_EQ(clock_.armed_count(), 0u);
  write(0x100, kInterruptBit | kPeriodicBit | route(20));
  advance_ticks(4'699);
  EXPECT_EQ(irq_.take_rises(20), 0u);
  advance_ticks(1);
  EXPECT_EQ(irq_.take_rises(20), 1u);
}

TEST_F(HpetTest, OneShotFiresAtItsValueAndIn32BitsAgainAfterARound) {
  write(0x10, kEnableBit);
  write(0x120, kInterruptBit | k32Bit | route(21));
  write(0x128, 1000);
  advance_ticks(999);
  EXPECT_EQ(irq_.take_rises(21), 0u);
  advance_ticks(1);
  EXPECT_EQ(irq_.take_rises(21), 1u);
  advance_ticks(0xFFFFFFFF);
  EXPECT_EQ(irq_.take_rises(21), 0u);
  advance_ticks(1);
  EXPECT_EQ(irq_.take_rises(21), 1u);
}

TEST_F(HpetTest, A64BitValueBelowTheCounterIsNeverMet) {
  write(0x10, kEnableBit);
  advance_ticks(5000);
  write(0x120, kInterruptBit | route(21));
  write(0x128, 1000);
  EXPECT_EQ(clock_.armed_count(), 0u);
}

TEST_F(HpetTest, LevelStaysUntilTheStatusIsCleared) {
  write(0x10, kEnableBit);
  write(0x140, kInterruptBit | kLevelBit | route(23));
  write(0x148, 100);
  advance_ticks(100);
  EXPECT_TRUE(irq_.level(23));
  EXPECT_EQ(read(0x20), 4u);
  write(0x20, 3);
  EXPECT_TRUE(irq_.level(23));
  write32(0x20, 4);
  EXPECT_FALSE(irq_.level(23));
}

TEST_F(HpetTest, ARouteThatIsNotThereInterruptsNobody) {
  write(0x10, kEnableBit);
  write(0x100, kInterruptBit | kLevelBit | route(31));
  write(0x108, 100);
  advance_ticks(100);
  EXPECT_EQ(read(0x20), 1u);
  for (uint32_t input = 0; input < 32; ++input) EXPECT_FALSE(irq_.level(input));
}

TEST_F(HpetTest, ATinyPeriodDoesNotOccupyTheHost) {
  write(0x10, kEnableBit);
  write(0x100, kInterruptBit | kPeriodicBit | kSetValueBit | route(20));
  write(0x108, 1);
  clock_.advance(Clock::kNanosecondsPerSecond / 10);
  EXPECT_LE(irq_.take_rises(20), 5001u);
  write(0x100, kInterruptBit | kPeriodicBit | kSetValueBit | route(20));
  write(0x108, 0);
  clock_.advance(Clock::kNanosecondsPerSecond);
  EXPECT_LE(irq_.take_rises(20), 1u);
}

TEST_F(HpetTest, EveryWidthAndOffsetIsHarmless) {
  std::array<uint8_t, 8> bytes;
  bytes.fill(0xA5);
  for (uint64_t offset = 0; offset < Hpet::kRegionSize; ++offset) {
    for (size_t size = 1; size <= 8 && offset + size <= Hpet::kRegionSize; ++size) {
      hpet_.write_mmio(offset, ByteSpan(bytes).first(size));
      hpet_.read_mmio(offset, MutableByteSpan(bytes).first(size));
    }
  }
  EXPECT_EQ(read(0), 0x009896808086A201u);
}

TEST_F(HpetTest, RestoresInMidWork) {
  write(0x10, kEnableBit | kLegacyBit);
  write(0x100, kInterruptBit | kPeriodicBit | kSetValueBit);
  write(0x108, 1000);
  write(0x140, kInterruptBit | kLevelBit | route(22));
  write(0x148, 1500);
  advance_ticks(1600);
  irq_.take_rises(0);
  RecordedIrq irq;
  Hpet other(clock_, wires(irq));
  expect_round_trip(hpet_, other);
  EXPECT_TRUE(irq.level(22));
  EXPECT_TRUE(irq.level(30));
  advance_ticks(1399);
  EXPECT_EQ(irq.take_rises(0), 0u) << "a period of 1000 ticks is below the least that the host is armed for";
  advance_ticks(1);
  EXPECT_EQ(irq.take_rises(0), 1u);
  EXPECT_FALSE(restore(other, {}));
}

TEST_F(HpetTest, ResetGivesTheLinesBack) {
  const auto fresh = saved(hpet_);
  write(0x10, kEnableBit | kLegacyBit);
  write(0x108, 1000);
  hpet_.reset();
  EXPECT_FALSE(irq_.level(30));
  EXPECT_EQ(clock_.armed_count(), 0u);
  EXPECT_EQ(saved(hpet_), fresh);
}

}  // namespace
}  // namespace bulkhead::device::timer
