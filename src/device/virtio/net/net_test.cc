#include "device/virtio/net/net.h"

#include <gtest/gtest.h>

#include "device/virtio/testing/net_machine.h"
#include "net/frame/checksum.h"
#include "net/frame/frame_builder.h"

namespace bulkhead::device::virtio {
namespace {

using namespace spec::virtio;
using net::frame::FrameBuilder;
using Machine = NetMachine;
constexpr auto kMac = kNetMacAddress;

std::vector<uint8_t> frame_of(size_t size, uint8_t seed = 1) {
  std::vector<uint8_t> frame(size);
  for (size_t i = 0; i < size; ++i) frame[i] = static_cast<uint8_t>(seed + i * 7);
  return frame;
}

class NetOnEveryRing : public testing::TestWithParam<RingKind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, NetOnEveryRing, testing::ValuesIn(kRingKinds));

TEST_P(NetOnEveryRing, CarriesFramesBothWays) {
  Machine machine(GetParam());
  for (unsigned round = 0; round < 100; ++round) {
    const auto out = frame_of(60 + round, static_cast<uint8_t>(round));
    machine.transmit({}, out);
    ASSERT_TRUE(machine.driver->ring(1).take_used());
    ASSERT_EQ(machine.port.sent.back(), out);
    machine.offer(2048, 0);
    EXPECT_FALSE(machine.driver->ring(0).take_used());
    const auto in = frame_of(1000 + round, static_cast<uint8_t>(round * 3));
    machine.arrive(in);
    const auto used = machine.driver->ring(0).take_used();
    ASSERT_TRUE(used);
    ASSERT_EQ(used->length, in.size() + sizeof(NetHeader));
    ASSERT_EQ(machine.driver->get(kReceiveData + sizeof(NetHeader), in.size()), in);
    const auto header = load<NetHeader>(machine.driver->get(kReceiveData, sizeof(NetHeader)).data());
    ASSERT_EQ(header.buffer_count, 1);
    ASSERT_EQ(header.flags, 0);
  }
  EXPECT_EQ(machine.model().counters().sent_frames, 100u);
  EXPECT_EQ(machine.model().counters().received_frames, 100u);
}

TEST_P(NetOnEveryRing, HasTheVcpuSendWhatIsShortAndTheWorkerTheRest) {
  Machine machine(GetParam(), kBasicNetFeatures, {.mtu = 9000});
  machine.worker->takes_help = true;
  const auto queue_frame = [&](size_t size) {
    machine.driver->put(kTransmitData, std::vector<uint8_t>(sizeof(NetHeader)));
    machine.driver->put(kTransmitData + 0x1000, frame_of(size));
    const DriverBuffer buffers[] = {{kTransmitData, sizeof(NetHeader), false},
                                    {kTransmitData + 0x1000, static_cast<uint32_t>(size), false}};
    machine.driver->ring(1).add(buffers);
  };
  const auto take_all = [&] {
    size_t count = 0;
    while (machine.driver->ring(1).take_used()) ++count;
    return count;
  };
  queue_frame(100);
  machine.driver->kick(1);
  EXPECT_EQ(machine.port.sent.size(), 1u);
  EXPECT_EQ(machine.worker->run(), 0u);
  EXPECT_EQ(take_all(), 1u);
  // A burst, and a large one behind it.
  for (int i = 0; i < 4; ++i) queue_frame(100);
  queue_frame(5000);
  machine.driver->kick(1);
  EXPECT_EQ(machine.port.sent.size(), 3u);
  machine.worker->run();
  EXPECT_EQ(machine.port.sent.size(), 6u);
  EXPECT_EQ(take_all(), 5u);
  queue_frame(5000);
  machine.driver->kick(1);
  EXPECT_EQ(machine.port.sent.size(), 6u);
  machine.worker->run();
  EXPECT_EQ(machine.port.sent.back(), frame_of(5000));
  // A network that is full, and a machine that is paused.
  machine.port.room = 0;
  queue_frame(100);
  machine.driver->kick(1);
  machine.worker->run();
  EXPECT_EQ(machine.port.sent.size(), 7u);
  machine.port.room = SIZE_MAX;
  machine.port.listener();
  machine.worker->run();
  EXPECT_EQ(machine.port.sent.size(), 8u);
  machine.device->pause();
  queue_frame(100);
  machine.driver->kick(1);
  EXPECT_EQ(machine.port.sent.size(), 8u);
  machine.device->resume();
  machine.worker->run();
  EXPECT_EQ(machine.port.sent.size(), 9u);
  EXPECT_EQ(machine.driver->status() & kStatusNeedsReset, 0);
}

TEST_P(NetOnEveryRing, SpreadsAFrameOverBuffersAndWaitsForEnoughOfThem) {
  Machine machine(GetParam());
  const auto frame = frame_of(1500);
  machine.offer(600, 0);
  machine.offer(600, 1);
  machine.arrive(frame);
  // 1512 bytes do not fit into 1200, and nothing is given back by halves.
  EXPECT_FALSE(machine.driver->ring(0).take_used());
  // And it waits without turning.
  EXPECT_EQ(machine.worker->run(), 0u);
  machine.offer(600, 2);
  std::vector<uint8_t> received;
  const uint32_t lengths[] = {600, 600, 312};
  for (unsigned i = 0; i < 3; ++i) {
    const auto used = machine.driver->ring(0).take_used();
    ASSERT_TRUE(used) << i;
    EXPECT_EQ(used->length, lengths[i]);
    const auto part = machine.driver->get(kReceiveData + 0x10000 * i, used->length);
    received.insert(received.end(), part.begin(), part.end());
  }
  EXPECT_EQ(load<NetHeader>(received.data()).buffer_count, 3);
  EXPECT_TRUE(std::equal(frame.begin(), frame.end(), received.begin() + sizeof(NetHeader), received.end()));
  EXPECT_EQ(machine.driver->status() & kStatusNeedsReset, 0);
  // And the queue goes on.
  machine.offer(2048, 0);
  machine.arrive(frame);
  EXPECT_TRUE(machine.driver->ring(0).take_used());
}

TEST_P(NetOnEveryRing, KeepsTheChainThatThePortHasNoRoomFor) {
  Machine machine(GetParam());
  machine.port.room = 1;
  machine.transmit({}, frame_of(60, 1));
  machine.transmit({}, frame_of(60, 1));
  EXPECT_TRUE(machine.driver->ring(1).take_used());
  EXPECT_FALSE(machine.driver->ring(1).take_used());
  machine.port.room = 5;
  machine.port.listener();
  machine.worker->run();
  EXPECT_TRUE(machine.driver->ring(1).take_used());
  EXPECT_EQ(machine.port.sent.size(), 2u);
}

TEST(Net, WithoutMergeableBuffersLosesWhatNoBufferHolds) {
  Machine machine(kRingKinds[0], kNetMac);
  machine.offer(600, 0);
  machine.arrive(frame_of(1000));
  const auto used = machine.driver->ring(0).take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->length, 0u);
  EXPECT_EQ(machine.model().counters().too_large_frames, 1u);
  machine.offer(600, 0);
  machine.arrive(frame_of(500));
  EXPECT_EQ(machine.driver->ring(0).take_used()->length, 512u);
}

