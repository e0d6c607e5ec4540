#include "device/legacy/debug_ports/debug_ports.h"

#include <gtest/gtest.h>

#include "device/test_wires.h"

namespace bulkhead::device::legacy {
namespace {

struct NarrowStream final : console::ByteStream {
  size_t write(ByteSpan bytes) override {
    const size_t count = std::min(bytes.size(), room);
    written.append(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count));
    room -= count;
    return count;
  }
  size_t read(MutableByteSpan) override { return 0; }
  void set_listener(std::function<void()> on_ready) override { listener = std::move(on_ready); }
  std::string written;
  size_t room = 3;
  std::function<void()> listener;
};

TEST(PostCodePort, RemembersTheLastCode) {
  PostCodePort port;
  port.write_port(0, 2, 0xAA55);
  EXPECT_EQ(port.code(), 0x55);
  EXPECT_EQ(port.read_port(0, 1), 0x55u);
  PostCodePort other;
  expect_round_trip(port, other);
  other.reset();
  EXPECT_EQ(other.code(), 0);
}

TEST(DebugConsole, PassesBytesOnAndKeepsWhatFindsNoRoom) {
  NarrowStream stream;
  DebugConsole port(&stream);
  EXPECT_EQ(port.read_port(0, 1), 0xE9u);
  for (const char character : std::string_view("hello")) port.write_port(0, 1, static_cast<uint8_t>(character));
  EXPECT_EQ(stream.written, "hel");
  NarrowStream other_stream;
  other_stream.room = 0;
  DebugConsole other(&other_stream);
  expect_round_trip(port, other);
  other_stream.room = 10;
  other_stream.listener();
  EXPECT_EQ(other_stream.written, "lo");
}

TEST(DebugConsole, WorksUnconnected) {
  DebugConsole port(nullptr);
  port.write_port(0, 4, 0x64636261);
  EXPECT_EQ(port.read_port(0, 1), 0xE9u);
}

TEST(DebugExit, EndsWithTwiceTheValuePlusOne) {
  RecordedPower power;
  DebugExit port(power);
  port.write_port(0, 4, 0x10);
  port.write_port(0, 1, 0xFF);
  EXPECT_EQ(power.exits, (std::vector<uint8_t>{0x21, 0xFF}));
}

TEST(SystemControlPort, ResetsOnTheRiseOfBitZero) {
  RecordedPower power;
  SystemControlPort port(power);
  EXPECT_EQ(port.read_port(0, 1), 2u);
  port.write_port(0, 1, 0x00);
  port.write_port(0, 1, 0x03);
  port.write_port(0, 1, 0x03);
  EXPECT_EQ(power.reset_count, 1);
  SystemControlPort other(power);
  expect_round_trip(port, other);
  other.write_port(0, 1, 0x03);
  EXPECT_EQ(power.reset_count, 1);
}

}  // namespace
}  // namespace bulkhead::device::legacy
