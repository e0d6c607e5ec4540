// What the 82574L has besides the 82540EM.
#include <gtest/gtest.h>

#include "device/e1000/testing/e1000_driver.h"
#include "device/test_wires.h"
#include "net/frame/frame_builder.h"

namespace bulkhead::device::e1000 {
namespace {

using namespace spec::e1000;

struct Machine : E1000Machine {
  Machine() : E1000Machine(1500, CardModel::k82574l) {}
  uint16_t capability(uint8_t id) {
    std::array<uint8_t, 256> config{};
    card->read_config(0, config);
    for (uint8_t at = config[spec::pci::kCapabilityPointer]; at != 0; at = config[at + 1u]) {
      if (config[at] == id) return at;
    }
    ADD_FAILURE() << "no capability " << int{id};
    return 0;
  }
  // Vector i sends the data 0x40 + i.
  void enable_msix() {
    const auto table = card->bars().back()->mmio;
    for (uint64_t i = 0; i < kVectorCount; ++i) {
      table->write_mmio(16 * i, as_bytes(uint64_t{0xFEE0'0000}));
      table->write_mmio(16 * i + 8, as_bytes(uint32_t(0x40 + i)));
      table->write_mmio(16 * i + 12, as_bytes(uint32_t{0}));
    }
    write_config(static_cast<uint16_t>(capability(spec::pci::kCapabilityMsix) + spec::pci::kMsixControl), 2,
                 spec::pci::kMsixEnable);
  }
  std::vector<uint32_t> take_messages() { return std::exchange(messages.sent, {}); }
};

using Messages = std::vector<uint32_t>;

TEST(E1000e, IsKnownByItsIdentityItsEepromAndItsPhy) {
  Machine machine;
  EXPECT_EQ(machine.card->identity().device_id, 0x10D3);
  uint16_t sum = 0;
  for (uint32_t i = 0; i < kEepromWords; ++i) {
    machine.write(kEepromRead, i << 2 | kEepromReadStart);
    EXPECT_TRUE(machine.read(kEepromRead) & kEepromReadDone74);
    sum = static_cast<uint16_t>(sum + (machine.read(kEepromRead) >> 16));
  }
  EXPECT_EQ(sum, kEepromSum);
  EXPECT_TRUE(machine.read(kEepromControl) & kEepromLoaded);
  EXPECT_EQ(machine.read_phy(kPhyId2), 0x0CB1);
  // Other pages hide the upper registers, not the lower ones.
  machine.write_phy(kPhyPage, 769);
  EXPECT_EQ(machine.read_phy(kPhySpecificStatus), 0);
  EXPECT_EQ(machine.read_phy(kPhyId2), 0x0CB1);
  machine.write_phy(kPhyPage, 0);
  EXPECT_NE(machine.read_phy(kPhySpecificStatus), 0);
  EXPECT_TRUE(machine.read(kDeviceStatus) & kStatusMaster);
  machine.write(kControl, kControlNoMaster);
  EXPECT_FALSE(machine.read(kDeviceStatus) & kStatusMaster);
  machine.write(kConfigurationOwner, 0x20);
  EXPECT_EQ(machine.read(kConfigurationOwner), 0x20u);
  // The older one has none of its registers.
  E1000Machine older;
  older.write(kConfigurationOwner, 0x20);
  EXPECT_EQ(older.read(kConfigurationOwner), 0u);
}

TEST(E1000e, TellsEachCauseByItsVectorAndClearsIt) {
  Machine machine;
  machine.bring_up();
  machine.enable_msix();
  machine.write(kVectors, (kVectorValid | 2) << 16 | (kVectorValid | 1) << 8 | kVectorValid | 0);
  machine.write(kAutoClear, kCauseReceiveQueue | kCauseTransmitQueue);
  machine.write(kInterruptMaskSet, kCauseReceiveQueue | kCauseTransmitQueue | kCauseOther | kCauseLink);
  machine.write(kInterruptCause, UINT32_MAX);
  (void)machine.take_messages();
  machine.offer(4);
  const auto frame = net::frame::FrameBuilder().ethernet(kOtherMac, kCardMac).payload(std::vector<uint8_t>(64)).build();
  machine.arrive(frame);
  EXPECT_EQ(machine.take_messages(), Messages{0x40});
  machine.arrive(frame);
  EXPECT_EQ(machine.take_messages(), Messages{0x40});
  machine.add_data(frame, kTransmitEnd | kTransmitInsertFcs | kTransmitReport);
  machine.kick();
  EXPECT_EQ(machine.take_messages(), Messages{0x41});
  machine.port.up = false;
  machine.port.listener();
  machine.worker->run();
  EXPECT_EQ(machine.take_messages(), Messages{0x42});
  // Not cleared by itself, it is told once until it is read.
  machine.port.up = true;
  machine.port.listener();
  machine.worker->run();
  EXPECT_EQ(machine.take_messages(), Messages{});
  EXPECT_TRUE(machine.read(kInterruptCause) & kCauseLink);
  machine.write(kInterruptCauseSet, kCauseLink);
  EXPECT_EQ(machine.take_messages(), Messages{0x42});
  EXPECT_FALSE(machine.irq.level());
  // A vector that there is not is lost.
  machine.write(kVectors, kVectorValid | 7);
  machine.arrive(frame);
  EXPECT_EQ(machine.take_messages(), Messages{});
}

TEST(E1000e, AVectorIsHeldByItsThrottle) {
  Machine machine;
  machine.bring_up();
  machine.enable_msix();
  machine.write(kVectors, kVectorValid | 3);
  machine.write(kVectorThrottles + 4 * 3, 1000);  // 256 us
  machine.write(kAutoClear, kCauseReceiveQueue);
  machine.write(kInterruptMaskSet, kCauseReceiveQueue);
  for (unsigned microsecond = 0; microsecond < 10'000; ++microsecond) {
    machine.write(kInterruptCauseSet, kCauseReceiveQueue);
    machine.clock.advance(1000);
  }
  EXPECT_EQ(machine.take_messages(), Messages(40, 0x43));
}

TEST(E1000e, MasksByItselfWhatWasReadAndSaysThatItInterrupted) {
  Machine machine;
  machine.write(kControlExtended, kControlExtendedAutoMask);
  machine.write(kAutoMask, UINT32_MAX);
  machine.write(kInterruptMaskSet, kCauseLink);
  machine.write(kInterruptCauseSet, kCauseReceived);
  // Not for this: it stays.
  EXPECT_EQ(machine.read(kInterruptCause), kCauseReceived);
  EXPECT_EQ(machine.read(kInterruptCause), kCauseReceived);
  machine.write(kInterruptCauseSet, kCauseLink);
  EXPECT_TRUE(machine.irq.level());
  EXPECT_EQ(machine.read(kInterruptCause), kCauseAsserted | kCauseLink | kCauseReceived);
  EXPECT_FALSE(machine.irq.level());
  EXPECT_EQ(machine.read(kInterruptMaskSet), 0u);
  EXPECT_EQ(machine.read(kInterruptCause), 0u);
}

TEST(E1000e, SendsOneMessageForEachTimeThatThePinWouldRise) {
  Machine machine;
  machine.write_config(spec::pci::kCommand, 2, spec::pci::kCommandMemory | spec::pci::kCommandBusMaster);
  const uint16_t at = machine.capability(spec::pci::kCapabilityMsi);
  machine.write_config(static_cast<uint16_t>(at + spec::pci::kMsiAddressLow), 4, 0xFEE0'0000);
  machine.write_config(static_cast<uint16_t>(at + spec::pci::kMsiData), 2, 0x55);
  machine.write_config(static_cast<uint16_t>(at + spec::pci::kMsiControl), 2, spec::pci::kMsiEnable);
  machine.write(kInterruptMaskSet, kCauses);
  machine.write(kInterruptCauseSet, kCauseLink);
  machine.write(kInterruptCauseSet, kCauseReceived);
  EXPECT_EQ(machine.take_messages(), Messages{0x55});
  EXPECT_FALSE(machine.irq.level());
  (void)machine.read(kInterruptCause);
  machine.write(kInterruptCauseSet, kCauseReceived);
  EXPECT_EQ(machine.take_messages(), Messages{0x55});
}

TEST(E1000e, GivesExtendedDescriptorsBack) {
  Machine machine;
  machine.bring_up(3u << kReceiveBufferShift | kReceiveStripChecksum);
  machine.write(kReceiveFilter, kFilterExtended);
  machine.write(kReceiveChecksum, kChecksumIpv4 | kChecksumTransport);
  machine.offer(4);
  auto frame = net::frame::FrameBuilder()
                   .ethernet(kOtherMac, kCardMac)
                   .ipv4("10.0.0.1", "10.0.0.2")
                   .udp(1, 2)
                   .payload(std::vector<uint8_t>(300, 1))
                   .build();
  ++frame.back();
  machine.arrive(frame);
  const auto back = [&](uint32_t index) {
    return *machine.memory->read_object<ExtendedWriteBack>({E1000Machine::kReceiveRing + 16 * index});
  };
  EXPECT_EQ(back(0).status, kReceiveDone);
  EXPECT_EQ(back(0).length, 256);
  EXPECT_EQ(back(1).status, uint32_t{kReceiveTransportError} << 24 | kReceiveDone | kReceiveEnd | kReceiveIpChecked |
                                kReceiveTransportChecked);
  EXPECT_EQ(back(1).length, frame.size() - 256);
  EXPECT_EQ(back(2).status, 0u);
}

TEST(E1000e, SpreadsAFrameOverTheBuffersOfASplitDescriptor) {
  Machine machine;
  machine.bring_up();
  machine.write(kReceiveFilter, kFilterExtended);
  // 128 bytes, then 1 KiB, nothing, and 2 KiB: of four descriptors.
  machine.write(kSplitControl, 1 | 1 << 8 | 2 << 24);
  machine.write(kReceiveControl, kReceiveEnable | kReceiveSplit | kReceiveStripChecksum);
  const SplitDescriptor descriptor{{0x40'0000, 0x41'0000, 0x42'0000, 0xFEB0'0000}};
  for (uint64_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(machine.memory->write_object({E1000Machine::kReceiveRing + 32 * i}, descriptor));
  }
  // Head and tail count 16 bytes each, two of them a descriptor.
  machine.write(kReceiveTail, 6);
  auto frame = net::frame::FrameBuilder().ethernet(kOtherMac, kCardMac).build();
  frame.resize(1500, 7);
  machine.arrive(frame);
  uint64_t at = E1000Machine::kReceiveRing;
  auto back = *machine.memory->read_object<ExtendedWriteBack>({at});
  EXPECT_EQ(back.status & (kReceiveDone | kReceiveEnd), kReceiveDone | kReceiveEnd);
  EXPECT_EQ(back.length, 128);
  EXPECT_EQ((*machine.memory->read_object<std::array<uint16_t, 4>>({at + 16})),
            (std::array<uint16_t, 4>{0, 1024, 0, 1500 - 128 - 1024}));
  std::vector<uint8_t> bytes(1024);
  ASSERT_TRUE(machine.memory->read({0x41'0000}, bytes));
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), frame.begin() + 128));
  EXPECT_EQ(machine.read(kReceiveHead), 2u);
  // What is larger than the buffers of one goes on in the next.
  machine.write(kSplitControl, 1 | 1 << 8);
  machine.arrive(frame);
  at += 32;
  back = *machine.memory->read_object<ExtendedWriteBack>({at});
  EXPECT_EQ(back.status & (kReceiveDone | kReceiveEnd), kReceiveDone);
  back = *machine.memory->read_object<ExtendedWriteBack>({at + 32});
  EXPECT_EQ(back.status & (kReceiveDone | kReceiveEnd), kReceiveDone | kReceiveEnd);
  EXPECT_EQ(back.length, 128);
  EXPECT_EQ((*machine.memory->read_object<std::array<uint16_t, 4>>({at + 48})),
            (std::array<uint16_t, 4>{0, 1500 - 128 - 1024 - 128, 0, 0}));
  EXPECT_EQ(machine.read(kReceiveHead), 6u);
  EXPECT_EQ(machine.card->counters().received_frames, 2u);
  // The last place of the ring begins no descriptor.
  machine.write(kReceiveHead, 7);
  machine.arrive(frame);
  EXPECT_EQ(machine.card->counters().received_frames, 2u);
  // The end of the ring leads to its beginning; buffers without room hold no frame.
  machine.write(kReceiveHead, 6);
  machine.write(kReceiveTail, 4);
  machine.worker->run();
  EXPECT_EQ(machine.card->counters().received_frames, 3u);
  EXPECT_EQ(machine.read(kReceiveHead), 2u);
  machine.write(kSplitControl, 0);
  machine.arrive(frame);
  EXPECT_EQ(machine.card->counters().too_large_frames, 1u);
  EXPECT_EQ(machine.card->counters().received_frames, 3u);
}

TEST(E1000e, SavesWhatADriverHasSetUp) {
  Machine machine, other;
  machine.bring_up();
  machine.enable_msix();
  machine.write(kVectors, kVectorValid | 1);
  machine.write(kVectorThrottles, 400);
  machine.offer(4);
  expect_round_trip(*machine.card, *other.card);
  E1000Machine older;
  EXPECT_FALSE(restore(*older.card, saved(*machine.card)));
}

}  // namespace
}  // namespace bulkhead::device::e1000
