#include "device/legacy/uart/uart.h"

#include <deque>

#include <gtest/gtest.h>

#include "device/test_wires.h"

namespace bulkhead::device::legacy {
namespace {

enum : uint16_t { kData, kEnable, kIdentity, kLineControl, kModemControl, kLineStatus, kModemStatus, kScratch };

// A far end with as much room as the test gives it.
class FakeStream final : public console::ByteStream {
 public:
  size_t write(ByteSpan bytes) override {
    const size_t count = std::min(bytes.size(), room);
    written.append(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count));
    room -= count;
    return count;
  }
  size_t read(MutableByteSpan out) override {
    const size_t count = std::min(out.size(), typed.size());
    for (size_t i = 0; i < count; ++i) {
      out[i] = static_cast<uint8_t>(typed.front());
      typed.pop_front();
    }
    return count;
  }
  void set_listener(std::function<void()> on_ready) override { listener = std::move(on_ready); }

  void type(std::string_view text) {
    typed.insert(typed.end(), text.begin(), text.end());
    listener();
  }
  void give_room(size_t size) {
    room += size;
    listener();
  }

  std::string written;
  std::deque<char> typed;
  size_t room = SIZE_MAX;
  std::function<void()> listener;
};

class UartTest : public testing::Test {
 protected:
  uint8_t read(uint16_t offset) { return static_cast<uint8_t>(uart_.read_port(offset, 1)); }
  void write(uint16_t offset, uint8_t value) { uart_.write_port(offset, 1, value); }
  void send(std::string_view text) {
    for (const char character : text) write(kData, static_cast<uint8_t>(character));
  }
  // As a driver's interrupt handler: while there is data.
  std::string receive() {
    std::string text;
    while ((read(kLineStatus) & 1) != 0) text.push_back(static_cast<char>(read(kData)));
    return text;
  }