TEST(Net, PassesOnTheChecksumThatTheDriverLeftOpen) {
  Machine machine;
  const auto whole = FrameBuilder().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2, 2).payload("data").build();
  auto open = whole;
  net::frame::Checksum pseudo;
  pseudo.add_pseudo_header(net::frame::IpAddress::parse("10.0.0.1").value(),
                           net::frame::IpAddress::parse("10.0.0.2").value(), 6, 24);
  const auto sum = static_cast<uint16_t>(~pseudo.value());
  open[34 + 16] = static_cast<uint8_t>(sum >> 8);
  open[34 + 17] = static_cast<uint8_t>(sum);
  machine.transmit({.flags = kNetNeedsChecksum, .checksum_start = 34, .checksum_offset = 16}, open);
  ASSERT_EQ(machine.port.sent.size(), 1u);
  // The port gets it open, and knows where.
  ASSERT_TRUE(machine.port.sent_offloads[0].is_checksum_open);
  net::frame::complete(machine.port.sent[0], machine.port.sent_offloads[0]);
  EXPECT_EQ(machine.port.sent[0], whole);
}

TEST(Net, RefusesWhatIsNoFrameAndGoesOn) {
  Machine machine;
  machine.transmit({}, frame_of(13));
  machine.transmit({}, frame_of(NetModel::kDefaultMtu + 23));
  machine.transmit({.gso_type = 1}, frame_of(60));
  machine.transmit({.flags = kNetNeedsChecksum, .checksum_start = 59, .checksum_offset = 0}, frame_of(60));
  machine.transmit({.flags = kNetNeedsChecksum, .checksum_start = 65535, .checksum_offset = 65535}, frame_of(60));
  const DriverBuffer short_header{kTransmitData, 11, false};
  machine.driver->ring(1).add({&short_header, 1});
  const DriverBuffer writable{kTransmitData, 100, true};
  machine.driver->ring(1).add({&writable, 1});
  machine.driver->kick(1);
  machine.worker->run();
  for (unsigned i = 0; i < 7; ++i) EXPECT_TRUE(machine.driver->ring(1).take_used()) << i;
  EXPECT_EQ(machine.model().counters().refused_frames, 7u);
  EXPECT_TRUE(machine.port.sent.empty());
  EXPECT_EQ(machine.driver->status() & kStatusNeedsReset, 0);
  machine.transmit({}, frame_of(NetModel::kDefaultMtu + 22));
  EXPECT_EQ(machine.port.sent.size(), 1u);
}

