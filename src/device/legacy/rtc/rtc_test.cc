#include "device/legacy/rtc/rtc.h"

#include <gtest/gtest.h>

#include "device/test_wires.h"
#include "support/time/fake_clock.h"

namespace bulkhead::device::legacy {
namespace {

constexpr uint64_t kSecondNs = Clock::kNanosecondsPerSecond;
constexpr uint8_t kA = 0x0A, kB = 0x0B, kC = 0x0C, kD = 0x0D;
constexpr int64_t kStart = 1'735'689'540;  // 2024-12-31 23:59:00 UTC, a Tuesday

class RtcTest : public testing::Test {
 protected:
  RtcTest() : clock_(make_clock()) {}
  static FakeClock make_clock() {
    FakeClock clock;
    clock.set_wall_at_start(static_cast<uint64_t>(kStart) * kSecondNs);
    return clock;
  }
  uint32_t read(uint8_t index) {
    rtc_.write_port(0, 1, index);
    return rtc_.read_port(1, 1);
  }
  void write(uint8_t index, uint8_t value) {
    rtc_.write_port(0, 1, index);
    rtc_.write_port(1, 1, value);
  }
  std::vector<uint32_t> time() {
    return {read(0x32), read(0x09), read(0x08), read(0x07), read(0x04), read(0x02), read(0x00)};
  }
  using Fields = std::vector<uint32_t>;

