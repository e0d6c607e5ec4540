// The rings of the card, as a driver uses them and as a hostile one does.
#include <gtest/gtest.h>

#include "device/e1000/testing/e1000_driver.h"
#include "net/frame/big_endian.h"
#include "net/frame/checksum.h"
#include "net/frame/frame_builder.h"

namespace bulkhead::device::e1000 {
namespace {

using namespace spec::e1000;
using Machine = E1000Machine;
using Frames = std::vector<std::vector<uint8_t>>;
using net::frame::FrameBuilder, net::frame::MacAddress, net::frame::Offload, net::frame::store_big16;

constexpr uint8_t kLast = kTransmitEnd | kTransmitInsertFcs | kTransmitReport;
constexpr uint8_t kMore = kTransmitInsertFcs;

std::vector<uint8_t> frame_to(const MacAddress& to, size_t size, uint8_t seed = 1) {
  std::vector<uint8_t> frame = FrameBuilder().ethernet(kOtherMac, to).build();
  frame.resize(size);
  for (size_t i = 14; i < size; ++i) frame[i] = static_cast<uint8_t>(seed + i * 7);
  return frame;
}

FrameBuilder packet(bool from_card = true) {
  return FrameBuilder()
      .ethernet(from_card ? kCardMac : kOtherMac, from_card ? kOtherMac : kCardMac)
      .ipv4("10.0.0.1", "10.0.0.2");
}

bool is_right(ByteSpan frame) {
  const auto headers = net::frame::read_headers(frame);
  if (headers.fault != net::frame::Fault::kNone || !headers.ip) return false;
  return net::frame::Checksum()
             .add_pseudo_header(headers.ip->source, headers.ip->destination, headers.ip->protocol,
                                static_cast<uint32_t>(headers.ip->payload_size))
             .add(frame.subspan(headers.ip->payload_offset, headers.ip->payload_size))
             .value() == 0;
}

// ---- To the network ----

TEST(E1000Transmit, SendsFramesOfOneAndOfManyDescriptors) {
  Machine machine;
  machine.bring_up();
  for (unsigned round = 0; round < 50; ++round) {
    const auto frame = frame_to(kOtherMac, 60 + 20 * round, static_cast<uint8_t>(round));
    const size_t cut = 20 + round % 40;
    machine.add_data(ByteSpan(frame).first(cut), kMore);
    machine.add_data(ByteSpan(frame).subspan(cut), kLast);
    machine.kick();
    ASSERT_EQ(machine.port.sent.size(), round + 1);
    ASSERT_EQ(machine.port.sent.back(), frame);
    EXPECT_EQ(machine.transmit_status((machine.transmit_tail + 7) % 8), kTransmitDone);
    EXPECT_EQ(machine.transmit_status((machine.transmit_tail + 6) % 8), 0);
    EXPECT_EQ(machine.read(kTransmitHead), machine.transmit_tail);
    EXPECT_EQ(machine.read(kInterruptCause), kCauseTransmitted | kCauseTransmitEmpty);
  }
  EXPECT_EQ(machine.card->counters().sent_frames, 50u);
}

TEST(E1000Transmit, TakesOffACheckSequenceThatTheDriverBrought) {
  Machine machine;
  machine.bring_up();
  const auto frame = frame_to(kOtherMac, 100);
  machine.add_data(frame, kTransmitEnd);
  machine.kick();
  EXPECT_EQ(machine.port.sent, Frames{std::vector(frame.begin(), frame.end() - 4)});
}

TEST(E1000Transmit, MakesChecksumsOfBothKinds) {
  Machine machine;
  machine.bring_up();
  const auto whole = packet().udp(1, 2).payload("checksums").build();
  // A legacy descriptor names one place; what stands there is the pseudo header's sum.
  auto frame = whole;
  const uint16_t pseudo = net::frame::Checksum()
                              .add_pseudo_header(net::frame::IpAddress::parse("10.0.0.1").value(),
                                                 net::frame::IpAddress::parse("10.0.0.2").value(), 17, 17)
                              .value();
  store_big16(&frame[40], static_cast<uint16_t>(~pseudo));
  (void)machine.memory->write({Machine::kSent}, frame);
  machine.add(
      {.address = Machine::kSent,
       .command = static_cast<uint32_t>(frame.size()) | 40u << 16 | uint32_t{kLast | kTransmitInsertChecksum} << 24,
       .status = 34u << 8});
  machine.kick();
  ASSERT_EQ(machine.port.sent.size(), 1u);
  EXPECT_EQ(machine.port.sent[0], whole);
  EXPECT_TRUE(machine.port.sent_offloads[0].is_whole());
  // An extended one has a context: the IP header's sum is made, the other left open to whoever can do without.
  store_big16(&frame[24], 0);
  machine.add_context(14, 34, 40, 0);
  machine.add_data(frame, kLast | kTransmitExtended, kOptionIpChecksum | kOptionTransportChecksum);
  machine.kick();
  ASSERT_EQ(machine.port.sent.size(), 2u);
  Offload offload = machine.port.sent_offloads[1];
  EXPECT_EQ(offload, (Offload{.is_checksum_open = true, .checksum_start = 34, .checksum_offset = 6}));
  net::frame::complete(machine.port.sent[1], offload);
  EXPECT_EQ(machine.port.sent[1], whole);
}

TEST(E1000Transmit, CutsAStreamIntoSegmentsOfItsContext) {
  for (const bool tagged : {false, true}) {
    Machine machine;
    machine.bring_up();
    machine.write(kControl, kControlVlanMode);
    std::vector<uint8_t> payload(5000);
    for (size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<uint8_t>(i / 3);
    auto frame = packet().tcp(1, 2, net::frame::kTcpAcknowledge, 1000).payload(payload).build();
    // As a driver leaves it: no length, no checksum, a pseudo header without a length.
    store_big16(&frame[16], 0);
    store_big16(&frame[24], 0);
    store_big16(&frame[50], 0x1234);
    machine.add_context(14, 34, 50, kTransmitSegment | kContextTcp | kContextIpv4, 1400, 54);
    const uint8_t more = kTransmitExtended | kTransmitSegment | (tagged ? kTransmitVlan : 0);
    machine.add_data(ByteSpan(frame).first(54), more, kOptionIpChecksum | kOptionTransportChecksum, 42);
    machine.add_data(ByteSpan(frame).subspan(54), more | kLast, 0, 42);
    machine.kick();
    ASSERT_EQ(machine.port.sent.size(), 1u);
    EXPECT_EQ(machine.port.sent_offloads[0].segment_size, 1400);
    std::vector<uint8_t> stream;
    net::frame::for_each_piece(machine.port.sent[0], machine.port.sent_offloads[0], [&](ByteSpan piece) {
      EXPECT_TRUE(is_right(piece));
      const auto headers = net::frame::read_headers(piece);
      EXPECT_EQ(headers.vlan_tag_count, tagged ? 1 : 0);
      EXPECT_EQ(headers.vlan_tags[0].id, tagged ? 42 : 0);
      EXPECT_EQ(headers.tcp->sequence, 1000 + stream.size());
      const ByteSpan part = piece.subspan(headers.transport_payload_offset, headers.transport_payload_size);
      stream.insert(stream.end(), part.begin(), part.end());
      return true;
    });
    EXPECT_EQ(stream, payload);
    EXPECT_EQ(machine.read(kStatistics + 4u * kSegmentationContexts), 1u);
  }
}

TEST(E1000Transmit, KeepsTheFrameThatThePortHasNoRoomFor) {
  Machine machine;
  machine.bring_up();
  machine.port.room = 1;
  const auto first = frame_to(kOtherMac, 100, 1), second = frame_to(kOtherMac, 110, 2),
             third = frame_to(kOtherMac, 120, 3);
  for (const auto* each : {&first, &second, &third}) machine.add_data(*each, kLast);
  machine.kick();
  EXPECT_EQ(machine.port.sent, Frames{first});
  EXPECT_EQ(machine.read(kTransmitHead), 1u);
  // And waits without turning.
  EXPECT_EQ(machine.worker->run(), 0u);
  machine.port.room = SIZE_MAX;
  machine.port.listener();
  machine.worker->run();
  EXPECT_EQ(machine.port.sent, (Frames{first, second, third}));
  EXPECT_EQ(machine.read(kTransmitHead), 3u);
}

TEST(E1000Transmit, LosesWhatMakesNoSenseAndGoesOn) {
  Machine machine;
  machine.bring_up();
  const auto good = frame_to(kOtherMac, 100);
  unsigned refused = 0;
  const auto loses = [&](auto&& add) {
    add();
    machine.kick();
    EXPECT_EQ(machine.card->counters().refused_frames, ++refused);
    EXPECT_TRUE(machine.port.sent.empty());
    machine.add_data(good, kLast);
    machine.kick();
    EXPECT_EQ(std::exchange(machine.port.sent, {}), Frames{good});
  };
  loses([&] { machine.add_data(ByteSpan(good).first(13), kLast); });
  loses([&] { machine.add_data({}, kLast); });
  loses([&] { machine.add_data(std::vector<uint8_t>(1523), kLast); });
  // Where no RAM is: at the end of it, and in the card's own registers.
  for (const uint64_t address : {memory::GuestMemory::kMinimumSize - 50, uint64_t{0xFEB0'0000}, UINT64_MAX - 10}) {
    loses([&] { machine.add({.address = address, .command = 100 | uint32_t{kLast} << 24}); });
  }
  // Segments of nothing, of no TCP, of a size that is none, and with headers that lie elsewhere.
  const auto stream = packet().tcp(1, 2, net::frame::kTcpAcknowledge).payload(std::vector<uint8_t>(3000)).build();
  const uint8_t segment = kLast | kTransmitExtended | kTransmitSegment;
  constexpr uint8_t kTcp4 = kTransmitSegment | kContextTcp | kContextIpv4;
  const auto segments = [&](uint8_t ip, uint8_t command, uint16_t size, ByteSpan frame) {
    machine.add_context(ip, 34, 50, command, size, 54);
    machine.add_data(frame, segment);
  };
  loses([&] { segments(14, kTcp4, 0, stream); });
  loses([&] { segments(14, kTcp4, 9000, stream); });
  loses([&] { segments(14, kTransmitSegment | kContextIpv4, 1400, stream); });
  loses([&] { segments(14, kTransmitSegment | kContextTcp, 1400, stream); });
  loses([&] { segments(255, kTcp4, 1400, ByteSpan(stream).first(200)); });
  loses([&] { segments(14, kTcp4, 1400, ByteSpan(stream).first(54)); });
  loses([&] { segments(14, kTcp4, 1, stream); });
}

TEST(E1000Transmit, AFrameWithoutAnEndNeitherGrowsNorStops) {
  Machine machine;
  machine.bring_up();
  const std::vector<uint8_t> piece(60'000);
  for (unsigned round = 0; round < 100; ++round) {
    machine.add_data(piece, kMore);
    machine.kick();
  }
  machine.add_data(piece, kLast);
  machine.kick();
  EXPECT_EQ(machine.card->counters().refused_frames, 1u);
  const auto good = frame_to(kOtherMac, 100);
  machine.add_data(good, kLast);
  machine.kick();
  EXPECT_EQ(machine.port.sent, Frames{good});
}

TEST(E1000Transmit, ChecksumsOutsideTheFrameAreNone) {
  Machine machine;
  machine.bring_up();
  const auto good = frame_to(kOtherMac, 100);
  machine.add_context(255, 255, 255, 0);
  machine.add_data(good, kLast | kTransmitExtended, kOptionIpChecksum);
  machine.add_data(good, kLast | kTransmitExtended, kOptionTransportChecksum);
  machine.add({.address = Machine::kSent + Machine::kStride,
               .command = 100 | 255u << 16 | uint32_t{kLast | kTransmitInsertChecksum} << 24,
               .status = 255u << 8});
  machine.kick();
  for (const auto& sent : machine.port.sent) EXPECT_EQ(sent, good);
  EXPECT_EQ(machine.port.sent.size() + machine.card->counters().refused_frames, 3u);
}

TEST(E1000Rings, AreUsedWhereTheyAreRamAndTheirNumbersInside) {
  struct Case {
    uint64_t offset;
    uint32_t value;
  };
  const Case cases[] = {
      {kTransmitBaseLow, 0xFEB0'0000},  // registers
      {kTransmitBaseLow, static_cast<uint32_t>(memory::GuestMemory::kMinimumSize - 64)},
      {kTransmitBaseHigh, UINT32_MAX},
      {kTransmitLength, 0},
      {kTransmitHead, 8},
      {kTransmitHead, UINT32_MAX},
      {kTransmitTail, 8},
      {kTransmitTail, UINT32_MAX},
      {kTransmitControl, 0},
  };
  for (const Case& each : cases) {
    Machine machine;
    machine.bring_up();
    const auto frame = frame_to(kOtherMac, 100);
    machine.add_data(frame, kLast);
    machine.write(kTransmitTail, 1);
    machine.write(each.offset, each.value);
    machine.worker->run();
    EXPECT_TRUE(machine.port.sent.empty()) << each.offset << " " << each.value;
    EXPECT_EQ(machine.worker->run(), 0u);
    // Set up anew it works.
    machine.write(kControl, kControlReset);
    machine.bring_up();
    machine.add_data(frame, kLast);
    machine.kick();
    EXPECT_EQ(machine.port.sent, Frames{frame}) << each.offset << " " << each.value;
  }
}

TEST(E1000Rings, ATurnEndsAtTheRingsSize) {
  Machine machine;
  machine.bring_up();
  machine.write(kTransmitLength, 0xFFF80);
  machine.write(kTransmitTail, 0xFFF7);  // 65527 descriptors of zeroes: no ends, no bytes
  EXPECT_GT(machine.worker->run(), 65527 / Card::kTransmitBudget);
  EXPECT_EQ(machine.read(kTransmitHead), 0xFFF7u);
}

TEST(E1000Rings, WithoutBusMasteringNothingMoves) {
  Machine machine;
  machine.bring_up();
  machine.write_config(spec::pci::kCommand, 2, spec::pci::kCommandMemory);
  const auto frame = frame_to(kOtherMac, 100);
  machine.add_data(frame, kLast);
  machine.kick();
  machine.offer(4);
  machine.arrive(frame_to(kCardMac, 100));
  EXPECT_TRUE(machine.port.sent.empty());
  EXPECT_EQ(machine.received(0).status, 0);
  machine.write_config(spec::pci::kCommand, 2, spec::pci::kCommandMemory | spec::pci::kCommandBusMaster);
  machine.worker->run();
  EXPECT_EQ(machine.port.sent, Frames{frame});
  EXPECT_NE(machine.received(0).status, 0);
}

// ---- From the network ----

TEST(E1000Receive, FillsBuffersAndSaysHowMuch) {
  Machine machine;
  machine.bring_up();
  machine.offer(4);
  const auto frame = frame_to(kCardMac, 700);
  machine.arrive(frame);
  EXPECT_EQ(machine.received(0).length, 704);
  EXPECT_EQ(machine.received(0).status, kReceiveDone | kReceiveEnd | kReceiveIgnoreChecksum);
  EXPECT_EQ(machine.received_bytes(0, 700), frame);
  EXPECT_EQ(machine.read(kReceiveHead), 1u);
  EXPECT_TRUE(machine.read(kInterruptCause) & kCauseReceived);
  // Padded with zeroes, as on a wire.
  (void)machine.memory->write({Machine::kReceived + Machine::kStride}, std::vector<uint8_t>(100, 0xEE));
  auto small = frame_to(kCardMac, 30);
  machine.arrive(small);
  small.resize(64);
  EXPECT_EQ(machine.received(1).length, 64);
  EXPECT_EQ(machine.received_bytes(1, 64), small);
}

TEST(E1000Receive, SpreadsAFrameOverBuffersAndWaitsForEnoughOfThem) {
  Machine machine;
  // Of 256 bytes, without the check sequence.
  machine.bring_up(3u << kReceiveBufferShift | kReceiveStripChecksum);
  const auto frame = frame_to(kCardMac, 700);
  machine.offer(2);
  machine.arrive(frame);
  EXPECT_EQ(machine.received(0).status, 0);
  EXPECT_EQ(machine.worker->run(), 0u);
  machine.offer(1);
  EXPECT_EQ(machine.received(0).status, kReceiveDone);
  EXPECT_EQ(machine.received(1).length, 256);
  EXPECT_TRUE(machine.received(2).status & kReceiveEnd);
  EXPECT_EQ(machine.received(2).length, 700 - 512);
  std::vector<uint8_t> bytes;
  for (uint32_t i = 0; i < 3; ++i) {
    const auto part = machine.received_bytes(i, machine.received(i).length);
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  EXPECT_EQ(bytes, frame);
}

TEST(E1000Receive, FiltersByAddressAndVlan) {
  const MacAddress group{{1, 0, 0x5E, 1, 2, 3}}, stranger{{2, 0, 0, 0, 0, 7}};
  const auto arrives = [](uint32_t control, const std::vector<uint8_t>& frame, auto&& set_up) {
    Machine machine;
    machine.bring_up(control);
    set_up(machine);
    machine.offer(4);
    machine.arrive(frame);
    return machine.received(0).status != 0;
  };
  const auto nothing = [](Machine&) {};
  EXPECT_TRUE(arrives(0, frame_to(kCardMac, 60), nothing));
  EXPECT_FALSE(arrives(0, frame_to(stranger, 60), nothing));
  EXPECT_TRUE(arrives(kReceiveAllUnicast, frame_to(stranger, 60), nothing));
  EXPECT_FALSE(arrives(kReceiveAllUnicast, frame_to(group, 60), nothing));
  EXPECT_TRUE(arrives(kReceiveAllMulticast, frame_to(group, 60), nothing));
  EXPECT_FALSE(arrives(0, frame_to(MacAddress::broadcast(), 60), nothing));
  EXPECT_TRUE(arrives(kReceiveBroadcast, frame_to(MacAddress::broadcast(), 60), nothing));
  // A second address, and its own no more.
  const auto second = [](Machine& machine) {
    machine.write(kReceiveAddresses + 8, 0x0000'0002);
    machine.write(kReceiveAddresses + 12, kAddressValid | 0x0700);
    machine.write(kReceiveAddresses + 4, 0);
  };
  EXPECT_TRUE(arrives(0, frame_to(stranger, 60), second));
  EXPECT_FALSE(arrives(0, frame_to(kCardMac, 60), second));
  // Twelve bits of the last two bytes, 0x0302: from the place that the driver chose.
  const unsigned hashes[] = {0x0302 >> 4, 0x0302 >> 3, 0x0302 >> 2, 0x0302};
  for (uint32_t place = 0; place < 4; ++place) {
    const auto set_bit = [&](Machine& machine) {
      machine.write(kMulticastTable + 4 * (hashes[place] / 32), 1u << hashes[place] % 32);
    };
    EXPECT_TRUE(arrives(place << kReceiveMulticastShift, frame_to(group, 60), set_bit)) << place;
    EXPECT_FALSE(arrives((place ^ 1) << kReceiveMulticastShift, frame_to(group, 60), set_bit)) << place;
  }
  const auto tagged = FrameBuilder().ethernet(kOtherMac, kCardMac).vlan(37).build();
  const auto vlan = [](Machine& machine) { machine.write(kVlanTable + 4, 1u << 5); };
  EXPECT_TRUE(arrives(0, tagged, nothing));
  EXPECT_FALSE(arrives(kReceiveVlanFilter, tagged, nothing));
  EXPECT_TRUE(arrives(kReceiveVlanFilter, tagged, vlan));
  // Off, it hears nothing, and nothing of it later.
  Machine machine;
  machine.bring_up();
  machine.write(kReceiveControl, 0);
  machine.arrive(frame_to(kCardMac, 60));
  machine.write(kReceiveControl, kReceiveEnable);
  machine.offer(4);
  EXPECT_EQ(machine.received(0).status, 0);
}

TEST(E1000Receive, TakesTagsOff) {
  Machine machine;
  machine.bring_up();
  machine.write(kControl, kControlVlanMode);
  machine.offer(4);
  const auto plain = FrameBuilder().ethernet(kOtherMac, kCardMac).payload(std::vector<uint8_t>(100, 5)).build();
  const auto tagged =
      FrameBuilder().ethernet(kOtherMac, kCardMac).vlan(37, 3).payload(std::vector<uint8_t>(100, 5)).build();
  machine.arrive(tagged);
  EXPECT_TRUE(machine.received(0).status & kReceiveVlan);
  EXPECT_EQ(machine.received(0).special, 3 << 13 | 37);
  EXPECT_EQ(machine.received_bytes(0, plain.size()), plain);
  machine.arrive(plain);
  EXPECT_FALSE(machine.received(1).status & kReceiveVlan);
  EXPECT_EQ(machine.received(1).special, 0);
}

TEST(E1000Receive, SaysWhatItThinksOfChecksums) {
  Machine machine;
  machine.bring_up();
  machine.write(kReceiveChecksum, kChecksumIpv4 | kChecksumTransport);
  const auto verdict = [&](const std::vector<uint8_t>& frame, const Offload& offload = {}) {
    const uint32_t at = machine.read(kReceiveHead);
    machine.offer(1);
    machine.arrive(frame, offload);
    return std::pair(
        machine.received(at).status & (kReceiveIgnoreChecksum | kReceiveIpChecked | kReceiveTransportChecked),
        machine.received(at).errors);
  };
  constexpr int kBoth = kReceiveIpChecked | kReceiveTransportChecked;
  auto frame = packet(false).tcp(1, 2, net::frame::kTcpAcknowledge).payload("payload").build();
  EXPECT_EQ(verdict(frame), std::pair(kBoth, uint8_t{0}));
  ++frame.back();
  EXPECT_EQ(verdict(frame), std::pair(kBoth, kReceiveTransportError));
  ++frame[22];
  EXPECT_EQ(verdict(frame), std::pair(int{kReceiveIpChecked}, kReceiveIpError));
  // UDP may have none.
  auto datagram = packet(false).udp(1, 2).payload("payload").build();
  EXPECT_EQ(verdict(datagram), std::pair(kBoth, uint8_t{0}));
  store_big16(&datagram[40], 0);
  EXPECT_EQ(verdict(datagram), std::pair(int{kReceiveIpChecked}, uint8_t{0}));
  EXPECT_EQ(verdict(frame_to(kCardMac, 60)), std::pair(int{kReceiveIgnoreChecksum}, uint8_t{0}));
  // An IPv6 packet where only IPv4 is wanted.
  const auto six = FrameBuilder().ethernet(kOtherMac, kCardMac).ipv6("fd00::1", "fd00::2").udp(1, 2).build();
  EXPECT_EQ(verdict(six), std::pair(int{kReceiveIgnoreChecksum}, uint8_t{0}));
  machine.write(kReceiveChecksum, kChecksumIpv6 | kChecksumTransport);
  EXPECT_EQ(verdict(six), std::pair(int{kReceiveTransportChecked}, uint8_t{0}));
}

TEST(E1000Receive, GetsAStreamInPieces) {
  Machine machine;
  machine.bring_up();
  machine.write(kReceiveChecksum, kChecksumIpv4 | kChecksumTransport);
  machine.offer(7);
  auto frame = packet(false).tcp(1, 2, net::frame::kTcpAcknowledge).payload(std::vector<uint8_t>(4000, 9)).build();
  Offload offload;
  ASSERT_TRUE(net::frame::make_segmented(frame, 1400, offload));
  machine.arrive(frame, offload);
  EXPECT_EQ(machine.read(kReceiveHead), 3u);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(machine.received(i).status & kReceiveTransportChecked);
    EXPECT_TRUE(is_right(machine.received_bytes(i, machine.received(i).length - 4u)));
  }
}

TEST(E1000Receive, ABufferThatIsNoRamGetsNothing) {
  Machine machine;
  machine.bring_up();
  for (const uint64_t address : {uint64_t{0xFEB0'0000}, memory::GuestMemory::kMinimumSize - 10, UINT64_MAX - 5}) {
    const uint32_t at = machine.read(kReceiveHead);
    machine.offer(1);
    (void)machine.memory->write_object({Machine::kReceiveRing + 16 * at}, ReceiveDescriptor{.address = address});
    machine.arrive(frame_to(kCardMac, 100));
    EXPECT_TRUE(machine.received(at).status & kReceiveDone);
  }
}

TEST(E1000Receive, LosesWhatIsTooLong) {
  Machine machine(9000);
  machine.bring_up();
  machine.offer(7);
  machine.arrive(frame_to(kCardMac, 1519));
  EXPECT_EQ(machine.received(0).status, 0);
  EXPECT_EQ(machine.read(kStatistics + 4u * kOversized), 1u);
  machine.write(kReceiveControl, kReceiveEnable | kReceiveLong);
  machine.arrive(frame_to(kCardMac, 9014));
  EXPECT_TRUE(machine.received(4).status & kReceiveEnd);
  // More than the whole ring holds: it would stand in the way for ever.
  machine.write(kReceiveControl, kReceiveEnable | kReceiveLong | 3u << kReceiveBufferShift);
  machine.arrive(frame_to(kCardMac, 9014));
  EXPECT_EQ(machine.card->counters().too_large_frames, 2u);
  machine.arrive(frame_to(kCardMac, 200));
  EXPECT_TRUE(machine.received(5).status & kReceiveEnd);
}

TEST(E1000Receive, SaysWhenFewBuffersAreLeft) {
  Machine machine;
  machine.bring_up(1u << kReceiveThresholdShift);  // a quarter
  machine.offer(4);
  machine.arrive(frame_to(kCardMac, 60));
  EXPECT_FALSE(machine.read(kInterruptCause) & kCauseReceiveThreshold);
  machine.arrive(frame_to(kCardMac, 60));
  EXPECT_TRUE(machine.read(kInterruptCause) & kCauseReceiveThreshold);
  machine.arrive(frame_to(kCardMac, 60));
  EXPECT_FALSE(machine.read(kInterruptCause) & kCauseReceiveThreshold);
}

}  // namespace
}  // namespace bulkhead::device::e1000
