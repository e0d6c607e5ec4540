#include "device/interrupt/pic.h"

#include <gtest/gtest.h>

#include "device/test_wires.h"

namespace bulkhead::device::interrupt {
namespace {

class PicTest : public testing::Test {
 protected:
  // As Linux does: vectors 0x30 and 0x38, all inputs open.
  void initialise(uint8_t master_word4 = 1, uint8_t slave_word4 = 1) {
    const auto write = [](PortIo& ports, std::initializer_list<uint8_t> words, uint8_t word4) {
      ports.write_port(0, 1, 0x11);
      for (const uint8_t word : words) ports.write_port(1, 1, word);
      ports.write_port(1, 1, word4);
      ports.write_port(1, 1, 0x00);
    };
    write(master(), {0x30, 0x04}, master_word4);
    write(slave(), {0x38, 0x02}, slave_word4);
  }
  PortIo& master() { return pic_.master_ports(); }
  PortIo& slave() { return pic_.slave_ports(); }
  void pulse(uint32_t input) {
    pic_.set_irq(input, true);
    pic_.set_irq(input, false);
  }
  bool requested() const { return output_.level(); }
  uint32_t in_service(PortIo& ports) {
    ports.write_port(0, 1, 0x0B);
    return ports.read_port(0, 1);
  }
  uint32_t requests(PortIo& ports) {
    ports.write_port(0, 1, 0x0A);
    return ports.read_port(0, 1);
  }

