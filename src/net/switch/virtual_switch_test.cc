#include "net/switch/virtual_switch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/frame/frame_builder.h"

namespace bulkhead::net::switching {
namespace {

using frame::FrameBuilder, frame::MacAddress;
using testing::ElementsAre, testing::IsEmpty, testing::UnorderedElementsAre;

constexpr uint64_t kSecond = 1'000'000'000;

MacAddress mac(uint32_t number) {
  return {{2, 0, static_cast<uint8_t>(number >> 24), static_cast<uint8_t>(number >> 16),
           static_cast<uint8_t>(number >> 8), static_cast<uint8_t>(number)}};
}
std::vector<uint8_t> from_to(uint32_t source, uint32_t destination) {
  return FrameBuilder().ethernet(mac(source), mac(destination)).payload("some bytes").build();
}
std::vector<uint8_t> broadcast_from(uint32_t source) {
  return FrameBuilder().ethernet(mac(source), MacAddress::broadcast()).payload("some bytes").build();
}

struct Recorder final : Output {
  void deliver(PortId port, const OutputFrame& frame) override { out.emplace_back(port, frame.bytes()); }
  std::vector<std::pair<PortId, std::vector<uint8_t>>> out;
};

struct World {
  GroupId group(GroupPolicy policy) { return fabric.add_group(std::move(policy)).value(); }
  PortId port(GroupId group, PortConfig config = {}) {
    config.group = group;
    return fabric.add_port(std::move(config)).value();
  }
  // The ports that a frame reaches.
  std::vector<PortId> send(PortId from, const std::vector<uint8_t>& frame) {
    Recorder recorder;
    fabric.forward(from, frame, now, recorder);
    last = std::move(recorder.out);
    std::vector<PortId> ports;
    for (const auto& [port, bytes] : last) ports.push_back(port);
    return ports;
  }
  const std::vector<uint8_t>& bytes_at(PortId port) const {
    for (const auto& [to, bytes] : last) {
      if (to == port) return bytes;
    }
    static const std::vector<uint8_t> kNone;
    return kNone;
  }
  uint64_t dropped(PortId port, Drop drop) { return fabric.counters(port)->dropped(drop); }

