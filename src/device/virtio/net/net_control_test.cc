#include <gtest/gtest.h>

#include <array>

#include "device/virtio/testing/net_machine.h"
#include "net/frame/frame_builder.h"

namespace bulkhead::device::virtio {
namespace {

using namespace spec::virtio;
using net::frame::FrameBuilder, net::frame::MacAddress;

constexpr uint64_t kFeatures = kBasicNetFeatures | kNetControlQueue | kNetControlReceive | kNetControlReceiveExtra |
                               kNetControlVlan | kNetControlMac | kNetGuestAnnounce;
constexpr MacAddress kOther{{2, 0, 0, 0, 0, 7}}, kGroup{{1, 0, 0x5E, 0, 0, 1}}, kSender{{2, 0, 0, 0, 0, 9}};

std::vector<uint8_t> frame_to(const MacAddress& to, uint16_t vlan = 0) {
  FrameBuilder builder;
  builder.ethernet(kSender, to);
  if (vlan != 0) builder.vlan(vlan);
  return builder.payload("some payload").build();
}

std::vector<uint8_t> little(uint64_t value, size_t size) {
  const auto bytes = as_bytes(value).first(size);
  return {bytes.begin(), bytes.end()};
}

std::vector<uint8_t> table(const std::vector<MacAddress>& unicast, const std::vector<MacAddress>& multicast) {
  std::vector<uint8_t> bytes;
  for (const auto* part : {&unicast, &multicast}) {
    const auto count = little(part->size(), 4);
    bytes.insert(bytes.end(), count.begin(), count.end());
    for (const MacAddress& each : *part) bytes.insert(bytes.end(), each.bytes.begin(), each.bytes.end());
  }
  return bytes;
}

struct Machine : NetMachine {
  Machine() : NetMachine(kRingKinds[7], kFeatures) {
    for (unsigned i = 0; i < 8; ++i) offer(2048, i);
  }
  // Whether the driver gets it.
  bool gets(const std::vector<uint8_t>& frame) {
    arrive(frame);
    const bool got = driver->ring(0).take_used().has_value();
    if (got) offer(2048, 0);
    return got;
  }
};

TEST(NetControl, FiltersByAddressAsTheDriverSays) {
  Machine machine;
  EXPECT_TRUE(machine.gets(frame_to(kOther)));
  EXPECT_EQ(machine.command(kNetClassReceive, 0, {0}), kNetControlOk);
  EXPECT_FALSE(machine.gets(frame_to(kOther)));
  EXPECT_FALSE(machine.gets(frame_to(kGroup)));
  EXPECT_TRUE(machine.gets(frame_to(kNetMacAddress)));
  EXPECT_TRUE(machine.gets(frame_to(MacAddress::broadcast())));
  EXPECT_EQ(machine.command(kNetClassMac, kNetControlMacTable, table({kOther}, {kGroup})), kNetControlOk);
  EXPECT_TRUE(machine.gets(frame_to(kOther)));
  EXPECT_TRUE(machine.gets(frame_to(kGroup)));
  EXPECT_EQ(machine.command(kNetClassMac, kNetControlMacTable, table({}, {})), kNetControlOk);
  EXPECT_FALSE(machine.gets(frame_to(kGroup)));
  EXPECT_EQ(machine.command(kNetClassReceive, 1, {1}), kNetControlOk);
  EXPECT_TRUE(machine.gets(frame_to(kGroup)));
  EXPECT_EQ(machine.command(kNetClassReceive, 5, {1}), kNetControlOk);
  EXPECT_FALSE(machine.gets(frame_to(MacAddress::broadcast())));
  EXPECT_EQ(machine.command(kNetClassReceive, 2, {1}), kNetControlOk);
  EXPECT_TRUE(machine.gets(frame_to(kOther)));
  // More than are kept: all of them.
  const std::vector<MacAddress> many(ReceiveFilter::kMaximumAddresses + 1, kGroup);
  EXPECT_EQ(machine.command(kNetClassReceive, 2, {0}), kNetControlOk);
  EXPECT_EQ(machine.command(kNetClassMac, kNetControlMacTable, table(many, {})), kNetControlOk);
  EXPECT_TRUE(machine.gets(frame_to(kOther)));
}

TEST(NetControl, FiltersByVlan) {
  Machine machine;
  EXPECT_EQ(machine.command(kNetClassReceive, 0, {0}), kNetControlOk);
  EXPECT_FALSE(machine.gets(frame_to(kNetMacAddress, 10)));
  EXPECT_EQ(machine.command(kNetClassVlan, kNetControlVlanAdd, little(10, 2)), kNetControlOk);
  EXPECT_TRUE(machine.gets(frame_to(kNetMacAddress, 10)));
  EXPECT_FALSE(machine.gets(frame_to(kNetMacAddress, 11)));
  EXPECT_EQ(machine.command(kNetClassVlan, kNetControlVlanDelete, little(10, 2)), kNetControlOk);
  EXPECT_FALSE(machine.gets(frame_to(kNetMacAddress, 10)));
}

TEST(NetControl, TakesAnotherAddressUntilItIsReset) {
  Machine machine;
  EXPECT_EQ(machine.command(kNetClassMac, kNetControlMacAddress, {kOther.bytes.begin(), kOther.bytes.end()}),
            kNetControlOk);
  for (unsigned i = 0; i < 6; ++i) EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset + i, 1), kOther.bytes[i]);
  EXPECT_EQ(machine.command(kNetClassReceive, 0, {0}), kNetControlOk);
  EXPECT_TRUE(machine.gets(frame_to(kOther)));
  EXPECT_FALSE(machine.gets(frame_to(kNetMacAddress)));
  machine.driver->set_status(0);
  machine.worker->run();
  EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset + 5, 1), kNetMacAddress.bytes[5]);
}