  RecordedIrq output_;
  Pic pic_{output_.line()};
};

TEST_F(PicTest, DeliversByPriorityAndWaitsForTheEnd) {
  initialise();
  pulse(4);
  pulse(1);
  EXPECT_TRUE(requested());
  EXPECT_EQ(pic_.acknowledge(), 0x31);
  EXPECT_FALSE(requested()) << "4 is below 1";
  pulse(0);
  EXPECT_EQ(pic_.acknowledge(), 0x30);
  master().write_port(0, 1, 0x20);
  EXPECT_FALSE(requested());
  master().write_port(0, 1, 0x61);  // specific
  EXPECT_EQ(pic_.acknowledge(), 0x34);
  EXPECT_EQ(in_service(master()), 0x10u);
}

TEST_F(PicTest, CascadesTheSlaveThroughInputTwo) {
  initialise();
  pulse(8);
  pulse(12);
  pulse(3);
  EXPECT_EQ(pic_.acknowledge(), 0x38);
  EXPECT_EQ(in_service(master()), 0x04u);
  EXPECT_EQ(in_service(slave()), 0x01u);
  slave().write_port(0, 1, 0x20);
  master().write_port(0, 1, 0x20);
  EXPECT_EQ(pic_.acknowledge(), 0x3C);
  slave().write_port(0, 1, 0x20);
  master().write_port(0, 1, 0x20);
  EXPECT_EQ(pic_.acknowledge(), 0x33) << "all of the slave stands above input 3";
}

TEST_F(PicTest, SpecialFullyNestedModeLetsTheSlaveNest) {
  initialise(0x11);
  pulse(12);
  EXPECT_EQ(pic_.acknowledge(), 0x3C);
  pulse(8);
  EXPECT_TRUE(requested());
  EXPECT_EQ(pic_.acknowledge(), 0x38);
}

TEST_F(PicTest, MaskHoldsBackAndKeepsTheEdge) {
  initialise();
  master().write_port(1, 1, 0x10);
  pulse(4);
  EXPECT_FALSE(requested());
  EXPECT_EQ(requests(master()), 0x10u);
  master().write_port(1, 1, 0x00);
  EXPECT_EQ(pic_.acknowledge(), 0x34);
}

TEST_F(PicTest, GivesTheSpuriousVectorWhenALevelIsGone) {
  initialise();
  pic_.edge_level_ports().write_port(0, 2, 0x0E20);
  EXPECT_EQ(pic_.edge_level_ports().read_port(0, 2), 0x0E20u);
  pic_.set_irq(5, true);
  EXPECT_TRUE(requested());
  pic_.set_irq(5, false);
  EXPECT_FALSE(requested());
  EXPECT_EQ(pic_.acknowledge(), 0x37);
  EXPECT_EQ(in_service(master()), 0u) << "a spurious interrupt is not in service";
}

TEST_F(PicTest, ALevelInterruptsAgainAfterItsEnd) {
  initialise();
  pic_.edge_level_ports().write_port(1, 1, 0x0E);
  pic_.set_irq(11, true);
  EXPECT_EQ(pic_.acknowledge(), 0x3B);
  slave().write_port(0, 1, 0x20);
  master().write_port(0, 1, 0x20);
  EXPECT_TRUE(requested());
  pic_.set_irq(11, false);
  EXPECT_FALSE(requested());
}

TEST_F(PicTest, TheTimerAndTheCascadeStayEdgeTriggered) {
  pic_.edge_level_ports().write_port(0, 2, 0xFFFF);
  EXPECT_EQ(pic_.edge_level_ports().read_port(0, 2), 0xDEF8u);
}

TEST_F(PicTest, AutomaticEndLeavesNothingInService) {
  initialise(0x03);
  pulse(4);
  EXPECT_EQ(pic_.acknowledge(), 0x34);
  EXPECT_EQ(in_service(master()), 0u);
  pulse(5);
  EXPECT_TRUE(requested());
}

TEST_F(PicTest, RotationMakesTheServedInputTheLowest) {
  initialise();
  pulse(3);
  EXPECT_EQ(pic_.acknowledge(), 0x33);
  pulse(3);
  pulse(4);
  master().write_port(0, 1, 0xA0);
  EXPECT_EQ(pic_.acknowledge(), 0x34);
  master().write_port(0, 1, 0x20);
  EXPECT_EQ(pic_.acknowledge(), 0x33);
  master().write_port(0, 1, 0x20);
  master().write_port(0, 1, 0xC5);  // 5 becomes the lowest
  pulse(5);
  pulse(6);
  EXPECT_EQ(pic_.acknowledge(), 0x36);
}

TEST_F(PicTest, SpecialMaskModeLetsLowerInputsThrough) {
  initialise();
  pulse(1);
  EXPECT_EQ(pic_.acknowledge(), 0x31);
  pulse(6);
  EXPECT_FALSE(requested());
  master().write_port(1, 1, 0x02);
  master().write_port(0, 1, 0x68);
  EXPECT_TRUE(requested());
  EXPECT_EQ(pic_.acknowledge(), 0x36);
  master().write_port(0, 1, 0x20);
  EXPECT_EQ(in_service(master()), 0x02u) << "an unspecific end passes over masked inputs";
}

TEST_F(PicTest, PollTakesTheInterruptByAReadOfTheCommandPort) {
  initialise();
  master().write_port(0, 1, 0x0C);
  EXPECT_EQ(master().read_port(0, 1), 0u);
  pulse(6);
  master().write_port(0, 1, 0x0C);
  EXPECT_EQ(master().read_port(0, 1), 0x86u);
  EXPECT_FALSE(requested());
  EXPECT_EQ(in_service(master()), 0x40u);
}

TEST_F(PicTest, InitialisationForgetsEdgesAndOpensTheMask) {
  initialise();
  master().write_port(1, 1, 0xFF);
  pulse(4);
  initialise();
  EXPECT_EQ(master().read_port(1, 1), 0u);
  EXPECT_FALSE(requested());
}

TEST_F(PicTest, RestoresInMidWork) {
  initialise();
  pulse(1);
  pic_.acknowledge();
  pulse(8);
  pulse(0);
  slave().write_port(0, 1, 0x11);
  slave().write_port(1, 1, 0x70);
  RecordedIrq output;
  Pic other(output.line());
  expect_round_trip(pic_, other);
  EXPECT_TRUE(output.level());
  EXPECT_EQ(other.acknowledge(), 0x30);
  EXPECT_FALSE(restore(other, {}));
}

TEST_F(PicTest, ResetWithdrawsTheRequest) {
  const auto fresh = saved(pic_);
  initialise();
  pulse(1);
  pic_.reset();
  EXPECT_FALSE(requested());
  EXPECT_EQ(saved(pic_), fresh);
}

}  // namespace
}  // namespace bulkhead::device::interrupt
