#include <gtest/gtest.h>

#include "net/frame/checksum.h"
#include "net/frame/frame_builder.h"
#include "net/switch/virtual_switch.h"

namespace bulkhead::net::switching {
namespace {

using frame::FrameBuilder, frame::MacAddress, frame::Offload;

struct Received final : Output {
  void deliver(PortId port, const OutputFrame& frame) override { out.push_back({port, frame.bytes(), frame.offload}); }
  struct Frame {
    PortId port;
    std::vector<uint8_t> bytes;
    Offload offload;
  };
  std::vector<Frame> out;
};

// A stream of 5000 bytes in one frame, to be cut into four.
std::vector<uint8_t> stream(const MacAddress& to, uint16_t vlan, Offload& offload) {
  FrameBuilder builder;
  builder.ethernet({{2, 0, 0, 0, 0, 1}}, to);
  if (vlan != 0) builder.vlan(vlan);
  std::vector<uint8_t> payload(5000);
  for (size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<uint8_t>(i / 3);
  auto frame = builder.ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2, frame::kTcpAcknowledge).payload(payload).build();
  EXPECT_TRUE(frame::make_segmented(frame, 1400, offload));
  return frame;
}

void expect_right_pieces(const Received::Frame& received, unsigned vlan) {
  unsigned count = 0;
  frame::for_each_piece(received.bytes, received.offload, [&](ByteSpan piece) {
    const frame::Headers headers = frame::read_headers(piece);
    EXPECT_EQ(headers.fault, frame::Fault::kNone);
    EXPECT_EQ(headers.vlan_tag_count, vlan != 0 ? 1 : 0);
    if (vlan != 0) {
      EXPECT_EQ(headers.vlan_tags[0].id, vlan);
    }
    const auto sum = frame::Checksum()
                         .add_pseudo_header(headers.ip->source, headers.ip->destination, 6,
                                            static_cast<uint32_t>(headers.ip->payload_size))
                         .add(piece.subspan(headers.ip->payload_offset, headers.ip->payload_size))
                         .value();
    EXPECT_EQ(sum, 0u);
    ++count;
    return true;
  });
  EXPECT_EQ(count, 4u);
}

TEST(SwitchOffload, ATagMovesWhereTheChecksumBegins) {
  VirtualSwitch fabric{{}, 1};
  VlanSet carried;
  carried.set(10);
  const GroupId access = fabric.add_group({.vlan = 10}).value();
  const GroupId trunk = fabric.add_group({.mode = VlanMode::kTrunk, .allowed_vlans = carried}).value();
  const PortId inside = fabric.add_port({.group = access}).value(), outside = fabric.add_port({.group = trunk}).value(),
               near = fabric.add_port({.group = access}).value();
  Offload offload;
  const auto plain = stream(MacAddress::broadcast(), 0, offload);
  Received received;
  fabric.forward(inside, plain, 1, received, offload);
  ASSERT_EQ(received.out.size(), 2u);
  for (const auto& each : received.out) {
    EXPECT_TRUE(each.port == outside || each.port == near);
    EXPECT_EQ(each.offload.checksum_start, each.port == outside ? 38 : 34);
    expect_right_pieces(each, each.port == outside ? 10 : 0);
  }
  const auto tagged = stream(MacAddress::broadcast(), 10, offload);
  received.out.clear();
  fabric.forward(outside, tagged, 2, received, offload);
  ASSERT_EQ(received.out.size(), 2u);
  for (const auto& each : received.out) {
    EXPECT_EQ(each.offload.checksum_start, 34);
    expect_right_pieces(each, 0);
  }
}

TEST(SwitchOffload, NothingIsLeftToDoBehindMoreTagsThanAreRead) {
  VirtualSwitch fabric{{}, 1};
  VlanSet carried;
  carried.set(10);
  const GroupId access = fabric.add_group({.vlan = 10}).value();
  const GroupId trunk = fabric.add_group({.mode = VlanMode::kTrunk, .allowed_vlans = carried}).value();
  const PortId inside = fabric.add_port({.group = access}).value();
  (void)fabric.add_port({.group = trunk}).value();
  Offload offload;
  const auto tagged = [](uint16_t more, size_t size) {
    return FrameBuilder()
        .ethernet({{2, 0, 0, 0, 0, 1}}, MacAddress::broadcast())
        .vlan(5, 0, frame::kTypeServiceVlan)
        .vlan(more)
        .ipv4("10.0.0.1", "10.0.0.2")
        .tcp(1, 2, frame::kTcpAcknowledge)
        .payload(std::vector<uint8_t>(size))
        .build();
  };
  auto frame = tagged(6, 5000);
  ASSERT_TRUE(frame::make_segmented(frame, 1400, offload));
  Received received;
  fabric.forward(inside, frame, 1, received, offload);
  EXPECT_TRUE(received.out.empty());
  EXPECT_EQ(fabric.counters(inside)->dropped(Drop::kDoubleTag), 1u);
  // Whole, it is carried.
  fabric.forward(inside, tagged(6, 100), 1, received);
  EXPECT_EQ(received.out.size(), 1u);
}

TEST(SwitchOffload, AFrameOfTheLargestSizeGetsNoTagOnTop) {
  VirtualSwitch fabric{{}, 1};
  VlanSet carried;
  carried.set(10);
  const GroupId access = fabric.add_group({.vlan = 10}).value();
  const GroupId trunk = fabric.add_group({.mode = VlanMode::kTrunk, .allowed_vlans = carried}).value();
  const PortId inside = fabric.add_port({.group = access}).value();
  (void)fabric.add_port({.group = trunk}).value();
  std::vector<uint8_t> frame = FrameBuilder().ethernet({{2, 0, 0, 0, 0, 1}}, MacAddress::broadcast()).build();
  frame.resize(frame::kMaximumFrameSize);
  Received received;
  fabric.forward(inside, frame, 1, received);
  EXPECT_TRUE(received.out.empty());
  frame.resize(frame::kMaximumFrameSize - frame::kVlanTagSize);
  fabric.forward(inside, frame, 1, received);
  EXPECT_EQ(received.out.size(), 1u);
}

TEST(SwitchOffload, AFrameThatStandsForManyCountsAsMany) {
  VirtualSwitch fabric{{}, 1};
  const GroupId group = fabric.add_group({.broadcast_frames_a_second = 10}).value();
  const PortId from = fabric.add_port({.group = group}).value();
  (void)fabric.add_port({.group = group}).value();
  Offload offload;
  const auto frame = stream(MacAddress::broadcast(), 0, offload);
  Received received;
  for (unsigned i = 0; i < 5; ++i) fabric.forward(from, frame, 1, received, offload);
  EXPECT_EQ(received.out.size(), 2u);
  EXPECT_EQ(fabric.counters(from)->dropped(Drop::kBroadcast), 3u);
}

}  // namespace
}  // namespace bulkhead::net::switching