  FakeClock clock_;
  RecordedIrq irq_;
  Rtc rtc_{clock_, irq_.line()};
};

TEST_F(RtcTest, ShowsTheWallTimeInDecimalAnd24Hours) {
  EXPECT_EQ(time(), (Fields{0x20, 0x24, 0x12, 0x31, 0x23, 0x59, 0x00}));
  EXPECT_EQ(read(0x06), 3u) << "Tuesday";
  clock_.advance(75 * kSecondNs);
  EXPECT_EQ(time(), (Fields{0x20, 0x25, 0x01, 0x01, 0x00, 0x00, 0x15}));
  EXPECT_EQ(read(kD), 0x80u);
}

TEST_F(RtcTest, ShowsBinaryAnd12Hours) {
  write(kB, 0x04);
  EXPECT_EQ(time(), (Fields{20, 24, 12, 31, 0x80 | 11, 59, 0}));
  clock_.advance(60 * kSecondNs);
  EXPECT_EQ(read(0x04), 12u) << "midnight is 12 before noon";
}

// As Linux sets it: SET, divider reset, fields, SET off, divider on; the next second begins half a second later.
TEST_F(RtcTest, KeepsTheTimeThatTheGuestSets) {
  write(kB, 0x82);
  write(kA, 0x76);
  const uint8_t fields[][2] = {{0x32, 0x19}, {0x09, 0x99}, {0x08, 0x02}, {0x07, 0x28},
                               {0x04, 0x23}, {0x02, 0x59}, {0x00, 0x58}};
  for (const auto& [index, value] : fields) write(index, value);
  write(kB, 0x02);
  write(kA, 0x26);
  EXPECT_EQ(time(), (Fields{0x19, 0x99, 0x02, 0x28, 0x23, 0x59, 0x58}));
  clock_.advance(kSecondNs / 2);
  EXPECT_EQ(read(0x00), 0x59u);
  clock_.advance(kSecondNs);
  EXPECT_EQ(time(), (Fields{0x19, 0x99, 0x03, 0x01, 0x00, 0x00, 0x00}));
}

TEST_F(RtcTest, StandsStillWhileBeingSet) {
  write(kB, 0x82);
  clock_.advance(10 * kSecondNs);
  EXPECT_EQ(read(0x00), 0x00u);
  write(kB, 0x02);
  clock_.advance(kSecondNs);
  EXPECT_EQ(read(0x00), 0x01u);
}

TEST_F(RtcTest, AnnouncesUpdates) {
  clock_.advance(kSecondNs - 2'300'000);
  EXPECT_EQ(read(kA), 0x26u);
  clock_.advance(100'000);
  EXPECT_EQ(read(kA), 0xA6u);
  clock_.advance(2'200'000);
  EXPECT_EQ(read(kA), 0x26u);
}

TEST_F(RtcTest, PeriodicInterruptWaitsForRegisterC) {
  write(kA, 0x26);  // 1024 Hz
  write(kB, 0x42);
  clock_.advance(976'562);
  EXPECT_FALSE(irq_.level());
  clock_.advance(2);
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(clock_.armed_count(), 0u) << "nothing to wait for until the guest has looked";
  EXPECT_EQ(read(kC), 0xC0u);
  EXPECT_FALSE(irq_.level());
  EXPECT_EQ(read(kC), 0x00u);
  uint64_t count = 0;
  for (int i = 0; i < 10'000; ++i) {
    clock_.advance(100'000);
    count += (read(kC) & 0x40) != 0;
  }
  EXPECT_NEAR(static_cast<double>(count), 1024, 1);
}

TEST_F(RtcTest, UpdateInterruptComesEachSecond) {
  write(kB, 0x12);
  clock_.advance(5 * kSecondNs / 2);
  EXPECT_EQ(irq_.take_rises(), 1u);
  EXPECT_EQ(read(kC) & ~0x40u, 0x90u);
  clock_.advance(kSecondNs / 2);
  EXPECT_EQ(irq_.take_rises(), 1u);
}

TEST_F(RtcTest, AlarmComesAtItsTime) {
  write(0x05, 0x00);
  write(0x03, 0x01);
  write(0x01, 0x30);
  write(kB, 0x22);
  clock_.advance(149 * kSecondNs);
  EXPECT_FALSE(irq_.level());
  clock_.advance(kSecondNs);
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(read(kC) & ~0x40u, 0xB0u);
  clock_.advance((kSecondsPerDay - 1) * kSecondNs);
  EXPECT_FALSE(irq_.level());
  clock_.advance(kSecondNs);
  EXPECT_TRUE(irq_.level());
}

TEST_F(RtcTest, AlarmFieldsMayBeAny) {
  write(0x05, 0xC0);
  write(0x03, 0xFF);
  write(0x01, 0x10);
  write(kB, 0x22);
  for (int minute = 0; minute < 5; ++minute) {
    clock_.advance(60 * kSecondNs);
    EXPECT_EQ(irq_.take_rises(), 1u);
    (void)read(kC);
  }
}

TEST_F(RtcTest, AnImpossibleAlarmNeverComes) {
  write(0x05, 0x25);
  write(kB, 0x22);
  clock_.advance(2 * kSecondsPerDay * kSecondNs);
  EXPECT_FALSE(irq_.level());
}

TEST_F(RtcTest, FlagsAreSetWithoutInterrupts) {
  clock_.advance(2 * kSecondNs);
  EXPECT_EQ(read(kC) & 0x90, 0x10u);
  EXPECT_EQ(clock_.armed_count(), 0u);
}

TEST_F(RtcTest, LegacyReplacementCutsTheInterruptOff) {
  write(kB, 0x12);
  rtc_.set_irq(0, true);
  clock_.advance(2 * kSecondNs);
  EXPECT_FALSE(irq_.level());
  rtc_.set_irq(0, false);
  EXPECT_TRUE(irq_.level());
}

TEST_F(RtcTest, MemoryHoldsBytesAcrossReset) {
  rtc_.set_memory(0x34, 0x12);
  EXPECT_EQ(read(0x34), 0x12u);
  write(0x7F, 0xAB);
  write(kB, 0x72);
  rtc_.reset();
  EXPECT_EQ(read(0x7F), 0xABu);
  EXPECT_EQ(read(kB), 0x02u) << "interrupts are off";
  rtc_.write_port(0, 1, 0x80 | 0x7F);
  EXPECT_EQ(rtc_.read_port(1, 1), 0xABu) << "bit 7 is the NMI mask";
}

TEST_F(RtcTest, SurvivesEveryValueInEveryRegister) {
  for (int value = 255; value >= 0; --value) {
    for (uint8_t index = 0; index < 128; ++index) {
      write(index, static_cast<uint8_t>(value));
      (void)read(index);
    }
    clock_.advance(kSecondNs);
  }
}

TEST_F(RtcTest, RestoresInMidWork) {
  write(0x05, 0x00);
  write(0x03, 0x00);
  write(0x01, 0x05);
  write(kB, 0x32);
  clock_.advance(62 * kSecondNs + 1);
  EXPECT_EQ(read(kC), 0xD0u);
  write(0x02, 0x00);
  RecordedIrq irq;
  Rtc other(clock_, irq.line());
  expect_round_trip(rtc_, other);
  clock_.advance(3 * kSecondNs);
  EXPECT_TRUE(irq.level());
  other.write_port(0, 1, kC);
  EXPECT_EQ(other.read_port(1, 1), 0xF0u);
  EXPECT_FALSE(restore(other, {}));
}

}  // namespace
}  // namespace bulkhead::device::legacy
