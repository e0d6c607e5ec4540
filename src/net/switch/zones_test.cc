// What zones keep from each other in a switch, and mirrors whose copies come back.
#include <gtest/gtest.h>

#include "net/frame/frame_builder.h"
#include "net/switch/virtual_switch.h"

namespace bulkhead::net::switching {
namespace {

using frame::FrameBuilder, frame::MacAddress;
using Bytes = std::vector<uint8_t>;

constexpr uint64_t kSecond = 1'000'000'000;

struct Recorder final : Output {
  void deliver(PortId port, const OutputFrame& frame) override {
    ports.push_back(port);
    frames.push_back(frame.bytes());
  }
  std::vector<PortId> ports;
  std::vector<Bytes> frames;
};

struct World {
  GroupId group(uint16_t zone) {
    return fabric.add_group({.name = "open", .zone = zone, .forged_mac = Permission::kAllow}).value();
  }
  std::vector<PortId> send(PortId from, const Bytes& frame) {
    Recorder recorder;
    fabric.forward(from, frame, now, recorder);
    return recorder.ports;
  }
  VirtualSwitch fabric{{}, 7};
  uint64_t now = kSecond;
};

MacAddress mac(uint8_t number) {
  return {{6, 0, 0, 0, 0, number}};
}
Bytes from_to(uint8_t from, uint8_t to) {
  return FrameBuilder().ethernet(mac(from), mac(to)).type(0x88B5).payload("x").build();
}

TEST(VirtualSwitch, AnAddressMovesWithinItsZoneOnly) {
  World world;
  const GroupId near = world.group(0), far = world.group(1);
  const PortId one = world.fabric.add_port({.group = near}).value(),
               two = world.fabric.add_port({.group = near}).value();
  const PortId thief = world.fabric.add_port({.group = far}).value();
  (void)world.send(one, from_to(1, 2));
  (void)world.send(two, from_to(2, 1));
  EXPECT_EQ(world.send(thief, from_to(1, 2)), (std::vector<PortId>{}));
  EXPECT_EQ(world.fabric.counters(thief)->dropped(Drop::kForgedMac), 1u);
  EXPECT_EQ(world.send(two, from_to(2, 1)), (std::vector<PortId>{one}));
  EXPECT_TRUE(world.fabric.is_heard(far, mac(1), world.now));
  EXPECT_FALSE(world.fabric.is_heard(far, mac(3), world.now));
  // Within the zone it moves, and whoever is silent for long has none.
  (void)world.send(two, from_to(1, 2));
  EXPECT_EQ(world.send(one, from_to(3, 1)), (std::vector<PortId>{two}));
  world.now += MacTableLimits{}.age_ns + kSecond;
  EXPECT_FALSE(world.fabric.is_heard(far, mac(1), world.now));
  EXPECT_EQ(world.send(thief, from_to(1, 9)), (std::vector<PortId>{one, two}));
}

TEST(VirtualSwitch, AMirrorWhoseCopiesComeBackRests) {
  World world;
  const GroupId open = world.group(0);
  const PortId tap = world.fabric.add_port({.group = open}).value();
  const PortId card = world.fabric.add_port({.group = open}).value(),
               up = world.fabric.add_port({.group = open}).value();
  ASSERT_TRUE(world.fabric.add_mirror({.ports = {card}, .target = tap}));
  Recorder probes;
  world.fabric.probe_for_loops(world.now, probes);
  ASSERT_EQ(probes.ports, (std::vector<PortId>{tap, card, up}));
  // What others are sent is not enough to stop it.
  Bytes forged = probes.frames[1];
  forged[14] = forged[15] = 0;
  EXPECT_EQ(world.send(card, forged), (std::vector<PortId>{}));
  world.now += VirtualSwitch::kLoopPause_ns;
  EXPECT_EQ(world.send(card, from_to(1, 2)), (std::vector<PortId>{tap, up}));
  // The mirror's network leads back to another port: it rests, and the port does not.
  EXPECT_EQ(world.send(up, probes.frames[0]), (std::vector<PortId>{}));
  EXPECT_EQ(world.send(card, from_to(1, 2)), (std::vector<PortId>{up}));
  EXPECT_EQ(world.send(up, from_to(2, 1)), (std::vector<PortId>{card}));
  EXPECT_EQ(world.fabric.counters(tap)->dropped(Drop::kLoop), 1u);
  world.now += VirtualSwitch::kLoopPause_ns;
  EXPECT_EQ(world.send(card, from_to(1, 2)), (std::vector<PortId>{tap, up}));
}

// What a card that may only send as itself gets as a mirror comes back by another of its machine's ports.
TEST(VirtualSwitch, AMirrorIsProbedWhateverItsTargetMaySendAs) {
  World world;
  const GroupId closed = world.fabric.add_group({.name = "closed", .zone = 0}).value();
  const PortId ids = world.fabric.add_port({.group = closed, .mac = mac(8)}).value();
  const PortId card = world.fabric.add_port({.group = closed, .mac = mac(1)}).value();
  const PortId back = world.fabric.add_port({.group = world.group(0)}).value();
  ASSERT_TRUE(world.fabric.add_mirror({.ports = {card}, .target = ids}));
  Recorder probes;
  world.fabric.probe_for_loops(world.now, probes);
  ASSERT_EQ(probes.ports, (std::vector<PortId>{ids, back}));
  EXPECT_EQ(world.send(back, probes.frames[0]), (std::vector<PortId>{}));
  EXPECT_EQ(world.fabric.counters(ids)->dropped(Drop::kLoop), 1u);
}

}  // namespace
}  // namespace bulkhead::net::switching
