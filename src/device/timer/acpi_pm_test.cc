#include "device/timer/acpi_pm.h"

#include <gtest/gtest.h>

#include "device/test_wires.h"
#include "support/time/fake_clock.h"

namespace bulkhead::device::timer {
namespace {

constexpr uint16_t kStatus = 0, kEnable = 2, kControl = 4, kTimer = 8, kGeneralStatus = 0x20, kGeneralEnable = 0x22;

class AcpiPmTest : public testing::Test {
 protected:
  uint32_t read(uint16_t offset) { return pm_.read_port(offset, 2); }
  void write(uint16_t offset, uint16_t value) { pm_.write_port(offset, 2, value); }

  FakeClock clock_;
  RecordedIrq sci_;
  RecordedPower power_;
  AcpiPm pm_{clock_, sci_.line(), power_};
};

TEST_F(AcpiPmTest, TimerRunsAtItsFrequencyAndWraps) {
  clock_.advance(Clock::kNanosecondsPerSecond);
  EXPECT_EQ(pm_.read_port(kTimer, 4), AcpiPm::kFrequencyHz);
  AcpiPm narrow(clock_, IrqLine(), power_, AcpiPm::TimerWidth::k24Bits);
  clock_.advance(4 * Clock::kNanosecondsPerSecond);
  EXPECT_EQ(narrow.read_port(kTimer, 4), 5 * AcpiPm::kFrequencyHz & 0xFFFFFF);
}

TEST_F(AcpiPmTest, PowerButtonRaisesTheSciWhenEnabled) {
  pm_.press_power_button();
  EXPECT_FALSE(sci_.level());
  write(kEnable, 0x100);
  EXPECT_TRUE(sci_.level());
  EXPECT_EQ(read(kStatus), 0x100u);
  write(kStatus, 0x100);
  EXPECT_FALSE(sci_.level());
  EXPECT_EQ(read(kStatus), 0u);
}

TEST_F(AcpiPmTest, SoftOffEndsTheMachineAndOtherSleepTypesDoNot) {
  write(kControl, 0x2000 | 1 << 10);
  EXPECT_EQ(power_.power_off_count, 0);
  write(kControl, AcpiPm::kSleepTypeOff << 10);
  EXPECT_EQ(power_.power_off_count, 0);
  write(kControl, 0x2000 | AcpiPm::kSleepTypeOff << 10);
  EXPECT_EQ(power_.power_off_count, 1);
}

TEST_F(AcpiPmTest, IsAlwaysInAcpiMode) {
  EXPECT_EQ(read(kControl) & 1, 1u);
  write(kControl, 0);
  EXPECT_EQ(read(kControl) & 1, 1u);
  EXPECT_EQ(read(kControl) & 0x2000, 0u) << "SLP_EN reads as zero";
}

TEST_F(AcpiPmTest, TimerEventComesWithEachChangeOfTheHighestBit) {
  AcpiPm narrow(clock_, sci_.line(), power_, AcpiPm::TimerWidth::k24Bits);
  narrow.write_port(kEnable, 2, 1);
  clock_.advance(2'343'000'000);
  EXPECT_FALSE(sci_.level());
  clock_.advance(1'000'000);
  EXPECT_TRUE(sci_.level());
  narrow.write_port(kStatus, 2, 1);
  EXPECT_FALSE(sci_.level());
  clock_.advance(2'343'500'000);
  EXPECT_TRUE(sci_.level());
}

TEST_F(AcpiPmTest, TimerStatusShowsWithoutAnInterrupt) {
  clock_.advance(700 * Clock::kNanosecondsPerSecond);
  EXPECT_EQ(read(kStatus), 1u);
  write(kStatus, 1);
  EXPECT_EQ(read(kStatus), 0u);
  EXPECT_EQ(clock_.armed_count(), 0u);
}

TEST_F(AcpiPmTest, GeneralEventsRaiseTheSci) {
  pm_.write_port(kGeneralEnable, 1, 0x02);
  pm_.raise_general_event(3);
  EXPECT_FALSE(sci_.level());
  pm_.raise_general_event(1);
  EXPECT_TRUE(sci_.level());
  EXPECT_EQ(read(kGeneralStatus), 0x0Au);
  pm_.write_port(kGeneralStatus, 1, 0x02);
  EXPECT_FALSE(sci_.level());
  pm_.raise_general_event(16);
  EXPECT_EQ(read(kGeneralStatus), 0x08u);
}

TEST_F(AcpiPmTest, RestoresInMidWork) {
  write(kEnable, 0x101);
  pm_.press_power_button();
  pm_.raise_general_event(9);
  RecordedIrq sci;
  AcpiPm other(clock_, sci.line(), power_);
  expect_round_trip(pm_, other);
  EXPECT_TRUE(sci.level());
  EXPECT_EQ(clock_.armed_count(), 2u);
  EXPECT_FALSE(restore(other, {}));
}

TEST_F(AcpiPmTest, ResetClearsEvents) {
  const auto fresh = saved(pm_);
  write(kEnable, 0x101);
  pm_.press_power_button();
  pm_.reset();
  EXPECT_FALSE(sci_.level());
  EXPECT_EQ(saved(pm_), fresh);
}

}  // namespace
}  // namespace bulkhead::device::timer
