#include "net/switch/multicast_table.h"

#include <gtest/gtest.h>

#include "net/frame/big_endian.h"
#include "net/frame/frame_builder.h"
#include "net/switch/virtual_switch.h"

namespace bulkhead::net::switching {
namespace {

using frame::FrameBuilder;
using Bytes = std::vector<uint8_t>;

constexpr uint64_t kSecond = 1'000'000'000;
constexpr frame::MacAddress kGroup{{0x01, 0, 0x5E, 1, 2, 3}};   // 239.1.2.3
constexpr frame::MacAddress kGroup6{{0x33, 0x33, 0, 1, 2, 3}};  // ff05::1:203
const Bytes kAddress6{0xFF, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3};

// With hop limit 1, as such messages have.
Bytes with_limit_1(Bytes bytes, bool ipv4) {
  const unsigned less = bytes[ipv4 ? 22 : 21] - 1u;
  bytes[ipv4 ? 22 : 21] = 1;
  if (!ipv4) return bytes;
  // What the header's byte loses its checksum wins (RFC 1624).
  uint32_t sum = frame::load_big16(bytes.data() + 24) + (less << 8);
  sum = (sum & 0xFFFF) + (sum >> 16);
  frame::store_big16(bytes.data() + 24, static_cast<uint16_t>(sum));
  return bytes;
}
Bytes igmp(const Bytes& message, const char* source = "10.0.0.1") {
  return with_limit_1(FrameBuilder()
                          .ethernet({{2, 0, 0, 0, 0, 1}}, kGroup)
                          .ipv4(source, "239.1.2.3")
                          .protocol(2)
                          .payload(ByteSpan(message))
                          .build(),
                      true);
}
Bytes mld(uint8_t type, const Bytes& rest) {
  return with_limit_1(FrameBuilder().ipv6("fe80::1", "ff05::1:203").icmp(type).payload(ByteSpan(rest)).build(), false);
}
const Bytes kQuery{0x11, 100, 0, 0, 0, 0, 0, 0}, kReport{0x16, 0, 0, 0, 239, 1, 2, 3},
    kLeave{0x17, 0, 0, 0, 239, 1, 2, 3};

struct World {
  void hear(PortId port, const Bytes& frame, bool may_query = false) {
    table.learn({.vlan = 1}, port, may_query, frame::read_headers(frame), frame, now);
  }
  [[nodiscard]] std::string members(const frame::MacAddress& group = kGroup) const {
    if (!table.is_known({.vlan = 1}, group, now)) return "everybody";
    std::string all;
    for (PortId port = 0; port < 10; ++port) {
      if (table.wants({.vlan = 1}, group, port, now)) all += static_cast<char>('0' + port);
    }
    return all;
  }
  MulticastTable table;
  uint64_t now = kSecond;
};

TEST(MulticastTable, ChoosesMembersAndRoutersOnceSomebodyAsksForThem) {
  World world;
  world.hear(3, igmp(kReport));
  EXPECT_EQ(world.members(), "everybody");  // others may be members, and nobody has asked them
  world.hear(7, igmp(kQuery));
  world.now += MulticastTable::kFirstAnswers_ns;
  EXPECT_EQ(world.members(), "everybody") << "a question of a card that may not serve the network";
  world.hear(7, igmp(kQuery, "0.0.0.0"), true);
  world.now += MulticastTable::kFirstAnswers_ns;
  EXPECT_EQ(world.members(), "everybody") << "a question of no router";
  world.hear(7, igmp(kQuery), true);
  EXPECT_EQ(world.members(), "everybody") << "before the answers";
  world.hear(4, igmp(kReport));
  world.now += MulticastTable::kFirstAnswers_ns;
  EXPECT_EQ(world.members(), "347");
  world.hear(4, igmp(kLeave));
  EXPECT_EQ(world.members(), "347");
  world.now += MulticastTable::kLastMember_ns;
  EXPECT_EQ(world.members(), "37");
  world.table.forget_port(3);
  EXPECT_EQ(world.members(), "everybody");
  world.hear(4, igmp(kReport));
  EXPECT_EQ(world.members(), "47");
  world.now += MulticastTable::kQuerier_ns;
  EXPECT_EQ(world.members(), "everybody") << "the router is gone";
}

// Whoever was there longest goes first, and what is left counts as if it had been alone.
TEST(MulticastTable, TheLatestToSpeakIsTheLastThatIsThere) {
  World world;
  world.hear(7, igmp(kQuery), true);
  world.hear(1, igmp(kReport));
  world.now += MulticastTable::kFirstAnswers_ns;
  world.hear(2, igmp(kReport));
  EXPECT_EQ(world.members(), "127");
  // The one with the most time left leaves: the other one's time decides.
  world.hear(2, igmp(kLeave));
  world.now += MulticastTable::kLastMember_ns;
  EXPECT_EQ(world.members(), "17");
  world.now = MulticastTable::kQuerier_ns;
  world.hear(8, igmp(kQuery), true);
  EXPECT_EQ(world.members(), "178");
  world.now = MulticastTable::kMembership_ns;
  EXPECT_EQ(world.members(), "18") << "the first router's time is over";
  world.now += kSecond;
  EXPECT_EQ(world.members(), "everybody") << "the first member's time is over";
  world.hear(3, igmp(kReport));
  EXPECT_EQ(world.members(), "38");
  world.table.forget_port(8);
  EXPECT_EQ(world.members(), "everybody") << "nobody asks";
}

TEST(MulticastTable, ReadsRecordsOfTheThirdVersion) {
  World world;
  world.hear(7, igmp(kQuery), true);
  const auto record = [](uint8_t type, uint8_t sources) {
    Bytes message{0x22, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0, 239, 9, 9, 9, type, 0, 0, sources, 239, 1, 2, 3};
    message.resize(message.size() + size_t{4} * sources);
    return message;
  };
  world.hear(1, igmp(record(4, 0)));
  world.hear(2, igmp(record(5, 1)));
  world.hear(3, igmp(record(3, 0)));
  world.hear(4, igmp(record(6, 1)));
  world.now += MulticastTable::kFirstAnswers_ns;
  EXPECT_EQ(world.members(), "127");
  Bytes cut = record(4, 0);
  cut.resize(20);
  world.hear(5, igmp(cut));
  EXPECT_EQ(world.members(), "127");
}

TEST(MulticastTable, ReadsMldOfBothVersions) {
  World world;
  world.hear(7, mld(130, Bytes(16)), true);
  world.hear(1, mld(131, kAddress6));
  Bytes records{4, 0, 0, 0};
  records.insert(records.end(), kAddress6.begin(), kAddress6.end());
  Bytes second = mld(143, records);
  second[14 + 40 + 7] = 1;  // the number of records stands in the header's last word
  world.hear(2, second);
  world.now += MulticastTable::kFirstAnswers_ns;
  EXPECT_EQ(world.members(kGroup6), "127");
  world.hear(1, mld(132, kAddress6));
  world.now += MulticastTable::kLastMember_ns;
  EXPECT_EQ(world.members(kGroup6), "27");
}

TEST(MulticastTable, IsBoundedForEachPortAndNeverHidesTheLinksOwnGroups) {
  World world;
  world.hear(7, igmp(kQuery), true);
  for (size_t i = 0; i < 10'000; ++i) {
    world.hear(1, igmp({0x16, 0, 0, 0, 239, 7, static_cast<uint8_t>(i >> 8), static_cast<uint8_t>(i)}));
  }
  EXPECT_EQ(world.table.size(), MulticastTable::kMembershipsAPort);
  world.hear(2, igmp(kReport));
  world.hear(2, igmp({0x16, 0, 0, 0, 224, 0, 0, 251}));
  world.now += MulticastTable::kFirstAnswers_ns;
  EXPECT_EQ(world.members(), "27");
  EXPECT_EQ(world.members({{0x01, 0, 0x5E, 0, 0, 251}}), "everybody");
  world.now += MulticastTable::kMembership_ns;
  world.hear(1, igmp(kReport));
  EXPECT_EQ(world.table.size(), 1u);
}

TEST(VirtualSwitch, SendsAKnownGroupToItsMembersOnly) {
  struct Recorder final : Output {
    void deliver(PortId port, const OutputFrame& /*frame*/) override { ports.push_back(port); }
    std::vector<PortId> ports;
  };
  VirtualSwitch fabric({}, 1);
  const GroupId open = fabric.add_group({.name = "open"}).value();
  const GroupId routers = fabric.add_group({.name = "routers", .network_services = Permission::kAllow}).value();
  const PortId sender = fabric.add_port({.group = open}).value(), member = fabric.add_port({.group = open}).value();
  const PortId other = fabric.add_port({.group = open}).value(), router = fabric.add_port({.group = routers}).value();
  uint64_t now = kSecond;
  const auto send = [&](PortId from, const Bytes& frame) {
    Recorder recorder;
    fabric.forward(from, frame, now, recorder);
    return recorder.ports;
  };
  const auto data =
      FrameBuilder().ethernet({{2, 0, 0, 0, 0, 9}}, kGroup).ipv4("10.0.0.9", "239.1.2.3").udp(1, 2).build();
  EXPECT_EQ(send(sender, data), (std::vector<PortId>{member, other, router}));
  (void)send(router, igmp(kQuery));
  (void)send(member, igmp(kReport));
  now += MulticastTable::kFirstAnswers_ns;
  EXPECT_EQ(send(sender, data), (std::vector<PortId>{member, router}));
}

// What is beyond a diode must not choose, by joining, leaving and asking, which ports of this side get a frame.
TEST(VirtualSwitch, ZonesTellEachOtherNothingByTheirMemberships) {
  struct Recorder final : Output {
    void deliver(PortId port, const OutputFrame& /*frame*/) override { ports.push_back(port); }
    std::vector<PortId> ports;
  };
  VirtualSwitch fabric({}, 1);
  const GroupId near = fabric.add_group({.name = "near", .zone = 0}).value();
  const GroupId far = fabric.add_group({.name = "far", .zone = 1, .network_services = Permission::kAllow}).value();
  const PortId sender = fabric.add_port({.group = near}).value(), silent = fabric.add_port({.group = near}).value();
  const PortId member = fabric.add_port({.group = far}).value(), other = fabric.add_port({.group = far}).value();
  const PortId router = fabric.add_port({.group = far}).value();
  uint64_t now = kSecond;
  const auto send = [&](PortId from, Bytes frame) {
    Recorder recorder;
    frame[10] = static_cast<uint8_t>(from);  // each has its own address
    fabric.forward(from, frame, now, recorder);
    return recorder.ports;
  };
  const auto data =
      FrameBuilder().ethernet({{2, 0, 0, 0, 0, 9}}, kGroup).ipv4("10.0.0.9", "239.1.2.3").udp(1, 2).build();
  (void)send(router, igmp(kQuery));
  (void)send(member, igmp(kReport));
  now += MulticastTable::kFirstAnswers_ns;
  EXPECT_EQ(send(sender, data), (std::vector<PortId>{silent, member, router}));
  EXPECT_EQ(send(sender, igmp(kReport)), (std::vector<PortId>{silent, router})) << "a report of the near zone";
  // However many groups the far zone is in, the near one's are known. Enough ports to fill any table for all of them.
  for (unsigned port = 0; port < 64; ++port) {
    const PortId crowd = fabric.add_port({.group = far}).value();
    for (unsigned i = 0; i < MulticastTable::kMembershipsAPort; ++i) {
      (void)send(crowd, igmp({0x16, 0, 0, 0, 239, 7, static_cast<uint8_t>(port), static_cast<uint8_t>(i)}));
    }
  }
  const GroupId asks = fabric.add_group({.name = "asks", .network_services = Permission::kAllow}).value();
  const PortId near_router = fabric.add_port({.group = asks}).value();
  (void)send(near_router, igmp(kQuery));
  (void)send(silent, igmp(kReport));
  now += MulticastTable::kFirstAnswers_ns;
  const PortId late = fabric.add_port({.group = near}).value();
  EXPECT_EQ(send(sender, data), (std::vector<PortId>{silent, member, router, near_router})) << late;
  EXPECT_EQ(send(member, data).front(), sender);
  (void)other;
}

}  // namespace
}  // namespace bulkhead::net::switching
