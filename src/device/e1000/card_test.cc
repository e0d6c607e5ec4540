#include "device/e1000/card.h"

#include <gtest/gtest.h>

#include "device/e1000/testing/e1000_driver.h"
#include "device/test_wires.h"
#include "net/frame/frame_builder.h"

namespace bulkhead::device::e1000 {
namespace {

using namespace spec::e1000;
using Machine = E1000Machine;
using Frames = std::vector<std::vector<uint8_t>>;

std::vector<uint8_t> frame_to(const net::frame::MacAddress& to, size_t size, uint8_t seed = 1) {
  std::vector<uint8_t> frame = net::frame::FrameBuilder().ethernet(kOtherMac, to).build();
  frame.resize(size);
  for (size_t i = 14; i < size; ++i) frame[i] = static_cast<uint8_t>(seed + i * 7);
  return frame;
}

// ---- EEPROM and PHY ----

// As a driver does it on the four wires: select, start bit, operation, address, sixteen bits.
std::vector<uint16_t> read_by_wires(Machine& machine, unsigned address, unsigned count) {
  const auto clock = [&](bool in) {
    const uint32_t level = kEepromSelect | (in ? kEepromIn : 0);
    machine.write(kEepromControl, level);
    machine.write(kEepromControl, level | kEepromClock);
    const bool out = (machine.read(kEepromControl) & kEepromOut) != 0;
    machine.write(kEepromControl, level);
    return out;
  };
  machine.write(kEepromControl, 0);
  machine.write(kEepromControl, kEepromSelect);
  for (int bit = 8; bit >= 0; --bit) (void)clock(((0b110u << 6 | address) >> bit & 1) != 0);
  std::vector<uint16_t> words;
  for (unsigned i = 0; i < count; ++i) {
    uint16_t word = 0;
    for (int bit = 0; bit < 16; ++bit) word = static_cast<uint16_t>(word << 1 | (clock(false) ? 1 : 0));
    words.push_back(word);
  }
  machine.write(kEepromControl, 0);
  return words;
}

TEST(E1000, HasItsAddressAndAChecksumInTheEeprom) {
  Machine machine;
  std::vector<uint16_t> words;
  uint16_t sum = 0;
  for (uint32_t i = 0; i < kEepromWords; ++i) {
    machine.write(kEepromRead, i << 8 | kEepromReadStart);
    const uint32_t answer = machine.read(kEepromRead);
    EXPECT_TRUE(answer & kEepromReadDone);
    words.push_back(static_cast<uint16_t>(answer >> 16));
    sum = static_cast<uint16_t>(sum + words.back());
  }
  EXPECT_EQ(sum, kEepromSum);
  EXPECT_EQ(words[0], 0x0002);
  EXPECT_EQ(words[1], 0x1200);
  EXPECT_EQ(words[2], 0x5634);
  EXPECT_EQ(words[kEepromVendor], 0x8086);
  EXPECT_EQ(read_by_wires(machine, 0, 3), std::vector<uint16_t>(words.begin(), words.begin() + 3));
  EXPECT_EQ(read_by_wires(machine, 63, 2), (std::vector<uint16_t>{words[63], words[0]}));
  machine.write(kEepromControl, kEepromRequest);
  EXPECT_TRUE(machine.read(kEepromControl) & kEepromGrant);
  // Behind the last there is nothing.
  machine.write(kEepromRead, 200 << 8 | kEepromReadStart);
  EXPECT_EQ(machine.read(kEepromRead) >> 16, 0u);
  EXPECT_EQ(machine.read(kReceiveAddresses), 0x1200'0002u);
  EXPECT_EQ(machine.read(kReceiveAddresses + 4), 0x8000'5634u);
}

TEST(E1000, ThePhySaysWhetherThereIsALink) {
  Machine machine;
  EXPECT_EQ(machine.read_phy(kPhyId1), 0x0141);
  EXPECT_EQ(machine.read_phy(kPhyId2) & 0xFFF0, 0x0C20);
  EXPECT_EQ(machine.read_phy(kPhyStatus) & 0x24, 0x24);
  EXPECT_TRUE(machine.read(kDeviceStatus) & kStatusLinkUp);
  machine.bring_up();
  machine.port.up = false;
  machine.port.listener();
  machine.worker->run();
  EXPECT_TRUE(machine.irq.level());
  EXPECT_EQ(machine.read(kInterruptCause) & kCauseLink, kCauseLink);
  EXPECT_FALSE(machine.irq.level());
  EXPECT_FALSE(machine.read(kDeviceStatus) & kStatusLinkUp);
  EXPECT_EQ(machine.read_phy(kPhyStatus) & 0x24, 0);
  EXPECT_EQ(machine.read_phy(kPhySpecificStatus), 0);
  // Nobody is at address 2.
  machine.write(kMdiControl, kPhyId1 << 16 | 2u << 21 | 2u << 26);
  EXPECT_TRUE(machine.read(kMdiControl) & kMdiError);
  machine.write_phy(kPhyAdvertised, 0x0001);
  EXPECT_EQ(machine.read_phy(kPhyAdvertised), 0x0001);
  machine.write_phy(kPhyControl, kPhyReset);
  EXPECT_EQ(machine.read_phy(kPhyControl), 0x1140);
  EXPECT_EQ(machine.read_phy(kPhyAdvertised), 0x0DE1);
}

// ---- Interrupts ----

TEST(E1000, RaisesWhatIsNotMaskedAndForgetsWhatWasRead) {
  Machine machine;
  machine.write(kInterruptCauseSet, kCauseLink);
  EXPECT_FALSE(machine.irq.level());
  machine.write(kInterruptMaskSet, kCauseLink);
  EXPECT_TRUE(machine.irq.level());
  machine.write(kInterruptMaskClear, kCauseLink);
  EXPECT_FALSE(machine.irq.level());
  EXPECT_EQ(machine.read(kInterruptCause), kCauseLink);
  EXPECT_EQ(machine.read(kInterruptCause), 0u);
  // Every cause that there is, and no other bit.
  machine.write(kInterruptCauseSet, UINT32_MAX);
  EXPECT_EQ(machine.read(kInterruptCause), kCauses);
}

TEST(E1000, InterruptsAsOftenAsTheThrottleAllows) {
  Machine machine;
  machine.write(kInterruptThrottle, 1000);  // 256 us
  machine.write(kInterruptMaskSet, kCauses);
  unsigned interrupts = 0;
  for (unsigned microsecond = 0; microsecond < 10'000; ++microsecond) {
    machine.write(kInterruptCauseSet, kCauseReceived);
    if (machine.irq.level()) {
      ++interrupts;
      EXPECT_EQ(machine.read(kInterruptCause), kCauseReceived);
    }
    machine.clock.advance(1000);
  }
  EXPECT_EQ(interrupts, 40u);
  // Nothing wakes the host for a cause that the driver has taken.
  machine.write(kInterruptMaskClear, kCauses);
  EXPECT_EQ(machine.clock.armed_count(), 0u);
}

// ---- Access ----

TEST(E1000, AnswersTheSameInMemoryAndThroughItsPorts) {
  Machine machine;
  machine.card->write_port(0, 4, kVlanType);
  EXPECT_EQ(machine.card->read_port(0, 4), kVlanType);
  EXPECT_EQ(machine.card->read_port(4, 4), 0x8100u);
  machine.card->write_port(4, 4, 0x88A8);
  EXPECT_EQ(machine.read(kVlanType), 0x88A8u);
  machine.card->write_port(0, 4, UINT32_MAX);
  EXPECT_LT(machine.card->read_port(0, 4), Card::kBarSize);
  (void)machine.card->read_port(4, 4);
  // Of every width and place; a register changes by whole doublewords alone.
  for (uint64_t offset = 0; offset + 8 <= Card::kBarSize; offset += offset < 0x6000 ? 1 : 61) {
    for (const size_t width : {1, 2, 4, 8}) {
      std::array<uint8_t, 8> bytes{};
      machine.card->read_mmio(offset, MutableByteSpan(bytes).first(width));
    }
  }
  const uint8_t byte = 1;
  machine.card->write_mmio(kVlanType, as_bytes(byte));
  machine.card->write_mmio(kVlanType + 1, as_bytes(uint32_t{7}));
  EXPECT_EQ(machine.read(kVlanType), 0x88A8u);
}

TEST(E1000, StatisticsAreGoneOnceRead) {
  Machine machine;
  machine.bring_up();
  machine.offer(4);
  machine.arrive(frame_to(kCardMac, 200));
  machine.arrive(frame_to(net::frame::MacAddress::broadcast(), 60));
  const auto take = [&](uint8_t statistic) { return machine.read(kStatistics + 4u * statistic); };
  EXPECT_EQ(take(kGoodReceived), 2u);
  EXPECT_EQ(take(kGoodReceived), 0u);
  EXPECT_EQ(take(kBroadcastReceived), 1u);
  EXPECT_EQ(take(kGoodOctetsReceived), 204u + 64u);
  EXPECT_EQ(take(kPacketsReceived64), 1u);
  EXPECT_EQ(take(kPacketsReceived64 + 2), 1u);
}

// ---- Life ----

TEST(E1000, AResetForgetsTheDriverAtEveryMoment) {
  Machine machine;
  const auto whole = frame_to(kOtherMac, 100);
  for (unsigned moment = 0; moment < 4; ++moment) {
    machine.bring_up();
    machine.port.room = 0;
    if (moment == 1) machine.add_data(ByteSpan(whole).first(50), 0);              // half a frame
    if (moment == 2) machine.add_data(whole, kTransmitEnd | kTransmitInsertFcs);  // one that waits for room
    if (moment == 3) machine.arrive(frame_to(kCardMac, 100));                     // one that waits for a buffer
    if (moment != 3) machine.kick();
    if (moment % 2 == 0) {
      machine.write(kControl, kControlReset);
    } else {
      machine.card->write_port(0, 4, kControl);
      machine.card->write_port(4, 4, kControlReset);
    }
    EXPECT_FALSE(machine.irq.level());
    EXPECT_EQ(machine.read(kTransmitControl), 0u);
    EXPECT_EQ(machine.read(kInterruptMaskSet), 0u);
    EXPECT_EQ(machine.read(kReceiveAddresses), 0x1200'0002u);
    EXPECT_EQ(machine.read(kControl) & kControlReset, 0u);
    // Nothing of before comes out afterwards.
    machine.port.room = SIZE_MAX;
    machine.port.listener();
    machine.worker->run();
    machine.bring_up();
    machine.offer(4);
    machine.add_data(whole, kTransmitEnd | kTransmitInsertFcs);
    machine.kick();
    EXPECT_EQ(machine.port.sent, Frames{whole}) << moment;
    EXPECT_EQ(machine.received(0).status, 0) << moment;
    machine.port.sent.clear();
    machine.card->reset();
    EXPECT_TRUE(machine.card->mappings().empty());
  }
}

TEST(E1000, SavesWhatADriverHasSetUpAndHalfAFrame) {
  Machine machine, other;
  const auto frame = frame_to(kOtherMac, 300);
  machine.bring_up();
  machine.offer(4);
  machine.write(kInterruptThrottle, 400);
  machine.add_data(ByteSpan(frame).first(100), 0);
  machine.kick();
  machine.arrive(frame_to(kCardMac, 80));
  ASSERT_TRUE(machine.irq.level());
  expect_round_trip(*machine.card, *other.card);
  EXPECT_TRUE(other.irq.level());
  // Memory goes along.
  std::vector<uint8_t> ram(memory::GuestMemory::kMinimumSize);
  ASSERT_TRUE(machine.memory->read({0}, ram));
  ASSERT_TRUE(other.memory->write({0}, ram));
  other.transmit_tail = machine.transmit_tail;
  other.add_data(ByteSpan(frame).subspan(100), kTransmitEnd | kTransmitInsertFcs);
  other.kick();
  EXPECT_EQ(other.port.sent, Frames{frame});
}

TEST(E1000, AFrameThatWaitedForRoomIsLostBySaving) {
  Machine machine, other;
  machine.bring_up();
  machine.port.room = 0;
  machine.add_data(frame_to(kOtherMac, 300), kTransmitEnd | kTransmitInsertFcs | kTransmitReport);
  machine.kick();
  EXPECT_EQ(machine.transmit_status(0), 0);
  const auto bytes = saved(*machine.card);
  std::vector<uint8_t> ram(memory::GuestMemory::kMinimumSize);
  ASSERT_TRUE(machine.memory->read({0}, ram));
  ASSERT_TRUE(other.memory->write({0}, ram));
  ASSERT_TRUE(restore(*other.card, bytes));
  other.worker->run();
  EXPECT_TRUE(other.port.sent.empty());
  EXPECT_EQ(other.transmit_status(0), kTransmitDone);
  EXPECT_EQ(other.read(kTransmitHead), 1u);
}

TEST(E1000, RefusesStateThatCannotBe) {
  Machine machine;
  machine.bring_up();
  const auto good = saved(*machine.card);
  const auto refuses = [&](std::string_view name, size_t at, uint32_t value) {
    auto bytes = good;
    const auto found = std::search(bytes.begin(), bytes.end(), name.begin(), name.end());
    EXPECT_NE(found, bytes.end()) << name;
    for (size_t guess = 0; guess < 16; ++guess) {
      auto changed = bytes;
      store(&changed[static_cast<size_t>(found - bytes.begin()) + name.size() + guess + at], value);
      Machine other;
      if (!restore(*other.card, changed)) return true;
    }
    return false;
  };
  EXPECT_TRUE(refuses("mac", 0, UINT32_MAX));
  EXPECT_TRUE(refuses("registers", 32, UINT32_MAX));
  EXPECT_TRUE(refuses("eeprom_wires", 0, UINT32_MAX));
  EXPECT_TRUE(refuses("assembly", 0, UINT32_MAX));
  Machine jumbo(9000);
  EXPECT_FALSE(restore(*jumbo.card, good));
}

}  // namespace
}  // namespace bulkhead::device::e1000
