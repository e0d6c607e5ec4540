#include <gtest/gtest.h>

#include "device/virtio/testing/net_machine.h"
#include "net/frame/big_endian.h"
#include "net/frame/checksum.h"
#include "net/frame/frame_builder.h"

namespace bulkhead::device::virtio {
namespace {

using namespace spec::virtio;
using net::frame::FrameBuilder, net::frame::Segmentation, net::frame::Offload;

constexpr uint64_t kOffloads = kBasicNetFeatures | kNetGuestTcp4 | kNetGuestTcp6 | kNetHostTcp4 | kNetHostTcp6 |
                               kNetGuestUdp4 | kNetGuestUdp6 | kNetHostUdp | kNetControlQueue |
                               kNetControlGuestOffloads;

std::vector<uint8_t> payload_of(size_t size) {
  std::vector<uint8_t> payload(size);
  for (size_t i = 0; i < size; ++i) payload[i] = static_cast<uint8_t>(i * 5 + i / 256);
  return payload;
}

// A stream of so many bytes in one frame, its checksum as a driver leaves it.
std::vector<uint8_t> large_frame(size_t size) {
  auto frame = FrameBuilder()
                   .ethernet({{2, 0, 0, 0, 0, 9}}, kNetMacAddress)
                   .ipv4("10.0.0.1", "10.0.0.2")
                   .tcp(1, 2, net::frame::kTcpAcknowledge)
                   .payload(payload_of(size))
                   .build();
  const uint16_t sum =
      net::frame::Checksum()
          .add_pseudo_header(net::frame::IpAddress::parse("10.0.0.1").value(),
                             net::frame::IpAddress::parse("10.0.0.2").value(), 6, static_cast<uint32_t>(20 + size))
          .value();
  net::frame::store_big16(frame.data() + 50, static_cast<uint16_t>(~sum));
  return frame;
}

constexpr NetHeader kLarge{.flags = kNetNeedsChecksum,
                           .gso_type = kNetGsoTcp4,
                           .header_size = 54,
                           .gso_size = 1460,
                           .checksum_start = 34,
                           .checksum_offset = 16};
constexpr Offload kLargeOffload{.segmentation = Segmentation::kTcpIpv4,
                                .segment_size = 1460,
                                .is_checksum_open = true,
                                .checksum_start = 34,
                                .checksum_offset = 16};

class NetOffload : public testing::TestWithParam<RingKind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, NetOffload, testing::ValuesIn(kRingKinds));

TEST_P(NetOffload, SendsAStreamWhole) {
  NetMachine machine(GetParam(), kOffloads);
  const auto frame = large_frame(20'000);
  machine.transmit(kLarge, frame);
  ASSERT_EQ(machine.port.sent.size(), 1u);
  EXPECT_EQ(machine.port.sent[0], frame);
  EXPECT_EQ(machine.port.sent_offloads[0], kLargeOffload);
}

TEST_P(NetOffload, ReceivesAStreamWholeOrInPiecesAsTheDriverTakesIt) {
  const auto frame = large_frame(5'000);
  {
    NetMachine machine(GetParam(), kOffloads);
    machine.port.waiting_offload = kLargeOffload;
    for (unsigned i = 0; i < 4; ++i) machine.offer(1536, i);
    machine.arrive(frame);
    std::vector<uint8_t> received;
    for (unsigned i = 0; i < 4; ++i) {
      const auto used = machine.driver->ring(0).take_used();
      ASSERT_TRUE(used) << i;
      const auto part = machine.driver->get(kReceiveData + 0x1'0000 * i, used->length);
      received.insert(received.end(), part.begin(), part.end());
    }
    NetHeader expected = kLarge;
    expected.buffer_count = 4;
    EXPECT_TRUE(std::ranges::equal(as_bytes(expected), std::span(received).first(sizeof expected)));
    EXPECT_TRUE(std::ranges::equal(frame, std::span(received).subspan(sizeof expected)));
  }
  NetMachine machine(GetParam(), kNetMac | kNetMergeableBuffers);
  machine.port.waiting_offload = kLargeOffload;
  // Two now, the others when there is room for them.
  for (unsigned i = 0; i < 2; ++i) machine.offer(1600, i);
  machine.arrive(frame);
  EXPECT_EQ(machine.worker->run(), 0u);
  for (unsigned i = 2; i < 4; ++i) machine.offer(1600, i);
  std::vector<uint8_t> said;
  for (unsigned i = 0; i < 4; ++i) {
    const auto used = machine.driver->ring(0).take_used();
    ASSERT_TRUE(used) << i;
    const auto piece = machine.driver->get(kReceiveData + 0x1'0000 * i, used->length);
    const auto header = load<NetHeader>(piece.data());
    EXPECT_EQ(header.flags, 0);
    EXPECT_EQ(header.gso_type, kNetGsoNone);
    const auto headers = net::frame::read_headers(ByteSpan(piece).subspan(sizeof header));
    ASSERT_EQ(headers.fault, net::frame::Fault::kNone);
    EXPECT_EQ(headers.tcp->sequence, 1 + 1460 * i);
    const auto part =
        ByteSpan(piece).subspan(sizeof header + headers.transport_payload_offset, headers.transport_payload_size);
    said.insert(said.end(), part.begin(), part.end());
  }
  EXPECT_EQ(said, payload_of(5'000));
}

TEST(NetOffload, RefusesLengthsThatTheFrameDoesNotHave) {
  NetMachine machine(kRingKinds[7], kOffloads);
  const auto frame = large_frame(5'000);
  const auto send = [&](auto change) {
    NetHeader header = kLarge;
    change(header);
    machine.transmit(header, frame);
    EXPECT_TRUE(machine.driver->ring(1).take_used());
  };
  // Larger pieces than the MTU, than the frame; none; too many; without a checksum; in another place.
  send([](NetHeader& header) { header.gso_size = 1469; });
  send([](NetHeader& header) { header.gso_size = 65535; });
  send([](NetHeader& header) { header.gso_size = 0; });
  send([](NetHeader& header) { header.gso_size = 1; });
  send([](NetHeader& header) { header.flags = 0; });
  send([](NetHeader& header) { header.checksum_start = 4990; });
  send([](NetHeader& header) { header.checksum_offset = 0; });
  send([](NetHeader& header) { header.gso_type = kNetGsoTcp6; });
  send([](NetHeader& header) { header.gso_type = kNetGsoUdp; });
  send([](NetHeader& header) { header.gso_type = 0x81; });
  send([](NetHeader& header) { header.gso_type = kNetGsoNone; });
  EXPECT_TRUE(machine.port.sent.empty());
  EXPECT_EQ(machine.model().counters().refused_frames, 11u);
  // A driver's hint is only that.
  send([](NetHeader& header) { header.header_size = 9; });
  EXPECT_EQ(machine.port.sent.size(), 1u);
  machine.transmit(kLarge, std::vector<uint8_t>(net::frame::kMaximumFrameSize + 1));
  EXPECT_EQ(machine.model().counters().refused_frames, 12u);
  NetMachine plain;
  plain.transmit(kLarge, frame);
  EXPECT_EQ(plain.model().counters().refused_frames, 1u);
}

TEST(NetOffload, TakesNothingLargerThanTheCardFromTheNetwork) {
  NetMachine machine(kRingKinds[7], kOffloads);
  for (unsigned i = 0; i < 8; ++i) machine.offer(4096, i);
  machine.arrive(std::vector<uint8_t>(NetModel::kDefaultMtu + 23));
  machine.port.waiting_offload = kLargeOffload;
  machine.port.waiting_offload.segment_size = 3000;
  machine.arrive(large_frame(5'000));
  EXPECT_FALSE(machine.driver->ring(0).take_used());
  EXPECT_EQ(machine.model().counters().too_large_frames, 2u);
}

TEST(NetOffload, IsSwitchedOffAndOnByTheDriver) {
  NetMachine machine(kRingKinds[3], kOffloads);
  const auto mask = [](uint64_t bits) { return std::vector<uint8_t>(as_bytes(bits).begin(), as_bytes(bits).end()); };
  EXPECT_EQ(machine.command(kNetClassGuestOffloads, kNetControlOffloadsSet, mask(1)), kNetControlError);
  EXPECT_EQ(machine.command(kNetClassGuestOffloads, kNetControlOffloadsSet, mask(kNetGuestChecksum)), kNetControlOk);
  machine.port.waiting_offload = kLargeOffload;
  for (unsigned i = 0; i < 4; ++i) machine.offer(4096, i);
  machine.arrive(large_frame(2'000));
  for (unsigned i = 0; i < 2; ++i) EXPECT_TRUE(machine.driver->ring(0).take_used());
  EXPECT_EQ(machine.command(kNetClassGuestOffloads, kNetControlOffloadsSet, mask(kNetGuestChecksum | kNetGuestTcp4)),
            kNetControlOk);
  machine.arrive(large_frame(2'000));
  EXPECT_TRUE(machine.driver->ring(0).take_used());
  EXPECT_FALSE(machine.driver->ring(0).take_used());
}

TEST(NetOffload, IsNotOfferedWhereTheMachineSaysNo) {
  FakePort port;
  const NetModel model("net0", port, kNetMacAddress, {.offloads = false});
  EXPECT_EQ(model.features() & (kOffloads & ~kBasicNetFeatures), kNetControlQueue);
  EXPECT_EQ(model.features() & (kNetChecksum | kNetGuestChecksum), 0u);
}

}  // namespace
}  // namespace bulkhead::device::virtio