  FakeStream stream_;
  RecordedIrq irq_;
  Uart uart_{"uart0", irq_.line(), &stream_};
};

TEST_F(UartTest, SendsAtOnceAndIsEmptyAgain) {
  send("boot");
  EXPECT_EQ(stream_.written, "boot");
  EXPECT_EQ(read(kLineStatus), 0x60);
}

TEST_F(UartTest, WaitsForRoomAndLosesNothing) {
  stream_.room = 3;
  write(kEnable, 2);
  (void)read(kIdentity);
  send("panic: not syncing");
  EXPECT_EQ(stream_.written, "pan");
  EXPECT_EQ(read(kLineStatus) & 0x60, 0) << "the driver is to wait";
  EXPECT_FALSE(irq_.level());
  stream_.give_room(4);
  EXPECT_EQ(stream_.written, "panic: ");
  stream_.give_room(SIZE_MAX / 2);
  EXPECT_EQ(stream_.written, "panic: not syncing");
  EXPECT_EQ(read(kLineStatus) & 0x60, 0x60);
  EXPECT_TRUE(irq_.level());
}

TEST_F(UartTest, DropsOnlyBeyondTheBacklog) {
  stream_.room = 0;
  for (size_t i = 0; i < Uart::kBacklogSize + 5; ++i) write(kData, 'x');
  EXPECT_EQ(uart_.dropped_count(), 5u);
  stream_.give_room(SIZE_MAX);
  EXPECT_EQ(stream_.written.size(), Uart::kBacklogSize);
}

TEST_F(UartTest, TransmitterInterruptIsToldOnceAndReturnsWhenEnabledAnew) {
  write(kEnable, 2);
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(read(kIdentity), 0x02);
  EXPECT_FALSE(irq_.level());
  EXPECT_EQ(read(kIdentity), 0x01);
  write(kEnable, 0);
  write(kEnable, 2);
  EXPECT_EQ(read(kIdentity), 0x02);
  write(kData, 'x');
  EXPECT_EQ(irq_.take_rises(), 3u);
  EXPECT_EQ(read(kIdentity), 0x02);
}

TEST_F(UartTest, InputWaitsForTheDriverThroughItsClearing) {
  stream_.type("typed before the driver came");
  write(2, 0x07);  // FIFO on, cleared
  (void)read(kLineStatus);
  (void)read(kData);
  (void)read(kIdentity);
  (void)read(kModemStatus);
  EXPECT_FALSE(irq_.level());
  write(kEnable, 5);
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(receive(), "typed before the driver came");
  EXPECT_FALSE(irq_.level());
}

TEST_F(UartTest, APollingDriverGetsItsInputToo) {
  stream_.type("y");
  EXPECT_EQ(read(kLineStatus), 0x60);
  EXPECT_EQ(read(kLineStatus), 0x61);
  EXPECT_EQ(read(kData), 'y');
}

TEST_F(UartTest, TakesNoMoreThanTheFifoHolds) {
  write(2, 0x81);
  write(kEnable, 1);
  stream_.type("0123456789abcdefghij");
  EXPECT_EQ(stream_.typed.size(), 4u);
  EXPECT_EQ(read(kIdentity), 0xC4) << "above the trigger level of 8";
  EXPECT_EQ(read(kData), '0');
  EXPECT_EQ(stream_.typed.size(), 3u);
}

TEST_F(UartTest, BelowTheTriggerLevelTheTimeoutInterrupts) {
  write(2, 0xC1);
  write(kEnable, 1);
  stream_.type("ab");
  EXPECT_EQ(read(kIdentity), 0xCC);
  EXPECT_EQ(receive(), "ab");
  EXPECT_EQ(read(kIdentity), 0xC1);
}

TEST_F(UartTest, WithoutFifoHoldsOneByte) {
  write(kEnable, 1);
  stream_.type("ab");
  EXPECT_EQ(stream_.typed.size(), 1u);
  EXPECT_EQ(read(kIdentity), 0x04);
  EXPECT_EQ(receive(), "ab");
}

// As Linux's autoconfiguration probes: interrupt enable, loopback, scratch, FIFO.
TEST_F(UartTest, IsFoundAsA16550A) {
  write(kEnable, 0xFF);
  EXPECT_EQ(read(kEnable), 0x0F);
  write(kEnable, 0);
  EXPECT_EQ(read(kEnable), 0);
  write(kModemControl, 0x1A);
  EXPECT_EQ(read(kModemStatus) & 0xF0, 0x90);
  write(kModemControl, 0);
  EXPECT_EQ(read(kModemStatus) & 0xF0, 0xB0);
  write(kScratch, 0xA5);
  EXPECT_EQ(read(kScratch), 0xA5);
  write(2, 1);
  EXPECT_EQ(read(kIdentity) & 0xE0, 0xC0);
  write(kLineControl, 0xBF);
  write(2, 0x21);
  EXPECT_EQ(read(kIdentity) & 0xE0, 0xC0) << "not a 16750";
}

TEST_F(UartTest, DivisorIsBehindTheLatch) {
  write(kLineControl, 0x83);
  write(kData, 0x0C);
  write(kEnable, 0x01);
  EXPECT_EQ(read(kData), 0x0C);
  EXPECT_EQ(read(kEnable), 0x01);
  write(kLineControl, 0x03);
  EXPECT_EQ(read(kEnable), 0x00);
  EXPECT_TRUE(stream_.written.empty());
}

TEST_F(UartTest, LoopbackStaysInside) {
  write(2, 1);
  write(kModemControl, 0x10);
  for (int i = 0; i < 17; ++i) write(kData, static_cast<uint8_t>(i));
  EXPECT_TRUE(stream_.written.empty());
  EXPECT_EQ(read(kLineStatus), 0x63) << "the seventeenth overran";
  EXPECT_EQ(read(kLineStatus), 0x61);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(read(kData), i);
  EXPECT_EQ(read(kLineStatus), 0x60);
}

TEST_F(UartTest, ModemChangesInterrupt) {
  write(kEnable, 8);
  write(kModemControl, 0x10);
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(read(kIdentity), 0x00);
  EXPECT_EQ(read(kModemStatus), 0x0B);
  EXPECT_FALSE(irq_.level());
}

TEST_F(UartTest, LineErrorsComeFirst) {
  write(kEnable, 7);
  write(kModemControl, 0x10);
  write(kData, 1);
  write(kData, 2);
  EXPECT_EQ(read(kIdentity), 0x06);
  (void)read(kLineStatus);
  EXPECT_EQ(read(kIdentity), 0x04);
  (void)read(kData);
  EXPECT_EQ(read(kIdentity), 0x02);
}

TEST_F(UartTest, NothingConnectedTakesEverything) {
  Uart lonely("uart3", irq_.line(1), nullptr);
  for (int i = 0; i < 100; ++i) lonely.write_port(kData, 1, 'x');
  EXPECT_EQ(lonely.read_port(kLineStatus, 1), 0x60u);
  EXPECT_EQ(lonely.dropped_count(), 0u);
}

TEST_F(UartTest, RestoresInMidWork) {
  stream_.room = 2;
  write(2, 0x41);
  write(kEnable, 3);
  send("output");
  stream_.type("input");
  FakeStream stream;
  stream.room = 0;
  RecordedIrq irq;
  Uart other("uart0", irq.line(), &stream);
  expect_round_trip(uart_, other);
  EXPECT_TRUE(irq.level());
  stream.give_room(100);
  EXPECT_EQ(stream.written, "tput");
  other.write_port(kScratch, 1, 0);
  EXPECT_EQ(other.read_port(kIdentity, 1), 0xC4u);
  for (const char expected : std::string_view("input"))
    EXPECT_EQ(other.read_port(kData, 1), static_cast<uint32_t>(expected));
  EXPECT_FALSE(restore(other, {}));
}

TEST_F(UartTest, ResetKeepsWhatWasSent) {
  stream_.room = 0;
  send("last words");
  write(kEnable, 3);
  uart_.reset();
  EXPECT_FALSE(irq_.level());
  stream_.give_room(100);
  EXPECT_EQ(stream_.written, "last words");
  (void)read(kIdentity);
  EXPECT_EQ(read(kEnable), 0);
}

}  // namespace
}  // namespace bulkhead::device::legacy
