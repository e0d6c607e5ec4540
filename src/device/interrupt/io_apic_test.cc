#include "device/interrupt/io_apic.h"

#include <gtest/gtest.h>

#include "device/test_wires.h"

namespace bulkhead::device::interrupt {
namespace {

class IoApicTest : public testing::Test {
 protected:
  uint32_t read(uint8_t index) {
    select(index);
    uint32_t value = 0;
    io_apic_.read_mmio(0x10, as_mutable_bytes(value));
    return value;
  }
  void write(uint8_t index, uint32_t value) {
    select(index);
    io_apic_.write_mmio(0x10, as_bytes(value));
  }
  void select(uint32_t index) { io_apic_.write_mmio(0x00, as_bytes(index)); }
  void set_entry(unsigned input, uint32_t low, uint8_t destination = 0) {
    write(static_cast<uint8_t>(0x11 + 2 * input), uint32_t{destination} << 24);
    write(static_cast<uint8_t>(0x10 + 2 * input), low);
  }
  uint32_t low(unsigned input) { return read(static_cast<uint8_t>(0x10 + 2 * input)); }
  size_t take_sent() {
    const size_t count = messages_.sent.size();
    messages_.sent.clear();
    return count;
  }

  RecordedMessages messages_;
  IoApic io_apic_{messages_, 0};
};

TEST_F(IoApicTest, ShowsVersionAndSize) {
  EXPECT_EQ(read(0x01), 0x00170020u);
  EXPECT_EQ(read(0x10), 0x00010000u) << "masked at reset";
  write(0x00, 0x0F000000);
  EXPECT_EQ(read(0x00), 0x0F000000u);
  EXPECT_EQ(read(0x02), 0x0F000000u);
  EXPECT_EQ(read(0x40), 0xFFFFFFFFu);
}

TEST_F(IoApicTest, SendsTheMessageOfItsEntryOnAnEdge) {
  set_entry(4, 0x0931, 0x0F);  // lowest priority, logical
  io_apic_.set_irq(4, true);
  io_apic_.set_irq(4, true);
  ASSERT_EQ(messages_.sent.size(), 1u);
  EXPECT_EQ(messages_.sent[0], (InterruptMessage{.address = 0xFEE0F00C, .data = 0x4131}));
  io_apic_.set_irq(4, false);
  io_apic_.set_irq(4, true);
  EXPECT_EQ(messages_.sent.size(), 2u);
}

TEST_F(IoApicTest, LosesEdgesOnAMaskedInput) {
  set_entry(4, 0x10031);
  io_apic_.set_irq(4, true);
  set_entry(4, 0x31);
  EXPECT_EQ(take_sent(), 0u);
}

TEST_F(IoApicTest, SendsALevelOnceUntilItsEnd) {
  set_entry(10, 0x8041);
  io_apic_.set_irq(10, true);
  EXPECT_EQ(messages_.sent.at(0).data, 0xC041u);
  io_apic_.set_irq(10, false);
  io_apic_.set_irq(10, true);
  EXPECT_EQ(take_sent(), 1u);
  EXPECT_EQ(low(10), 0xC041u) << "remote IRR";
  io_apic_.end_of_interrupt(0x42);
  EXPECT_EQ(take_sent(), 0u);
  io_apic_.end_of_interrupt(0x41);
  EXPECT_EQ(take_sent(), 1u) << "still asserted";
  io_apic_.set_irq(10, false);
  io_apic_.end_of_interrupt(0x41);
  EXPECT_EQ(take_sent(), 0u);
  EXPECT_EQ(low(10), 0x8041u);
}

TEST_F(IoApicTest, TheEndRegisterEndsAsTheBroadcastDoes) {
  set_entry(10, 0x8041);
  io_apic_.set_irq(10, true);
  io_apic_.set_irq(10, false);
  io_apic_.write_mmio(0x40, as_bytes(uint32_t{0x41}));
  EXPECT_EQ(low(10), 0x8041u);
}

TEST_F(IoApicTest, ALevelThatCameWhileMaskedIsSentOnUnmasking) {
  set_entry(10, 0x18041);
  io_apic_.set_irq(10, true);
  EXPECT_EQ(take_sent(), 0u);
  set_entry(10, 0x8041);
  EXPECT_EQ(take_sent(), 1u);
  set_entry(10, 0x18041);
  set_entry(10, 0x8041);
  EXPECT_EQ(take_sent(), 0u) << "remote IRR is read-only and still set";
}

TEST_F(IoApicTest, SwitchingToEdgeModeClearsRemoteIrr) {
  set_entry(10, 0x8041);
  io_apic_.set_irq(10, true);
  set_entry(10, 0x10041);
  set_entry(10, 0x8041);
  EXPECT_EQ(take_sent(), 2u);
}

TEST_F(IoApicTest, TellsTheListenerWhichRouteChanged) {
  struct Listener final : IoApic::RouteListener {
    void route_changed(uint32_t input) override { inputs.push_back(input); }
    std::vector<uint32_t> inputs;
  } listener;
  io_apic_.set_route_listener(&listener);
  set_entry(7, 0x8041, 3);
  EXPECT_EQ(listener.inputs, (std::vector<uint32_t>{7, 7}));
  EXPECT_FALSE(io_apic_.route(7).masked);
  EXPECT_EQ(io_apic_.route(7).message, (InterruptMessage{.address = 0xFEE03000, .data = 0xC041}));
}

TEST_F(IoApicTest, IgnoresInputsAndRegistersThatAreNotThere) {
  io_apic_.set_irq(24, true);
  io_apic_.set_irq(~0u, true);
  write(0xFF, 0);
  std::array<uint8_t, 8> bytes{};
  for (uint64_t offset = 0; offset + 8 <= IoApic::kRegionSize; ++offset) {
    io_apic_.read_mmio(offset, bytes);
    if (offset > 0x40) io_apic_.write_mmio(offset, bytes);
  }
  EXPECT_EQ(take_sent(), 0u);
}

TEST_F(IoApicTest, RestoresInMidWork) {
  set_entry(10, 0x8041, 2);
  set_entry(4, 0x31);
  io_apic_.set_irq(10, true);
  io_apic_.set_irq(4, true);
  RecordedMessages messages;
  IoApic other(messages, 0);
  expect_round_trip(io_apic_, other);
  other.set_irq(4, true);
  EXPECT_TRUE(messages.sent.empty()) << "the line was high already";
  other.end_of_interrupt(0x41);
  EXPECT_EQ(messages.sent.size(), 1u);
}

TEST_F(IoApicTest, RefusesAnEntryWithReservedBits) {
  std::vector<uint8_t> bytes = saved(io_apic_);
  StateWriter writer;
  writer.put("select", 0).put("id", 0).put("asserted", 0);
  for (unsigned i = 0; i < IoApic::kInputCount; ++i)
    writer.put("entry" + std::to_string(i), i == 5 ? 0x20000 : 0x10000);
  EXPECT_EQ(restore(io_apic_, writer.encode()).error().message, "test: entry 5 is 0x20000");
}

TEST_F(IoApicTest, ResetMasksEverything) {
  const auto fresh = saved(io_apic_);
  set_entry(10, 0x8041);
  io_apic_.reset();
  EXPECT_EQ(saved(io_apic_), fresh);
}

}  // namespace
}  // namespace bulkhead::device::interrupt