TEST(NetControl, RefusesCommandsThatMakeNoSense) {
  Machine machine;
  const auto refused = [&](uint8_t kind, uint8_t number, const std::vector<uint8_t>& data) {
    return machine.command(kind, number, data) == kNetControlError;
  };
  EXPECT_TRUE(refused(kNetClassReceive, 6, {1}));
  EXPECT_TRUE(refused(kNetClassReceive, 0, {}));
  EXPECT_TRUE(refused(kNetClassReceive, 0, {1, 1}));
  EXPECT_TRUE(refused(kNetClassMac, kNetControlMacAddress, {1, 0, 0, 0, 0, 1}));
  EXPECT_TRUE(refused(kNetClassMac, kNetControlMacAddress, {0, 0, 0, 0, 0, 0}));
  EXPECT_TRUE(refused(kNetClassMac, kNetControlMacAddress, {2, 0, 0, 0, 0}));
  EXPECT_TRUE(refused(kNetClassMac, kNetControlMacTable, {1, 0, 0, 0, 2, 0, 0}));
  EXPECT_TRUE(refused(kNetClassMac, kNetControlMacTable, {0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0}));
  EXPECT_TRUE(refused(kNetClassMac, kNetControlMacTable, {0, 0, 0, 0}));
  EXPECT_TRUE(refused(kNetClassVlan, kNetControlVlanAdd, little(4096, 2)));
  EXPECT_TRUE(refused(kNetClassVlan, 2, little(1, 2)));
  EXPECT_TRUE(refused(kNetClassMultiqueue, kNetControlPairs, little(1, 2)));
  EXPECT_TRUE(refused(kNetClassGuestOffloads, 0, little(0, 8)));
  EXPECT_TRUE(refused(9, 0, {}));
  EXPECT_TRUE(refused(kNetClassReceive, 0, std::vector<uint8_t>(8192)));
  EXPECT_EQ(machine.driver->status() & kStatusNeedsReset, 0);
  // Without room for an answer, and without a command.
  const DriverBuffer readable{kControlData, 2, false}, writable{kControlData, 1, true};
  for (const DriverBuffer& each : {readable, writable}) {
    machine.driver->ring(2).add({&each, 1});
    machine.driver->kick(2);
    machine.worker->run();
    EXPECT_TRUE(machine.driver->ring(2).take_used());
  }
  EXPECT_EQ(machine.driver->get(kControlData, 1)[0], kNetControlError);
}