  VirtualSwitch fabric{{}, 12345};
  uint64_t now = kSecond;
  std::vector<std::pair<PortId, std::vector<uint8_t>>> last;
};

VlanSet vlans(std::initializer_list<uint16_t> list) {
  VlanSet set;
  for (const uint16_t vlan : list) set.set(vlan);
  return set;
}

TEST(VirtualSwitch, FloodsUntilItHasLearned) {
  World world;
  const GroupId group = world.group({});
  const PortId a = world.port(group), b = world.port(group), c = world.port(group);
  EXPECT_THAT(world.send(a, from_to(1, 2)), UnorderedElementsAre(b, c));
  EXPECT_THAT(world.send(b, from_to(2, 1)), ElementsAre(a));
  EXPECT_THAT(world.send(a, from_to(1, 2)), ElementsAre(b));
  EXPECT_EQ(world.bytes_at(b), from_to(1, 2));
  EXPECT_THAT(world.send(c, broadcast_from(3)), UnorderedElementsAre(a, b));
  // To whoever is on the sender's own port: nothing to do.
  EXPECT_THAT(world.send(a, from_to(9, 1)), IsEmpty());
}

TEST(VirtualSwitch, ForgetsAnAddressThatIsSilent) {
  World world;
  const GroupId group = world.group({});
  const PortId a = world.port(group), b = world.port(group), c = world.port(group);
  world.send(b, from_to(2, 1));
  EXPECT_THAT(world.send(a, from_to(1, 2)), ElementsAre(b));
  world.now += 301 * kSecond;
  EXPECT_THAT(world.send(a, from_to(1, 2)), UnorderedElementsAre(b, c));
}

TEST(VirtualSwitch, FollowsAnAddressThatMoves) {
  World world;
  const GroupId group = world.group({});
  const PortId a = world.port(group), b = world.port(group), c = world.port(group);
  world.send(b, from_to(2, 1));
  world.send(c, from_to(2, 1));
  EXPECT_THAT(world.send(a, from_to(1, 2)), ElementsAre(c));
  EXPECT_EQ(world.fabric.counters(c)->moved_addresses, 1u);
}

TEST(VirtualSwitch, ForgetsThePortThatWasRemoved) {
  World world;
  const GroupId group = world.group({});
  const PortId a = world.port(group), b = world.port(group, {.mac = mac(2)});
  world.send(b, from_to(2, 1));
  world.fabric.remove_port(b);
  EXPECT_THAT(world.send(a, from_to(1, 2)), IsEmpty());
  const PortId again = world.port(group, {.mac = mac(2)});
  EXPECT_EQ(again, b);
  EXPECT_EQ(world.fabric.counters(again)->sent_frames, 0u);
}

TEST(VirtualSwitch, KeepsVlansApart) {
  World world;
  const GroupId ten = world.group({.vlan = 10}), twenty = world.group({.vlan = 20});
  const PortId a = world.port(ten), b = world.port(ten);
  const PortId c = world.port(twenty);
  EXPECT_THAT(world.send(a, broadcast_from(1)), ElementsAre(b));
  EXPECT_THAT(world.send(c, from_to(3, 1)), IsEmpty());
  // The same address in both.
  world.send(c, broadcast_from(1));
  EXPECT_THAT(world.send(b, from_to(2, 1)), ElementsAre(a));
}

TEST(VirtualSwitch, TagsOnATrunkAndNotOnItsNativeVlan) {
  World world;
  const GroupId ten = world.group({.vlan = 10}), twenty = world.group({.vlan = 20}), thirty = world.group({.vlan = 30});
  const GroupId trunk = world.group({.mode = VlanMode::kTrunk, .allowed_vlans = vlans({10, 20}), .native_vlan = 20});
  const PortId a = world.port(ten), b = world.port(twenty), c = world.port(thirty), t = world.port(trunk);
  EXPECT_THAT(world.send(a, broadcast_from(1)), ElementsAre(t));
  EXPECT_EQ(world.bytes_at(t),
            FrameBuilder().ethernet(mac(1), MacAddress::broadcast()).vlan(10).payload("some bytes").build());
  EXPECT_THAT(world.send(b, broadcast_from(2)), ElementsAre(t));
  EXPECT_EQ(world.bytes_at(t), broadcast_from(2));
  EXPECT_THAT(world.send(c, broadcast_from(3)), IsEmpty());
  // And back.
  EXPECT_THAT(world.send(t, FrameBuilder().ethernet(mac(9), mac(1)).vlan(10).payload("some bytes").build()),
              ElementsAre(a));
  EXPECT_EQ(world.bytes_at(a), from_to(9, 1));
  EXPECT_THAT(world.send(t, from_to(8, 2)), ElementsAre(b));
  EXPECT_THAT(world.send(t, FrameBuilder().vlan(30).payload("x").build()), IsEmpty());
  EXPECT_EQ(world.dropped(t, Drop::kVlan), 1u);
}

TEST(VirtualSwitch, DropsWithoutATagWhatNoNativeVlanTakes) {
  World world;
  const PortId t = world.port(world.group({.mode = VlanMode::kTrunk, .allowed_vlans = vlans({10})}));
  world.port(world.group({.vlan = 10}));
  EXPECT_THAT(world.send(t, broadcast_from(1)), IsEmpty());
  EXPECT_THAT(world.send(t, FrameBuilder().vlan(0, 5).payload("x").build()), IsEmpty());
  EXPECT_EQ(world.dropped(t, Drop::kVlan), 2u);
}

TEST(VirtualSwitch, KeepsThePriorityFromTrunkToTrunk) {
  World world;
  const GroupId trunk = world.group({.mode = VlanMode::kTrunk, .allowed_vlans = vlans({10})});
  const PortId a = world.port(trunk), b = world.port(trunk);
  const auto frame = FrameBuilder().ethernet(mac(1), mac(2)).vlan(10, 6).payload("x").build();
  EXPECT_THAT(world.send(a, frame), ElementsAre(b));
  EXPECT_EQ(world.bytes_at(b), frame);
}

TEST(VirtualSwitch, TakesAPriorityTagForNoTag) {
  World world;
  const GroupId ten = world.group({.vlan = 10});
  const PortId a = world.port(ten), b = world.port(ten);
  EXPECT_THAT(world.send(a, FrameBuilder().ethernet(mac(1), mac(2)).vlan(0, 5).payload("some bytes").build()),
              ElementsAre(b));
  EXPECT_EQ(world.bytes_at(b), from_to(1, 2));
}

TEST(VirtualSwitch, CarriesTagsThroughATunnel) {
  World world;
  const GroupId tunnel = world.group({.mode = VlanMode::kTunnel, .vlan = 100});
  const GroupId trunk =
      world.group({.mode = VlanMode::kTrunk, .allowed_vlans = vlans({100}), .tag_protocol = frame::kTypeServiceVlan});
  const PortId a = world.port(tunnel), b = world.port(tunnel), t = world.port(trunk);
  const auto inner = FrameBuilder().ethernet(mac(1), mac(2)).vlan(7).payload("x").build();
  EXPECT_THAT(world.send(a, inner), UnorderedElementsAre(b, t));
  EXPECT_EQ(world.bytes_at(b), inner);
  const auto outer =
      FrameBuilder().ethernet(mac(1), mac(2)).vlan(100, 0, frame::kTypeServiceVlan).vlan(7).payload("x").build();
  EXPECT_EQ(world.bytes_at(t), outer);
  const auto back =
      FrameBuilder().ethernet(mac(2), mac(1)).vlan(100, 0, frame::kTypeServiceVlan).vlan(7).payload("x").build();
  EXPECT_THAT(world.send(t, back), ElementsAre(a));
  EXPECT_EQ(world.bytes_at(a), FrameBuilder().ethernet(mac(2), mac(1)).vlan(7).payload("x").build());
}

// The old trick to reach another VLAN: an inner tag that becomes the outer one where the native VLAN loses its own.
TEST(VirtualSwitch, LetsNoInnerTagOutInPlaceOfAnOuterOne) {
  World world;
  const GroupId trunk = world.group({.mode = VlanMode::kTrunk, .allowed_vlans = vlans({10, 20}), .native_vlan = 10});
  const PortId a = world.port(trunk), b = world.port(trunk);
  EXPECT_THAT(world.send(a, FrameBuilder().vlan(10).vlan(20).payload("x").build()), IsEmpty());
  EXPECT_EQ(world.dropped(a, Drop::kDoubleTag), 1u);
  const PortId access = world.port(world.group({.vlan = 10}));
  EXPECT_THAT(world.send(access, FrameBuilder().vlan(20, 0, frame::kTypeServiceVlan).payload("x").build()), IsEmpty());
  EXPECT_THAT(world.send(access, FrameBuilder().vlan(20).payload("x").build()), IsEmpty());
  EXPECT_THAT(world.send(access, FrameBuilder().vlan(10).payload("x").build()), IsEmpty());
  (void)b;
}

TEST(VirtualSwitch, DropsForgedMacAddresses) {
  World world;
  const GroupId strict = world.group({}), loose = world.group({.forged_mac = Permission::kAllow});
  const PortId a = world.port(strict, {.mac = mac(1)}), b = world.port(loose, {.mac = mac(2)});
  EXPECT_THAT(world.send(a, from_to(1, 2)), ElementsAre(b));
  EXPECT_THAT(world.send(a, from_to(7, 2)), IsEmpty());
  EXPECT_THAT(world.send(b, from_to(7, 1)), ElementsAre(a));
  // Another port's own address is nobody's, whatever the group allows.
  EXPECT_THAT(world.send(b, from_to(1, 9)), IsEmpty());
  EXPECT_EQ(world.dropped(a, Drop::kForgedMac), 1u);
  EXPECT_EQ(world.dropped(b, Drop::kForgedMac), 1u);
  EXPECT_THAT(world.send(b, FrameBuilder().ethernet(MacAddress::broadcast(), mac(1)).payload("x").build()), IsEmpty());
  EXPECT_FALSE(world.fabric.add_port({.name = "twin", .group = loose, .mac = mac(1)}));
}

TEST(VirtualSwitch, DropsForgedIpAddresses) {
  World world;
  const GroupId group = world.group({});
  const PortId a = world.port(group, {.mac = mac(1),
                                      .ip_addresses = {frame::IpAddress::parse("10.0.0.1").value(),
                                                       frame::IpAddress::parse("fd00::1").value()}});
  const PortId b = world.port(group, {.mac = mac(2)});
  const auto ip = [&](const char* source, const char* destination) {
    return FrameBuilder().ethernet(mac(1), mac(2)).ipv4(source, destination).udp(1000, 2000).build();
  };
  const auto arp = [&](uint32_t sender_mac, const char* sender) {
    return FrameBuilder()
        .ethernet(mac(1), MacAddress::broadcast())
        .arp({.operation = frame::kArpReply,
              .sender_mac = mac(sender_mac),
              .sender = frame::IpAddress::parse(sender).value()})
        .build();
  };
  EXPECT_THAT(world.send(a, ip("10.0.0.1", "10.0.0.2")), ElementsAre(b));
  EXPECT_THAT(world.send(a, ip("10.0.0.9", "10.0.0.2")), IsEmpty());
  EXPECT_THAT(world.send(a, ip("fd00::1", "fd00::2")), ElementsAre(b));
  EXPECT_THAT(world.send(a, ip("fd00::9", "fd00::2")), IsEmpty());
  EXPECT_THAT(world.send(a, ip("fe80::9", "fd00::2")), ElementsAre(b));
  EXPECT_THAT(world.send(a, arp(1, "10.0.0.1")), ElementsAre(b));
  EXPECT_THAT(world.send(a, arp(1, "0.0.0.0")), ElementsAre(b));
  EXPECT_THAT(world.send(a, arp(1, "10.0.0.9")), IsEmpty());
  EXPECT_THAT(world.send(a, arp(7, "10.0.0.1")), IsEmpty());
  auto broken = ip("10.0.0.1", "10.0.0.2");
  broken[24] ^= 1;
  EXPECT_THAT(world.send(a, broken), IsEmpty());
  EXPECT_EQ(world.dropped(a, Drop::kForgedAddress), 5u);
}

// A card that may have any address has none that belongs to another one.
TEST(VirtualSwitch, ProtectsTheAddressesOfCardsFromThoseWithoutAny) {
  World world;
  const GroupId group = world.group({}), other_vlan = world.group({.vlan = 20}),
                open = world.group({.forged_address = Permission::kAllow}),
                trunk = world.group({.mode = VlanMode::kTrunk, .allowed_vlans = vlans({1, 20})});
  const auto address = [](const char* text) { return frame::IpAddress::parse(text).value(); };
  const PortId plc = world.port(group, {.mac = mac(1), .ip_addresses = {address("10.0.0.1"), address("fd00::1")}});
  const PortId thief = world.port(group, {.mac = mac(2)}), elsewhere = world.port(other_vlan),
               allowed = world.port(open), tap = world.port(trunk);
  const auto ip = [](uint32_t from, const char* source) {
    return FrameBuilder().ethernet(mac(from), MacAddress::broadcast()).ipv4(source, "10.0.0.9").udp(1, 2).build();
  };
  const auto arp = [&](const char* sender) {
    return FrameBuilder()
        .ethernet(mac(2), MacAddress::broadcast())
        .arp({.operation = frame::kArpReply, .sender_mac = mac(2), .sender = address(sender)})
        .build();
  };
  const auto neighbour = [&](uint8_t type, const char* source, const char* target) {
    return FrameBuilder()
        .ethernet(mac(2), MacAddress::broadcast())
        .ipv6(source, "ff02::1")
        .icmp(type)
        .payload(ByteSpan(address(target).bytes))
        .build();
  };
  // fe80::ff:fe00:1 has the PLC's MAC address in it.
  for (const auto& forged :
       {ip(2, "10.0.0.1"), arp("10.0.0.1"), neighbour(136, "fd00::2", "fd00::1"), neighbour(136, "fd00::1", "fd00::2"),
        neighbour(135, "::", "fd00::1"), neighbour(136, "fe80::2", "fe80::ff:fe00:1"),
        FrameBuilder().ethernet(mac(2), mac(1)).ipv6("fe80::ff:fe00:1", "fd00::1").udp(1, 2).build()}) {
    EXPECT_THAT(world.send(thief, forged), IsEmpty());
  }
  EXPECT_EQ(world.dropped(thief, Drop::kForgedAddress), 7u);
  for (const auto& honest : {ip(2, "10.0.0.2"), arp("10.0.0.2"), arp("0.0.0.0"), neighbour(136, "fd00::2", "fd00::2"),
                             neighbour(135, "fd00::2", "fd00::1"), neighbour(136, "fe80::2", "fe80::ff:fe00:2")}) {
    EXPECT_THAT(world.send(thief, honest), UnorderedElementsAre(plc, allowed, tap));
  }
  // In a VLAN that the owner is not in, and where the group allows it.
  EXPECT_THAT(world.send(elsewhere, ip(3, "10.0.0.1")), ElementsAre(tap));
  EXPECT_THAT(world.send(allowed, ip(4, "10.0.0.1")), UnorderedElementsAre(plc, thief, tap));
  const auto tagged = [](uint16_t vlan) {
    return FrameBuilder().ethernet(mac(5), mac(9)).vlan(vlan).ipv4("10.0.0.1", "10.0.0.9").udp(1, 2).build();
  };
  EXPECT_THAT(world.send(tap, tagged(1)), IsEmpty());
  EXPECT_THAT(world.send(tap, tagged(20)), ElementsAre(elsewhere));
  world.fabric.remove_port(plc);
  EXPECT_THAT(world.send(thief, ip(2, "10.0.0.1")), UnorderedElementsAre(allowed, tap));
}

// Who hears that another is a member would not say so itself, and lose its group when it is forgotten.
TEST(VirtualSwitch, ShowsMembershipsToRoutersAlone) {
  World world;
  const GroupId group = world.group({}), routers = world.group({.network_services = Permission::kAllow});
  const PortId one = world.port(group), other = world.port(group), router = world.port(routers);
  constexpr MacAddress kGroup{{0x01, 0, 0x5E, 1, 2, 3}};
  const auto igmp = [&](uint32_t from, std::string_view message) {
    auto bytes = FrameBuilder()
                     .ethernet(mac(from), kGroup)
                     .ipv4("10.0.0.1", "239.1.2.3")
                     .protocol(frame::kProtocolIgmp)
                     .payload(message)
                     .build();
    // Hop limit 1; the header's checksum goes up by what the byte goes down (64 - 1, RFC 1624).
    bytes[22] = 1;
    uint32_t sum = (uint32_t{bytes[24]} << 8 | bytes[25]) + (63u << 8);
    sum = (sum & 0xFFFF) + (sum >> 16);
    bytes[24] = static_cast<uint8_t>(sum >> 8);
    bytes[25] = static_cast<uint8_t>(sum);
    return bytes;
  };
  const std::string_view report("\x16\0\0\0\xef\1\2\3", 8), leave("\x17\0\0\0\xef\1\2\3", 8),
      query("\x11\x64\0\0\0\0\0\0", 8);
  // Without a router nobody's membership is known, and nothing is lost.
  EXPECT_THAT(world.send(one, igmp(1, report)), UnorderedElementsAre(other, router));
  EXPECT_THAT(world.send(router, igmp(9, query)), UnorderedElementsAre(one, other));
  EXPECT_THAT(world.send(one, igmp(1, report)), ElementsAre(router));
  EXPECT_THAT(world.send(other, igmp(2, report)), ElementsAre(router));
  EXPECT_THAT(world.send(other, igmp(2, leave)), ElementsAre(router));
}

TEST(VirtualSwitch, CountsWhatCannotGoOutWhereItBelongs) {
  World world;
  const GroupId here = world.group({}), there = world.group({.vlan = 20});
  const PortId one = world.port(here, {.mac = mac(1)});
  world.port(there, {.mac = mac(2)});
  EXPECT_THAT(world.send(one, from_to(1, 2)), IsEmpty());
  EXPECT_EQ(world.dropped(one, Drop::kVlan), 1u);
  EXPECT_THAT(world.send(one, broadcast_from(1)), IsEmpty());
  EXPECT_EQ(world.dropped(one, Drop::kVlan), 1u);
}

TEST(VirtualSwitch, LetsNoGuestActAsDhcpServerOrRouter) {
  World world;
  const GroupId guests = world.group({}), services = world.group({.network_services = Permission::kAllow});
  const PortId a = world.port(guests), b = world.port(services);
  const auto dhcp = FrameBuilder().ipv4("10.0.0.1", "255.255.255.255").udp(67, 68).build();
  const auto router = FrameBuilder()
                          .ethernet(mac(5), mac(6))
                          .ipv6("fe80::1", "ff02::1")
                          .protocol(frame::kProtocolIcmpv6)
                          .icmp(134)
                          .build();
  EXPECT_THAT(world.send(a, dhcp), IsEmpty());
  EXPECT_THAT(world.send(a, router), IsEmpty());
  EXPECT_EQ(world.dropped(a, Drop::kNetworkService), 2u);
  EXPECT_THAT(world.send(b, dhcp), ElementsAre(a));
  EXPECT_THAT(world.send(a, FrameBuilder().ipv4("0.0.0.0", "255.255.255.255").udp(68, 67).build()), ElementsAre(b));
}

TEST(VirtualSwitch, LimitsBroadcastMulticastAndBytesForEachPort) {
  World world;
  const GroupId limited =
      world.group({.rate_bytes_a_second = 1'000'000, .broadcast_frames_a_second = 10, .multicast_frames_a_second = 5});
  const PortId a = world.port(limited), b = world.port(limited), c = world.port(limited);
  world.send(b, from_to(2, 1));
  const auto multicast = FrameBuilder().ethernet(mac(1), {{1, 0, 0x5E, 0, 0, 1}}).payload("x").build();
  unsigned broadcasts = 0, multicasts = 0;
  for (unsigned i = 0; i < 100; ++i) {
    if (!world.send(a, broadcast_from(1)).empty()) ++broadcasts;
    if (!world.send(a, multicast).empty()) ++multicasts;
  }
  EXPECT_EQ(broadcasts, 10u);
  EXPECT_EQ(multicasts, 5u);
  EXPECT_EQ(world.dropped(a, Drop::kBroadcast), 90u);
  // Unicast and other ports go on.
  EXPECT_THAT(world.send(a, from_to(1, 2)), ElementsAre(b));
  EXPECT_THAT(world.send(c, broadcast_from(3)), UnorderedElementsAre(a, b));
  world.now += kSecond / 2;
  broadcasts = 0;
  for (unsigned i = 0; i < 100; ++i) broadcasts += world.send(a, broadcast_from(1)).empty() ? 0 : 1;
  EXPECT_EQ(broadcasts, 5u);
  // A second of the whole rate.
  const auto large = FrameBuilder().ethernet(mac(1), mac(2)).payload(std::vector<uint8_t>(1000 - 14)).build();
  world.now += kSecond;
  unsigned whole = 0;
  for (unsigned i = 0; i < 3000; ++i) {
    world.now += kSecond / 3000;
    whole += world.send(a, large).empty() ? 0 : 1;
  }
  EXPECT_NEAR(whole, 1100, 30);
}

TEST(VirtualSwitch, KeepsTheNeighboursWhenAPortFloodsAMillionAddresses) {
  World world;
  const GroupId loose = world.group({.forged_mac = Permission::kAllow});
  const PortId a = world.port(loose), b = world.port(loose), attacker = world.port(loose);
  world.send(a, from_to(1, 2));
  world.send(b, from_to(2, 1));
  const size_t memory = world.fabric.addresses().memory_bytes();
  auto frame = from_to(0, 1);
  for (uint32_t i = 0; i < 1'000'000; ++i) {
    const MacAddress source = mac(0x1000'0000 + i);
    std::ranges::copy(source.bytes, frame.begin() + 6);
    world.now += 1000;
    world.send(attacker, frame);
  }
  EXPECT_EQ(world.fabric.addresses().memory_bytes(), memory);
  EXPECT_LE(world.fabric.addresses().count_of(attacker), MacTableLimits{}.addresses_a_port);
  EXPECT_GT(world.fabric.counters(attacker)->not_learned, 900'000u);
  EXPECT_THAT(world.send(a, from_to(1, 2)), ElementsAre(b));
  EXPECT_THAT(world.send(b, from_to(2, 1)), ElementsAre(a));
  // A new neighbour finds room.
  const PortId late = world.port(loose);
  world.send(late, from_to(3, 1));
  EXPECT_THAT(world.send(a, from_to(1, 3)), ElementsAre(late));
}

TEST(VirtualSwitch, MirrorsWhatAPortSendsAndReceives) {
  World world;
  const GroupId ten = world.group({.vlan = 10});
  const PortId a = world.port(ten), b = world.port(ten), c = world.port(ten), ids = world.port(ten);
  ASSERT_TRUE(world.fabric.add_mirror({.ports = {a}, .target = ids}));
  world.send(a, broadcast_from(1));
  world.send(b, from_to(2, 1));
  EXPECT_THAT(world.send(a, from_to(1, 2)), UnorderedElementsAre(ids, b));
  EXPECT_EQ(world.bytes_at(ids), from_to(1, 2));
  EXPECT_THAT(world.send(b, from_to(2, 1)), UnorderedElementsAre(ids, a));
  EXPECT_THAT(world.send(c, from_to(3, 2)), ElementsAre(b));
  // It sees and is not seen.
  EXPECT_THAT(world.send(ids, broadcast_from(4)), IsEmpty());
  EXPECT_EQ(world.dropped(ids, Drop::kMirrorPort), 1u);
  // Even what the switch itself refuses.
  EXPECT_THAT(world.send(a, FrameBuilder().vlan(99).payload("x").build()), ElementsAre(ids));
  EXPECT_FALSE(world.fabric.add_mirror({.ports = {a}, .target = a}));
  EXPECT_FALSE(world.fabric.add_mirror({.ports = {77}, .target = b}));
  EXPECT_FALSE(world.fabric.add_mirror({.ports = {a}, .groups = {77}, .target = b}));
  EXPECT_FALSE(world.fabric.add_mirror({.ports = {a}, .target = ids})) << "two mirrors with one target";
  world.fabric.remove_port(ids);
  EXPECT_THAT(world.send(a, from_to(1, 2)), ElementsAre(b));
}

TEST(VirtualSwitch, AMirrorOfAGroupSeesEachFrameOnceAndPortsThatComeLater) {
  World world;
  const GroupId ten = world.group({.vlan = 10}), apart = world.group({.vlan = 10});
  const PortId a = world.port(ten), out = world.port(apart), ids = world.port(apart), other = world.port(apart);
  ASSERT_TRUE(world.fabric.add_mirror({.ports = {}, .groups = {ten}, .target = ids}));
  ASSERT_TRUE(world.fabric.add_mirror({.ports = {out}, .target = other}));
  const PortId late = world.port(ten);
  world.send(late, broadcast_from(3));
  world.send(a, broadcast_from(1));
  EXPECT_THAT(world.send(late, from_to(3, 1)), UnorderedElementsAre(ids, a));
  // What goes to several of them is one frame for each mirror.
  EXPECT_THAT(world.send(out, broadcast_from(2)), UnorderedElementsAre(other, ids, a, late));
  // One mirror's end leaves the other.
  world.fabric.remove_port(ids);
  EXPECT_THAT(world.send(late, from_to(3, 2)), UnorderedElementsAre(out, other));
  EXPECT_THAT(world.send(late, from_to(3, 1)), ElementsAre(a));
}

TEST(VirtualSwitch, ShowsFramesForOthersOnlyWhereTheGroupAllows) {
  World world;
  const GroupId plain = world.group({}), watching = world.group({.promiscuous = Permission::kAllow});
  const PortId a = world.port(plain), b = world.port(plain);
  world.port(plain, {.promiscuous = true});
  const PortId watcher = world.port(watching, {.promiscuous = true});
  world.send(a, from_to(1, 2));
  world.send(b, from_to(2, 1));
  EXPECT_THAT(world.send(a, from_to(1, 2)), UnorderedElementsAre(b, watcher));
}

TEST(VirtualSwitch, IsolatesThePortsOfAGroupThatAsksForIt) {
  World world;
  const GroupId cells = world.group({.within_group = Permission::kDeny}), up = world.group({});
  const PortId a = world.port(cells), router = world.port(up);
  world.port(cells);
  EXPECT_THAT(world.send(a, broadcast_from(1)), ElementsAre(router));
}

TEST(VirtualSwitch, NeverForwardsReservedAddressesOrBrokenFrames) {
  World world;
  const GroupId group = world.group({});
  const PortId a = world.port(group);
  world.port(group);
  EXPECT_THAT(world.send(a, FrameBuilder().ethernet(mac(1), {{1, 0x80, 0xC2, 0, 0, 0}}).payload("x").build()),
              IsEmpty());
  EXPECT_EQ(world.dropped(a, Drop::kReserved), 1u);
  EXPECT_THAT(world.send(a, {}), IsEmpty());
  EXPECT_THAT(world.send(a, std::vector<uint8_t>(13)), IsEmpty());
  EXPECT_THAT(world.send(a, std::vector<uint8_t>(frame::kMaximumFrameSize + 1, 2)), IsEmpty());
  EXPECT_EQ(world.dropped(a, Drop::kMalformed), 3u);
}

TEST(VirtualSwitch, AsksTheFilterForEachPairOfPorts) {
  struct NotToPort final : Filter {
    bool lets_through(const Passage& passage) override { return passage.to != port; }
    PortId port = 0;
  };
  World world;
  const GroupId group = world.group({});
  const PortId a = world.port(group), b = world.port(group), c = world.port(group);
  NotToPort filter;
  filter.port = c;
  world.fabric.set_filter(&filter);
  EXPECT_THAT(world.send(a, broadcast_from(1)), ElementsAre(b));
  EXPECT_EQ(world.dropped(a, Drop::kFilter), 1u);
}

TEST(VirtualSwitch, CountsByPortAndGroup) {
  World world;
  const GroupId left = world.group({}), right = world.group({});
  const PortId a = world.port(left), b = world.port(left), c = world.port(right);
  world.send(a, from_to(1, 9));
  world.send(b, from_to(2, 1));
  const size_t size = from_to(1, 9).size();
  EXPECT_EQ(world.fabric.counters(a)->received_bytes, size);
  EXPECT_EQ(world.fabric.counters(a)->sent_frames, 1u);
  EXPECT_EQ(world.fabric.counters(c)->sent_bytes, size);
  EXPECT_EQ(world.fabric.group_counters(left)->received_frames, 2u);
  EXPECT_EQ(world.fabric.group_counters(left)->sent_frames, 2u);
  EXPECT_EQ(world.fabric.group_counters(right)->sent_frames, 1u);
  EXPECT_EQ(world.fabric.counters(99), nullptr);
}

TEST(VirtualSwitch, RefusesWhatItCannotHave) {
  VirtualSwitch fabric({}, 1);
  EXPECT_FALSE(fabric.add_group({.vlan = 0}));
  EXPECT_FALSE(fabric.add_group({.vlan = 4095}));
  EXPECT_FALSE(fabric.add_group({.mode = VlanMode::kTrunk, .native_vlan = 4095}));
  EXPECT_FALSE(fabric.add_group({.mode = VlanMode::kTrunk, .allowed_vlans = vlans({0})}));
  EXPECT_FALSE(fabric.add_group({.tag_protocol = 0x9100}));
  EXPECT_FALSE(fabric.add_port({}));
  ASSERT_TRUE(fabric.add_group({}));
  EXPECT_FALSE(fabric.add_port({.mac = MacAddress::broadcast()}));
  for (size_t i = 0; i < VirtualSwitch::kMaximumPorts; ++i) ASSERT_TRUE(fabric.add_port({}));
  EXPECT_FALSE(fabric.add_port({}));
}

TEST(VirtualSwitch, EndsALoopOfTwoPortsAndLetsAnAddressMoveOnlySoOften) {
  World world;
  const GroupId group = world.group({.name = "open", .forged_mac = Permission::kAllow});
  const PortId left = world.port(group), right = world.port(group), other = world.port(group);
  // A guest that carries each frame of one of its cards to the other.
  std::vector<std::pair<PortId, std::vector<uint8_t>>> under_way{{left, broadcast_from(7)}};
  size_t rounds = 0, overheard = 0;
  while (!under_way.empty() && ++rounds < 10'000) {
    const auto [from, frame] = under_way.back();
    under_way.pop_back();
    for (const PortId to : world.send(from, frame)) {
      if (to == other) ++overheard;
      if (to != other) under_way.emplace_back(to, frame);
    }
  }
  EXPECT_LE(rounds, 2u * MacTable::kMovesASecond);
  EXPECT_LE(overheard, 2u * MacTable::kMovesASecond);
  EXPECT_EQ(world.dropped(left, Drop::kLoop) + world.dropped(right, Drop::kLoop), 1u);
  // Others go on, and a second later the address may move again.
  EXPECT_THAT(world.send(other, broadcast_from(8)), UnorderedElementsAre(left, right));
  world.now += kSecond;
  EXPECT_THAT(world.send(left, broadcast_from(7)), UnorderedElementsAre(right, other));
  EXPECT_THAT(world.send(right, broadcast_from(7)), UnorderedElementsAre(left, other));
}

TEST(VirtualSwitch, PausesAPortByWhichItsOwnProbeComesBack) {
  World world;
  const GroupId open = world.group({.name = "open", .forged_mac = Permission::kAllow});
  const GroupId strict = world.group({.name = "strict"});
  const PortId left = world.port(open), right = world.port(open), own = world.port(strict, {.mac = mac(9)});
  Recorder probes;
  world.fabric.probe_for_loops(world.now, probes);
  ASSERT_EQ(probes.out.size(), 2u);
  const auto& [first, from_left] = probes.out[0];
  const auto& [second, from_right] = probes.out[1];
  ASSERT_EQ(first, left);
  ASSERT_EQ(second, right);
  // A guest bridges the two, so each comes back by the other's port.
  EXPECT_THAT(world.send(right, from_left), IsEmpty());
  EXPECT_THAT(world.send(left, from_right), IsEmpty());
  EXPECT_THAT(world.send(right, broadcast_from(7)), IsEmpty());
  EXPECT_THAT(world.send(left, broadcast_from(7)), ElementsAre(own));
  world.now += VirtualSwitch::kLoopPause_ns;
  EXPECT_THAT(world.send(left, broadcast_from(7)), UnorderedElementsAre(right, own));
  // A port that is its own loop.
  EXPECT_THAT(world.send(left, from_left), IsEmpty());
  EXPECT_THAT(world.send(left, broadcast_from(7)), IsEmpty());
  EXPECT_THAT(world.send(own, from_left), IsEmpty());
  EXPECT_EQ(world.dropped(own, Drop::kLoop), 1u);
}

}  // namespace
}  // namespace bulkhead::net::switching
