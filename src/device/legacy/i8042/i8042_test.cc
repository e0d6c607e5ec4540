#include "device/legacy/i8042/i8042.h"

#include <gtest/gtest.h>

#include "device/test_wires.h"

namespace bulkhead::device::legacy {
namespace {

class I8042Test : public testing::Test {
 protected:
  uint32_t status() { return controller_.command_port().read_port(0, 1); }
  uint32_t data() { return controller_.data_port().read_port(0, 1); }
  void command(uint8_t value) { controller_.command_port().write_port(0, 1, value); }
  void send(uint8_t value) { controller_.data_port().write_port(0, 1, value); }
  std::vector<uint32_t> drain() {
    std::vector<uint32_t> bytes;
    while ((status() & 1) != 0 && bytes.size() < 100) bytes.push_back(data());
    return bytes;
  }
  using Bytes = std::vector<uint32_t>;

  RecordedIrq irq_;
  RecordedPower power_;
  I8042 controller_{irq_.line(), power_};
};

TEST_F(I8042Test, PassesItsSelfTestsAndIsNotLocked) {
  EXPECT_EQ(status(), 0x14u);
  command(0xAA);
  EXPECT_EQ(drain(), Bytes{0x55});
  command(0xAB);
  EXPECT_EQ(drain(), Bytes{0x00});
}

TEST_F(I8042Test, KeepsItsCommandByte) {
  command(0x20);
  EXPECT_EQ(drain(), Bytes{0x65});
  command(0x60);
  send(0x44);
  command(0x20);
  EXPECT_EQ(drain(), Bytes{0x44});
}

TEST_F(I8042Test, ShowsThatThereIsNoMouse) {
  command(0xD3);
  send(0x5A);
  EXPECT_EQ(status() & 0x21, 0x01u) << "the echo does not come from the auxiliary port";
  EXPECT_EQ(drain(), Bytes{0x5A});
  command(0xA9);
  EXPECT_EQ(drain(), Bytes{0x01});
  command(0xD4);
  send(0xFF);
  EXPECT_EQ(drain(), Bytes{});
}

TEST_F(I8042Test, KeyboardResetsAndIdentifies) {
  send(0xFF);
  EXPECT_EQ(drain(), (Bytes{0xFA, 0xAA}));
  send(0xF2);
  EXPECT_EQ(drain(), (Bytes{0xFA, 0xAB, 0x41}));
  command(0x60);
  send(0x05);
  send(0xF2);
  EXPECT_EQ(drain(), (Bytes{0xFA, 0xAB, 0x83}));
}

TEST_F(I8042Test, KeyboardTakesLedsRepeatRateAndScanSet) {
  for (const uint8_t byte : {0xED, 0x07, 0xF3, 0x00, 0xF0, 0x03, 0xF4}) {
    send(byte);
    EXPECT_EQ(drain(), Bytes{0xFA}) << static_cast<int>(byte);
  }
  send(0xF0);
  EXPECT_EQ(drain(), Bytes{0xFA});
  send(0x00);
  EXPECT_EQ(drain(), (Bytes{0xFA, 0x03}));
  send(0xEE);
  EXPECT_EQ(drain(), Bytes{0xEE});
  send(0xFE);
  EXPECT_EQ(drain(), Bytes{0xEE});
  send(0x12);
  EXPECT_EQ(drain(), Bytes{0xFE});
}

TEST_F(I8042Test, EachByteHasItsInterrupt) {
  send(0xF2);
  EXPECT_EQ(irq_.take_rises(), 1u);
  (void)data();
  EXPECT_EQ(irq_.take_rises(), 1u);
  (void)data();
  (void)data();
  EXPECT_FALSE(irq_.level());
  command(0x60);
  send(0x44);
  send(0xF4);
  EXPECT_FALSE(irq_.level());
}

TEST_F(I8042Test, ADisabledKeyboardWaits) {
  send(0xFF);
  (void)data();
  command(0xAD);
  command(0x20);
  EXPECT_EQ(drain(), (Bytes{0xAA, 0x75}));
  send(0xF4);
  EXPECT_EQ(drain(), Bytes{0xFA}) << "a byte for the keyboard enables it";
}

TEST_F(I8042Test, ResetsTheMachineByPulseAndByOutputPort) {
  command(0xFF);
  EXPECT_EQ(power_.reset_count, 0);
  command(0xFE);
  EXPECT_EQ(power_.reset_count, 1);
  command(0xD1);
  send(0xDF);
  EXPECT_EQ(power_.reset_count, 1);
  command(0xD0);
  EXPECT_EQ(drain(), Bytes{0xDF});
  command(0xD1);
  send(0xDE);
  EXPECT_EQ(power_.reset_count, 2);
}

TEST_F(I8042Test, QueuesAreBounded) {
  for (int i = 0; i < 1000; ++i) {
    send(0xF2);
    command(0x20);
  }
  EXPECT_LE(drain().size(), 33u);
}

TEST_F(I8042Test, RestoresInMidWork) {
  send(0xF2);
  command(0x20);
  command(0x60);
  RecordedIrq irq;
  I8042 other(irq.line(), power_);
  expect_round_trip(controller_, other);
  EXPECT_TRUE(irq.level());
  other.data_port().write_port(0, 1, 0x44);
  EXPECT_EQ(other.data_port().read_port(0, 1), 0xFAu);
  EXPECT_EQ(other.data_port().read_port(0, 1), 0x65u);
  EXPECT_EQ(other.data_port().read_port(0, 1), 0xABu);
  EXPECT_FALSE(restore(other, {}));
}

TEST_F(I8042Test, ResetEmptiesTheQueues) {
  const auto fresh = saved(controller_);
  send(0xF2);
  controller_.reset();
  EXPECT_EQ(saved(controller_), fresh);
  EXPECT_FALSE(irq_.level());
}

}  // namespace
}  // namespace bulkhead::device::legacy