TEST(Net, TakesNoOpenChecksumThatWasNotNegotiated) {
  Machine machine(kRingKinds[0], kNetMac);
  machine.transmit({.flags = kNetNeedsChecksum, .checksum_start = 14, .checksum_offset = 0}, frame_of(60));
  EXPECT_TRUE(machine.port.sent.empty());
  EXPECT_EQ(machine.model().counters().refused_frames, 1u);
}

TEST(Net, GivesBackBuffersThatHoldNoHeader) {
  Machine machine;
  machine.offer(4, 0);
  machine.arrive(frame_of(100));
  const auto used = machine.driver->ring(0).take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->length, 0u);
  EXPECT_EQ(machine.model().counters().too_large_frames, 1u);
}

TEST(Net, ShowsItsAddressAndFollowsTheLink) {
  Machine machine;
  for (unsigned i = 0; i < 6; ++i) EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset + i, 1), kMac.bytes[i]);
  EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset + 6, 2), kNetLinkUp);
  EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset + 8, 2), 1u);
  EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset + 10, 2), 1500u);
  EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset + 12, 4), UINT32_MAX);
  EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset + 24, 4), 0u);
  machine.port.up = false;
  machine.port.listener();
  machine.worker->run();
  EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset + 6, 2), 0u);
  EXPECT_EQ(machine.sink.count(FakeDriver::kConfigData), 1u);
  machine.transmit({}, frame_of(60));
  EXPECT_TRUE(machine.driver->ring(1).take_used());
  EXPECT_TRUE(machine.port.sent.empty());
}

TEST(Net, RestoresWhatItSavedAndNothingElse) {
  Machine machine;
  StateWriter writer;
  machine.device->save_state(writer);
  Machine other;
  ASSERT_TRUE(other.device->restore_state(StateReader::parse(writer.encode(), "net0").value()));
  other.driver->adopt(*machine.driver);
  StateWriter wrong;
  wrong.put("features", uint64_t{1} << 40).put_bytes("mac", kMac.bytes).put("mtu", 1500);
  EXPECT_FALSE(other.model().restore_state(StateReader::parse(wrong.encode(), "net0").value()));
  FakePort port;
  const NetModel other_address("net0", port, {{2, 0, 0, 0, 0, 1}}), other_mtu("net0", port, kMac, {.mtu = 576});
  for (const NetModel* twin : {&other_address, &other_mtu}) {
    StateWriter saved;
    twin->save_state(saved);
    EXPECT_FALSE(other.model().restore_state(StateReader::parse(saved.encode(), "net0").value()));
  }
}

TEST(Net, LeavesThePortWhenItEnds) {
  FakePort port;
  {
    const NetModel model("net0", port, kMac);
  }
  EXPECT_FALSE(port.listener);
}

}  // namespace
}  // namespace bulkhead::device::virtio