TEST(NetControl, AsksForAnAnnouncementWhenTheLinkComesBackAndAfterARestore) {
  Machine machine;
  const auto status = [](NetMachine& of) { return of.driver->read(PciTransport::kDeviceOffset + 6, 2); };
  EXPECT_EQ(status(machine), kNetLinkUp);
  machine.port.up = false;
  machine.port.listener();
  machine.worker->run();
  EXPECT_EQ(status(machine), 0u);
  machine.port.up = true;
  machine.port.listener();
  machine.worker->run();
  EXPECT_EQ(status(machine), kNetLinkUp | kNetAnnounce);
  EXPECT_EQ(machine.command(kNetClassAnnounce, kNetControlAnnounceDone, {}), kNetControlOk);
  EXPECT_EQ(status(machine), kNetLinkUp);
  machine.device->pause();
  StateWriter writer;
  machine.device->save_state(writer);
  Machine other;
  other.device->pause();
  ASSERT_TRUE(other.device->restore_state(StateReader::parse(writer.encode(), "net0").value()));
  other.driver->adopt(*machine.driver);
  EXPECT_EQ(status(other), kNetLinkUp);
  other.device->resume();
  other.worker->run();
  EXPECT_EQ(status(other), kNetLinkUp | kNetAnnounce);
}

TEST(NetControl, KeepsWhatTheDriverSaidInSavedState) {
  Machine machine;
  EXPECT_EQ(machine.command(kNetClassReceive, 0, {0}), kNetControlOk);
  EXPECT_EQ(machine.command(kNetClassMac, kNetControlMacTable, table({kOther}, {})), kNetControlOk);
  EXPECT_EQ(machine.command(kNetClassVlan, kNetControlVlanAdd, little(10, 2)), kNetControlOk);
  StateWriter writer;
  machine.model().save_state(writer);
  Machine other;
  ASSERT_TRUE(other.model().restore_state(StateReader::parse(writer.encode(), "net0").value()));
  EXPECT_TRUE(other.gets(frame_to(kOther)));
  EXPECT_FALSE(other.gets(frame_to(kSender)));
  EXPECT_TRUE(other.gets(frame_to(kNetMacAddress, 10)));
  EXPECT_FALSE(other.gets(frame_to(kNetMacAddress, 11)));
  StateWriter again;
  other.model().save_state(again);
  EXPECT_EQ(again.encode(), writer.encode());
}

// ---- Several pairs ----

constexpr uint64_t kPairs = kFeatures | kNetMultiqueue | kNetScaling;

std::vector<uint8_t> flow(uint16_t port, bool to_guest) {
  FrameBuilder builder;
  builder.ethernet(to_guest ? kSender : kNetMacAddress, to_guest ? kNetMacAddress : kSender);
  builder.ipv4(to_guest ? "10.0.0.9" : "10.0.0.1", to_guest ? "10.0.0.1" : "10.0.0.9");
  return builder.udp(to_guest ? 53 : port, to_guest ? port : 53).payload("x").build();
}

TEST(NetPairs, AnswersComeWhereTheFlowWasSentFrom) {
  NetMachine machine(kRingKinds[7], kPairs, {.queue_pairs = 2});
  EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset + 8, 2), 2u);
  for (const unsigned queue : {0u, 2u}) {
    for (unsigned i = 0; i < 4; ++i) machine.offer(2048, 4 * queue + i, queue);
  }
  // Until the driver says how many it uses, the first.
  machine.transmit({}, flow(1000, false), 3);
  machine.arrive(flow(1000, true));
  EXPECT_TRUE(machine.driver->ring(0).take_used());
  EXPECT_EQ(machine.command(kNetClassMultiqueue, kNetControlPairs, little(3, 2)), kNetControlError);
  EXPECT_EQ(machine.command(kNetClassMultiqueue, kNetControlPairs, little(0, 2)), kNetControlError);
  EXPECT_EQ(machine.command(kNetClassMultiqueue, kNetControlPairs, little(2, 2)), kNetControlOk);
  machine.transmit({}, flow(1000, false), 3);
  machine.arrive(flow(1000, true));
  EXPECT_FALSE(machine.driver->ring(0).take_used());
  EXPECT_TRUE(machine.driver->ring(2).take_used());
  machine.transmit({}, flow(1000, false), 1);
  machine.arrive(flow(1000, true));
  EXPECT_TRUE(machine.driver->ring(0).take_used());
  EXPECT_EQ(machine.port.sent.size(), 3u);
}

TEST(NetPairs, AreChosenByTheHashOfTheDriversKey) {
  // The figures by which the hash is known (5.1.6.4.3.1 has it from Microsoft's RSS).
  constexpr std::array<uint8_t, Steering::kKeySize> kKey = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
                                                            0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
                                                            0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
                                                            0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};
  const std::vector<uint8_t> input = {66, 9, 149, 187, 161, 142, 100, 80, 0x0A, 0xEA, 0x06, 0xE6};
  EXPECT_EQ(Steering::hash(kKey, input), 0x51ccc178u);
  EXPECT_EQ(Steering::hash(kKey, ByteSpan(input).first(8)), 0x323e8fc2u);

  NetMachine machine(kRingKinds[7], kPairs, {.queue_pairs = 2});
  for (const unsigned queue : {0u, 2u}) {
    for (unsigned i = 0; i < 8; ++i) machine.offer(2048, 8 * queue + i, queue);
  }
  const auto scaling = [&](uint32_t types, uint16_t mask, uint16_t unclassified, std::vector<uint16_t> places,
                           uint16_t pairs, size_t key_size) {
    std::vector<uint8_t> bytes = little(types, 4);
    const auto add = [&](uint64_t value, size_t size) {
      const auto more = little(value, size);
      bytes.insert(bytes.end(), more.begin(), more.end());
    };
    add(mask, 2);
    add(unclassified, 2);
    for (const uint16_t place : places) add(place, 2);
    add(pairs, 2);
    add(key_size, 1);
    bytes.insert(bytes.end(), kKey.begin(), kKey.begin() + static_cast<ptrdiff_t>(std::min(key_size, kKey.size())));
    return machine.command(kNetClassMultiqueue, kNetControlScaling, bytes);
  };
  EXPECT_EQ(scaling(0x40, 1, 0, {0, 1}, 2, 40), kNetControlError);
  EXPECT_EQ(scaling(1, 2, 0, {0, 1, 1}, 2, 40), kNetControlError);
  EXPECT_EQ(scaling(1, 255, 0, std::vector<uint16_t>(256), 2, 40), kNetControlError);
  EXPECT_EQ(scaling(1, 1, 2, {0, 1}, 2, 40), kNetControlError);
  EXPECT_EQ(scaling(1, 1, 0, {0, 2}, 2, 40), kNetControlError);
  EXPECT_EQ(scaling(1, 1, 0, {0, 1}, 3, 40), kNetControlError);
  EXPECT_EQ(scaling(1, 1, 0, {0, 1}, 2, 41), kNetControlError);
  EXPECT_EQ(scaling(kNetHashUdpIpv4, 1, 1, {0, 1}, 2, 40), kNetControlOk);
  unsigned second = 0;
  for (uint16_t port = 1; port <= 8; ++port) {
    const auto frame = flow(port, true);
    std::vector<uint8_t> said(frame.begin() + 26, frame.begin() + 38);
    const unsigned wanted = (Steering::hash(kKey, said) & 1) * 2;
    machine.arrive(frame);
    EXPECT_TRUE(machine.driver->ring(wanted).take_used()) << port;
    second += wanted / 2;
  }
  EXPECT_GT(second, 0u);
  EXPECT_LT(second, 8u);
  // What has no such hash goes where the driver said.
  for (unsigned i = 0; i < 2; ++i) machine.offer(2048, 40 + i, 2);
  machine.arrive(frame_to(kNetMacAddress));
  EXPECT_TRUE(machine.driver->ring(2).take_used());
  StateWriter writer;
  machine.model().save_state(writer);
  NetMachine other(kRingKinds[7], kPairs, {.queue_pairs = 2});
  ASSERT_TRUE(other.model().restore_state(StateReader::parse(writer.encode(), "net0").value()));
  StateWriter again;
  other.model().save_state(again);
  EXPECT_EQ(again.encode(), writer.encode());
}

}  // namespace
}  // namespace bulkhead::device::virtio
